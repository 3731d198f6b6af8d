"""Symmetric operators that are known by what they do to vectors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.errors import UnsupportedModelError

__all__ = ["Operator", "check_operator", "derivatives_needed", "function_hessian", "pull"]

# What torch says where a layer lacks one.
MISSING = ("implemented", "double backward", "differentiate twice")


@dataclass(frozen=True)
class Operator:
    """A symmetric matrix that is never written down.

    Attributes:
        rows: From vectors as rows, shape ``(vectors, params)``, to their products, likewise.
        size: Number of parameters.
        dtype: Of vectors and products.
        device: Where they lie.
    """

    rows: Callable[[Float[Tensor, "vectors params"]], Float[Tensor, "vectors params"]]
    size: int
    dtype: torch.dtype
    device: torch.device = torch.device("cpu")

    def __call__(self, vectors: Float[Tensor, "params ..."]) -> Float[Tensor, "params ..."]:
        """Multiply.

        Args:
            vectors: Shape ``(params,)``, or ``(params, vectors)`` for a block.

        Returns:
            The product, of the same shape.

        Raises:
            ValueError: If the shape is another one.
        """
        if vectors.ndim not in (1, 2) or len(vectors) != self.size:
            raise ValueError(
                f"vectors must have shape ({self.size},) or ({self.size}, vectors); got "
                f"{tuple(vectors.shape)}. Transpose a block whose vectors are rows."
            )
        given = vectors.detach().to(self.device, self.dtype)
        if given.ndim == 1:
            return self.rows(given.unsqueeze(0)).squeeze(0)
        return self.rows(given.T.contiguous()).T

    def dense(self, block: int = 64) -> Float[Tensor, "params params"]:
        """Write the matrix down, one product per parameter.

        Args:
            block: Products at once.

        Returns:
            The matrix, made symmetric.
        """
        unit = torch.eye(self.size, dtype=self.dtype, device=self.device)
        matrix = torch.cat([self.rows(some) for some in unit.split(block)])
        return (matrix + matrix.T) / 2


def function_hessian(
    function: Callable[[Float[Tensor, " params"]], Float[Tensor, ""]],
    vector: Float[Tensor, " params"],
) -> Operator:
    """Multiply with the Hessian of any function of a vector, at one point.

    Args:
        function: Twice differentiable; it is run once, and its graph kept.
        vector: The point; copied.

    Returns:
        The operator.

    Raises:
        ValueError: If the function does not return one number that depends on the vector.

    Source:
        Pearlmutter, Neural Computation 6 (1994).
    """
    leaf = vector.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = function(leaf)
        if value.numel() != 1 or not value.requires_grad:
            raise ValueError(
                "function must return one number that depends on the vector; got shape "
                f"{tuple(value.shape)}. Sum it, and take no detach() on the way."
            )
        (gradient,) = torch.autograd.grad(
            value.sum(), leaf, create_graph=True, materialize_grads=True
        )
    return Operator(
        lambda rows: pull(gradient, leaf, rows, keep=True), len(leaf), leaf.dtype, leaf.device
    )


def pull(
    output: Tensor,
    leaf: Tensor,
    rows: Float[Tensor, "vectors outputs"],
    *,
    keep: bool,
    together: bool = False,
) -> Float[Tensor, "vectors params"]:
    """Multiply vectors with the transposed Jacobian of an output.

    Args:
        output: A vector, with its graph.
        leaf: What the graph begins with.
        rows: The vectors.
        keep: Keep the graph for another call.
        together: Run all vectors through the graph as one batch.

    Returns:
        The products; zero where the output does not depend on the leaf.
    """
    if not output.requires_grad:
        return leaf.new_zeros(len(rows), leaf.numel())
    options = {"allow_unused": True, "materialize_grads": True}
    with derivatives_needed():
        if together and len(rows) > 1:
            (found,) = torch.autograd.grad(
                output, leaf, rows, retain_graph=keep, is_grads_batched=True, **options
            )
            return found
        found = [
            torch.autograd.grad(
                output, leaf, row, retain_graph=keep or index + 1 < len(rows), **options
            )[0]
            for index, row in enumerate(rows)
        ]
        return torch.stack(found)


@contextmanager
def derivatives_needed() -> Iterator[None]:
    """Say what to do where torch has no derivative of some layer.

    Yields:
        Nothing.

    Raises:
        UnsupportedModelError: If a derivative is missing inside.
        RuntimeError: Any other that torch raises there.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in MISSING):
            raise
        raise UnsupportedModelError(
            "every layer and the loss must have the derivatives that a product takes; torch says: "
            f"{str(error).splitlines()[0]} Take another mode of hessian_product "
            '(mode="difference" needs first derivatives only), or another layer.'
        ) from error


def check_operator(operator: Operator, generator: torch.Generator) -> None:
    """Refuse an operator that gives two answers, is not symmetric, or not finite.

    Costs four products.

    Args:
        operator: Any operator.
        generator: Source of two random vectors, on the CPU.

    Raises:
        ValueError: If the operator is not one matrix, or not symmetric.
    """
    pair = torch.randn(2, operator.size, dtype=torch.float64, generator=generator)
    pair = pair.to(operator.device, operator.dtype)
    first, again = operator.rows(pair), operator.rows(pair)
    if not torch.isfinite(first).all():
        raise ValueError(
            "a product of the operator must be finite; got NaN or infinity. Has the training "
            "diverged?"
        )
    tolerance = torch.finfo(operator.dtype).eps ** 0.5
    scale = float(first.norm())
    drift = float((first - again).norm())
    if drift > tolerance * scale:
        raise ValueError(
            "the operator must give the same product twice; two differ by "
            f"{drift / scale:.2g} of their norm. Switch off what is random in the model and the "
            "batches."
        )
    skew = abs(float(pair[0] @ first[1] - pair[1] @ first[0]))
    if skew > tolerance * scale * float(pair.norm()):
        raise ValueError(
            f"the operator must be symmetric; u'Hv and v'Hu differ by {skew:.2g}. Symmetrize a "
            "matrix, (A + A') / 2; with a model, some layer has a wrong second derivative: pass "
            'hessian_product(..., mode="difference") instead.'
        )
