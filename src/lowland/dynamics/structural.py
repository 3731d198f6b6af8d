"""Directions that are flat for reasons that can be named: nothing that training could change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lowland.dynamics.mean_loss import MeanLoss, mean_loss
from lowland.dynamics.operators import Operator
from lowland.dynamics.products import hessian_product
from lowland.results import plain
from lowland.training import batch_count, generator

__all__ = ["StructuralZeros", "structural_zeros"]


@dataclass(frozen=True)
class StructuralZeros:
    """Exact null directions of a Hessian, by cause.

    Attributes:
        params: Number of parameters.
        unused: Parameters that the Hessian ignores, by the name of their tensor.
        unused_inputs: Per weight, the input features whose weights are all ignored: features that
            are zero in every example, or units that are never active.
        dead_units: Per weight, the units whose incoming weights are all ignored.
        softmax_shift: Directions that add the same number to all scores, where the loss does not
            see it: one for each used feature of the last layer, one for its bias. They are
            independent of the unused parameters.
        gauss_newton_rank: The Gauss-Newton matrix has no larger rank: examples times outputs, one
            output less where the loss does not see a shift.
    """

    params: int
    unused: Mapping[str, int]
    unused_inputs: Mapping[str, tuple[int, ...]]
    dead_units: Mapping[str, tuple[int, ...]]
    softmax_shift: int
    gauss_newton_rank: int

    @property
    def total(self) -> int:
        """Independent null directions of the Hessian in all."""
        return sum(self.unused.values()) + self.softmax_shift

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return plain(self) | {"total": self.total}


def structural_zeros(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    *,
    batch_norm: str = "eval",
    seed: int = 0,
) -> StructuralZeros:
    """Count the exact null directions of a model's Hessian that have a simple cause.

    A parameter is ignored if its row of the Hessian is zero; products with two random vectors are
    zero there, and nowhere else. The costs are three products. Rescalings of ReLU units and of
    filters before batch norm are not counted: they are null at stationary points only.

    Args:
        model: Any module; left as it is.
        loss_fn: One loss per example.
        batches: Re-iterable of (inputs, target).
        batch_norm: As for :func:`lowland.dynamics.hessian_product`.
        seed: Of the random vectors.

    Returns:
        The counts.

    Source:
        The specification's section 3.5.
    """
    loss = mean_loss(model, loss_fn, batches, batch_norm=batch_norm)
    operator = hessian_product(model, loss_fn, batches, batch_norm=batch_norm, max_bytes=0)
    draws = generator(seed, "structural")
    vectors = torch.randn(2, operator.size, dtype=torch.float64, generator=draws)
    products = operator.rows(vectors.to(loss.vector))
    sizes = loss.layout.views(products.abs().amax(0))
    ignored = {name: size == 0 for name, size in sizes.items()}
    outputs, is_blind = look_at_outputs(loss)
    rows = {name: value.flatten(1) for name, value in ignored.items() if value.ndim > 1}
    return StructuralZeros(
        operator.size,
        {name: int(value.sum()) for name, value in ignored.items() if value.any()},
        {name: columns for name, value in rows.items() if (columns := inputs_of(ignored[name]))},
        {
            name: tuple(value.all(1).nonzero().flatten().tolist())
            for name, value in rows.items()
            if value.all(1).any()
        },
        softmax_shift(loss, operator, ignored, draws) if is_blind else 0,
        min(loss.examples * outputs, operator.size),
    )


def inputs_of(ignored: Bool[Tensor, "units inputs *kernel"]) -> tuple[int, ...]:
    """Input features (or channels) whose weights are all ignored."""
    columns = ignored.transpose(0, 1).flatten(1).all(1)
    return tuple(columns.nonzero().flatten().tolist())


def look_at_outputs(loss: MeanLoss) -> tuple[int, bool]:
    """Effective number of outputs per example, and whether the loss is blind to a shift of all."""
    with loss.ready(), torch.no_grad():
        inputs, target = next(loss.read())
        output = loss.outputs(loss.vector, inputs)
        if not isinstance(output, Tensor) or output.ndim < 2:
            count = output.numel() if isinstance(output, Tensor) else loss.layout.size
            return max(1, count // batch_count(target, inputs)), False
        here, moved = loss.share(output, target), loss.share(output + 1, target)
    per_example = output[0].numel()
    is_blind = output.shape[-1] > 1 and bool((moved - here).abs() <= 1e-5 * here.abs())
    return per_example - (per_example // output.shape[-1] if is_blind else 0), is_blind


def softmax_shift(
    loss: MeanLoss,
    operator: Operator,
    ignored: Mapping[str, Bool[Tensor, "..."]],
    draws: torch.Generator,
) -> int:
    """Find the linear layer whose outputs are the scores, and count its shifts."""
    layers = {f"{n}." if n else "": m for n, m in loss.model.named_modules()}
    for prefix, layer in reversed(layers.items()):
        weight, bias = f"{prefix}weight", f"{prefix}bias"
        if not isinstance(layer, nn.Linear) or weight not in ignored or layer.out_features < 2:
            continue
        used = ~ignored[weight].all(0)
        has_bias = bias in ignored
        shift = torch.zeros_like(loss.vector)
        other = torch.zeros_like(loss.vector)
        for name in (weight, bias) if has_bias else (weight,):
            view = loss.layout.views(shift)[name]
            same = torch.randn(view.shape[1:], dtype=torch.float64, generator=draws)
            view.copy_(same.expand(view.shape))
            free = torch.randn(view.shape, dtype=torch.float64, generator=draws)
            loss.layout.views(other)[name].copy_(free)
        if is_null(operator, shift, other):
            return int(used.sum()) + has_bias
    return 0


def is_null(
    operator: Operator, vector: Float[Tensor, " params"], other: Float[Tensor, " params"]
) -> bool:
    """Tell whether an operator gives zero, but for rounding, where another vector gives more."""
    products = operator.rows(torch.stack([vector, other]))
    least = 1e4 * torch.finfo(operator.dtype).eps
    norms = products.norm(dim=1) / torch.stack([vector, other]).norm(dim=1)
    return bool(norms[0] <= least * norms[1])
