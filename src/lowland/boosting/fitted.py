"""Residual blocks that are fitted, not trained: random features and regression trees."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lowland.boosting.trees import Tree, apply_tree, grow_tree
from lowland.training.floats import wide_type

__all__ = ["FittedBlock", "RandomFeatures", "TreeBlock", "shares", "wide"]


class FittedBlock(nn.Module):
    """A residual block ``g + step * change(g)`` whose change is fitted, not trained.

    What is fitted lies in buffers, so that it is saved and moved with the model.

    Args:
        width: Size of the features, which have shape ``(batch, width)``.
        shrinkage: Share of the best step that is taken.
    """

    step: Tensor

    def __init__(self, width: int, shrinkage: float = 1.0):
        super().__init__()
        if width < 1 or not 0 < shrinkage <= 1:
            raise ValueError(
                f"width must be positive and shrinkage in (0, 1]; got {width} and {shrinkage}."
            )
        self.width, self.shrinkage = width, shrinkage
        self.register_buffer("step", torch.ones(()))

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Apply the block.

        Args:
            x: Features.

        Returns:
            Features of the same size; as they were before the block is fitted.
        """
        return x + self.step * self.change(x)

    def change(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Say where the features move.

        Args:
            x: Features.

        Raises:
            NotImplementedError: Here.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how features change.")

    def fit(
        self,
        features: Float[Tensor, "examples width"],
        targets: Float[Tensor, "examples width"],
        weights: Float[Tensor, " examples"] | None = None,
    ) -> None:
        """Fit the change.

        Args:
            features: What enters the block.
            targets: Where each example's features should move.
            weights: Weight of each example, by default 1.

        Raises:
            NotImplementedError: Here.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it is fitted.")

    def check(self, features: Tensor, targets: Tensor) -> None:
        """Refuse what the block cannot be fitted to.

        Args:
            features: What enters the block.
            targets: Where the features should move.

        Raises:
            ValueError: If a shape is not ``(examples, width)``, or a number not finite.
        """
        for name, tensor in (("features", features), ("targets", targets)):
            if tensor.shape != (len(features), self.width) or not len(features):
                raise ValueError(
                    f"{name} must have shape (examples, {self.width}); got {tuple(tensor.shape)}. "
                    "Pool or flatten them in the stem."
                )
            if not tensor.isfinite().all():
                raise ValueError(f"{name} must be finite; got NaN or infinity.")


class RandomFeatures(FittedBlock):
    r"""A hidden layer that is drawn once, and linear weights in closed form.

    :math:`f(g) = A \tanh(U z + b)`, where :math:`z` is :math:`g` with mean 0 and variance 1 over
    the examples that the block was fitted to, :math:`U` is normal with variance 1 / width and
    :math:`b` standard normal. :math:`A` minimizes
    :math:`\sum_i w_i |f(g_i) - r_i|^2 + \lambda |A|^2`, weights with mean 1.

    Args:
        width: Size of the features.
        features: Hidden units.
        ridge: The penalty :math:`\lambda`.
        shrinkage: Share of the best step that is taken. With whole steps the training
            loss falls quickly, and after one block the test error rises.
        generator: Source of randomness, on the CPU; by default torch's own, as for every layer.

    Source:
        Rahimi & Recht, NeurIPS 2008; Zozoulenko et al., 2025.
    """

    center: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    coefficient: Tensor

    def __init__(
        self,
        width: int,
        features: int = 256,
        ridge: float = 1.0,
        shrinkage: float = 0.1,
        *,
        generator: Generator | None = None,
    ):
        super().__init__(width, shrinkage)
        if features < 1 or not ridge > 0:
            raise ValueError(f"features and ridge must be positive; got {features} and {ridge}.")
        self.ridge = ridge
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        draws = torch.randn(features, width + 1, generator=generator)
        self.register_buffer("weight", draws[:, :width] / width**0.5)
        self.register_buffer("bias", draws[:, width].clone())
        self.register_buffer("coefficient", torch.zeros(width, features))

    def change(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Say where the features move.

        Args:
            x: Features.

        Returns:
            The change; 0 before the block is fitted.
        """
        return self.units(x) @ self.coefficient.T

    def units(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch units"]:
        """Compute the hidden layer."""
        return torch.tanh((x - self.center) / self.scale @ self.weight.T + self.bias)

    @torch.no_grad()
    def fit(
        self,
        features: Float[Tensor, "examples width"],
        targets: Float[Tensor, "examples width"],
        weights: Float[Tensor, " examples"] | None = None,
    ) -> None:
        """Solve for the linear weights.

        Args:
            features: What enters the block.
            targets: Where each example's features should move.
            weights: Weight of each example, by default 1.
        """
        self.check(features, targets)
        features, targets = wide(features), wide(targets)
        share = shares(len(features), features, weights)
        center = share @ features
        scale = (share @ (features - center).square()).sqrt()
        self.center.copy_(center)
        self.scale.copy_(torch.where(scale > 1e-6 * scale.max(), scale, 1))  # constant: left alone
        units = wide(self.units(features.to(self.weight)))
        weighted = len(features) * share[:, None] * units
        gram = weighted.T @ units
        gram.diagonal().add_(self.ridge)
        self.coefficient.copy_(torch.linalg.solve(gram, weighted.T @ targets).T)


class TreeBlock(FittedBlock):
    """A regression tree for all features at once; a leaf says how its examples move.

    One tree learns its examples by heart soon: with the whole step and all examples the training
    loss falls quickly and the test error rises. Smaller steps and other examples for every tree
    are what keeps it from that.

    Args:
        width: Size of the features.
        depth: Splits on the longest way, at most 16: a leaf for each of ``2 ** depth`` ways is
            there from the beginning.
        leaf: Fewest examples of a leaf.
        shrinkage: Share of the best step that is taken.
        subsample: Share of the examples that the tree is fitted to.
        generator: Source of randomness for these, on the CPU; by default torch's own.

    Source:
        Friedman, Annals of Statistics 2001 (shrinkage) and 2002 (sub-samples); Siu, 2019 (trees
        in residual networks).
    """

    feature: Tensor
    threshold: Tensor
    value: Tensor

    def __init__(
        self,
        width: int,
        depth: int = 8,
        leaf: int = 5,
        shrinkage: float = 0.1,
        subsample: float = 0.5,
        *,
        generator: Generator | None = None,
    ):
        super().__init__(width, shrinkage)
        if not 1 <= depth <= 16 or leaf < 1 or not 0 < subsample <= 1:
            raise ValueError(
                "depth must be 1 to 16, leaf positive and subsample in (0, 1]; "
                f"got {depth}, {leaf} and {subsample}."
            )
        self.depth, self.leaf, self.subsample = depth, leaf, subsample
        self.seed = int(torch.randint(2**62, (), generator=generator))
        self.register_buffer("feature", torch.zeros(2**depth - 1, dtype=torch.int64))
        self.register_buffer("threshold", torch.full((2**depth - 1,), torch.inf))
        self.register_buffer("value", torch.zeros(2**depth, width))

    def change(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Say where the features move.

        Args:
            x: Features.

        Returns:
            The change; 0 before the block is fitted.
        """
        return apply_tree(Tree(self.feature, self.threshold, self.value), x)

    @torch.no_grad()
    def fit(
        self,
        features: Float[Tensor, "examples width"],
        targets: Float[Tensor, "examples width"],
        weights: Float[Tensor, " examples"] | None = None,
    ) -> None:
        """Grow the tree, on the host.

        Args:
            features: What enters the block.
            targets: Where each example's features should move.
            weights: Weight of each example, by default 1.
        """
        self.check(features, targets)
        rows = torch.arange(len(features))
        if self.subsample < 1:
            order = torch.randperm(len(rows), generator=Generator().manual_seed(self.seed))
            rows = order[: max(1, round(self.subsample * len(rows)))].sort().values
        tree = grow_tree(
            features.to("cpu", self.threshold.dtype)[rows],
            targets.to("cpu", torch.float64)[rows],
            depth=self.depth,
            leaf=self.leaf,
            weights=None if weights is None else weights.to("cpu", torch.float64)[rows],
        )
        for name, tensor in vars(tree).items():
            getattr(self, name).copy_(tensor)


def wide(value: Any) -> Any:
    """Turn real numbers, or the weights of a module, into float64 where the device has it.

    Args:
        value: A tensor, or a module, which is changed in place.

    Returns:
        The value in float64, in float32 on a device without; other numbers as they are.
    """
    if isinstance(value, Tensor) and not value.is_floating_point():
        return value
    tensor = value if isinstance(value, Tensor) else next(value.parameters(), None)
    return value.to(torch.float64 if tensor is None else wide_type(tensor.device))


def shares(
    count: int, like: Tensor, weights: Float[Tensor, " examples"] | None
) -> Float[Tensor, " examples"]:
    """Make weights sum to one.

    Args:
        count: Number of examples.
        like: A tensor of the type and on the device that are wanted.
        weights: Weight of each example; None gives all the same.

    Returns:
        The share of each example.
    """
    share = like.new_ones(count) if weights is None else weights.to(like)
    return share / share.sum()
