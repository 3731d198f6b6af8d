"""Products of vectors with the Hessian, or the Gauss-Newton matrix, of a model's mean loss."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, jvp, vjp
from torch.nn.modules.conv import _ConvNd

from lowland.dynamics.mean_loss import MeanLoss, mean_loss
from lowland.dynamics.operators import Operator, derivatives_needed, pull
from lowland.errors import UnsupportedModelError
from lowland.training import batch_count, generator, map_tensors, tensors_in

__all__ = ["hessian_product"]

KINDS = ("hessian", "gauss_newton")
MODES = ("reverse", "forward", "difference")

# On a CPU, running several vectors through a graph at once saves calls, which pays for small
# networks; convolutions are slower that way than one by one.
TOGETHER_UP_TO = 2**15

Rows = Float[Tensor, "vectors params"]


def hessian_product(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    *,
    batch_norm: str = "eval",
    kind: str = "hessian",
    mode: str = "reverse",
    max_bytes: int = 2**31,
) -> Operator:
    r"""Multiply vectors with the second derivatives of a model's mean loss, at its present weights.

    With :math:`L = \frac1P \sum_i \ell_i` over all examples of all batches, the Hessian is
    :math:`H = \nabla^2 L`, and the Gauss-Newton matrix
    :math:`G = \frac1P \sum_i J_i^T (\nabla^2_z \ell_i) J_i` with the Jacobian :math:`J_i` of the
    outputs :math:`z_i`. The model is measured in evaluation mode, without dropout; parameters and
    buffers are copied, so that the operator stays where it was made. Tied parameters count once,
    frozen ones not at all.

    Args:
        model: Any module with float32 or float64 parameters; left as it is.
        loss_fn: One loss per example.
        batches: Re-iterable of (inputs, target), of any sizes. They should not be augmented.
        batch_norm: ``"eval"`` uses running statistics; ``"train"`` uses those of each batch, so
            that the matrix depends on how examples are put into batches.
        kind: ``"hessian"`` or ``"gauss_newton"``.
        mode: ``"reverse"`` differentiates the gradient backwards; its graphs are kept from product
            to product where they fit. ``"forward"`` differentiates it forwards, without a graph of
            the gradient, and sometimes works where there is no double backward. ``"difference"``
            takes the difference of two gradients, with an error of about
            :math:`\epsilon^{2/3}`; it is for the Hessian only.
        max_bytes: Of the graphs to keep. Where they need more, each product builds them again,
            one batch at a time.

    Returns:
        The operator: call it on a vector of shape ``(params,)``, in the order of
        ``named_parameters()``, or on a block of shape ``(params, vectors)``.

    Raises:
        ValueError: If an option is unknown, or the batches are empty or cannot be read again.
        UnsupportedModelError: If the model's parameters have no products in real numbers, or some
            layer lacks a derivative that the mode takes.

    Source:
        Pearlmutter, Neural Computation 6 (1994); Schraudolph, Neural Computation 14 (2002).
    """
    if kind not in KINDS or mode not in MODES:
        raise ValueError(
            f"kind must be one of {KINDS} and mode one of {MODES}; got {kind!r} and {mode!r}."
        )
    if kind == "gauss_newton" and mode == "difference":
        raise ValueError(
            'mode="difference" must go with kind="hessian": the Gauss-Newton matrix is no '
            'derivative of a gradient; got kind="gauss_newton". Take mode="reverse".'
        )
    loss = mean_loss(model, loss_fn, batches, batch_norm=batch_norm)
    if mode == "difference":
        rows = by_difference(loss)
    elif mode == "forward":
        rows = over_batches(loss, forward_hessian if kind == "hessian" else forward_gauss_newton)
    else:
        part = reverse_hessian if kind == "hessian" else reverse_gauss_newton
        rows = over_graphs(loss, part, max_bytes)
    return Operator(rows, loss.layout.size, loss.vector.dtype, loss.vector.device)


Part = Callable[[Rows], Rows]


def over_batches(
    loss: MeanLoss, part: Callable[[MeanLoss, Float[Tensor, " params"], Any], Part]
) -> Part:
    """Add up the products of all batches, each made anew."""

    def rows(vectors: Rows) -> Rows:
        total = torch.zeros_like(vectors)
        with loss.ready(), derivatives_needed():
            for batch in loss.read():
                total += part(loss, loss.vector, batch)(vectors)
        return total

    return rows


def over_graphs(loss: MeanLoss, part: Callable[..., Part], max_bytes: int) -> Part:
    """Add up the products of all batches, from graphs that are kept if they fit."""
    with loss.ready():
        first = next(loss.read())
        # Bytes go with examples; a sixteenth more for what does not.
        share = loss.examples / batch_count(first[1], first[0]) * 17 / 16
        fit = graph_bytes(lambda: part(loss, first, keep=True)) * share <= max_bytes
        together = together_pays(loss) and together_works(loss, part, first)
    if not fit:
        return over_batches(
            loss, lambda loss, _, batch: part(loss, batch, keep=False, together=together)
        )
    with loss.ready():
        parts = [part(loss, batch, keep=True, together=together) for batch in loss.read()]

    def rows(vectors: Rows) -> Rows:
        total = torch.zeros_like(vectors)
        with loss.full_precision():
            for product in parts:
                total += product(vectors)
        return total

    return rows


def graph_bytes(build: Callable[[], object]) -> int:
    """Build a graph, and count the bytes that it keeps."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # with its graph it would keep itself alive

    with saved_tensors_hooks(note, lambda tensor: tensor):
        kept = build()
        total = sum(sizes.values())
    del kept
    return total


def together_pays(loss: MeanLoss) -> bool:
    """Tell whether several vectors should run through a graph at once."""
    if loss.vector.device.type != "cpu":
        return True
    has_convolution = any(isinstance(module, _ConvNd) for module in loss.model.modules())
    return loss.layout.size <= TOGETHER_UP_TO and not has_convolution


def together_works(loss: MeanLoss, part: Callable[..., Part], batch: Any) -> bool:
    """Tell whether they may: torch cannot batch every second derivative (group norm, 2.13)."""
    draws = generator(0, "together")
    vectors = torch.randn(3, loss.layout.size, generator=draws).to(loss.vector)
    single = part(loss, batch, keep=True)(vectors)
    try:
        both = part(loss, batch, keep=True, together=True)(vectors)
    except RuntimeError:
        return False
    return float((both - single).norm()) <= 1e-3 * float(single.norm())


def reverse_hessian(loss: MeanLoss, batch: Any, *, keep: bool, together: bool = False) -> Part:
    """The gradient of a batch's share with its graph, to be differentiated again."""
    leaf = loss.vector.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        loss.at(leaf, batch), leaf, create_graph=True, materialize_grads=True
    )
    return lambda vectors: pull(gradient, leaf, vectors, keep=keep, together=together)


def reverse_gauss_newton(loss: MeanLoss, batch: Any, *, keep: bool, together: bool = False) -> Part:
    """Chain the Jacobian, the Hessian of the loss in the outputs, and the Jacobian transposed."""
    leaf = loss.vector.detach().clone().requires_grad_()
    output = loss.outputs(leaf, batch[0])
    flat = flattened(output)
    dummy = torch.zeros_like(flat).requires_grad_()
    # J'u is linear in u: differentiating it gives Jv without forward mode.
    (back,) = torch.autograd.grad(flat, leaf, dummy, create_graph=True, materialize_grads=True)
    ends, gradient = output_gradient(loss, output, batch[1])

    def product(vectors: Rows) -> Rows:
        pushed = pull(back, dummy, vectors, keep=keep, together=together)
        bent = pull(gradient, ends, pushed, keep=keep, together=together)
        return pull(flat, leaf, bent, keep=keep, together=together)

    return product


def flattened(output: Any) -> Float[Tensor, " outputs"]:
    """All outputs that depend on the parameters, as one vector."""
    parts = [tensor.reshape(-1) for tensor in tensors_in(output) if tensor.requires_grad]
    return torch.cat(parts)


def output_gradient(
    loss: MeanLoss, output: Any, target: Any
) -> tuple[Float[Tensor, " outputs"], Float[Tensor, " outputs"]]:
    """The outputs as a leaf of their own, and the gradient of the loss there, with its graph."""
    ends = flattened(output).detach().requires_grad_()
    value = loss.share(refilled(output, ends), target)
    (gradient,) = torch.autograd.grad(value, ends, create_graph=True, materialize_grads=True)
    return ends, gradient


def refilled(output: Any, ends: Float[Tensor, " outputs"]) -> Any:
    """Outputs with the entries of a vector in place of those that depend on the parameters."""
    sizes = [tensor.numel() for tensor in tensors_in(output) if tensor.requires_grad]
    parts = iter(ends.split(sizes))
    return map_tensors(
        lambda tensor: next(parts).view(tensor.shape) if tensor.requires_grad else tensor, output
    )


def forward_hessian(loss: MeanLoss, vector: Tensor, batch: Any) -> Part:
    """Differentiate the gradient in the direction of each vector."""
    slope = grad(lambda point: loss.at(point, batch))
    return lambda vectors: torch.stack([jvp(slope, (vector,), (v,))[1] for v in vectors])


def forward_gauss_newton(loss: MeanLoss, vector: Tensor, batch: Any) -> Part:
    """Push each vector to the outputs, bend it there, pull it back."""

    def outputs(point: Tensor) -> Tensor:
        output = loss.outputs(point, batch[0])
        if not isinstance(output, Tensor):
            raise UnsupportedModelError(
                'with mode="forward" the model must return one tensor for its Gauss-Newton '
                f'matrix; got a {type(output).__name__}. Take mode="reverse".'
            )
        return output

    slope = grad(lambda output: loss.share(output, batch[1]))

    def product(v: Tensor) -> Tensor:
        output, pushed, *_ = jvp(outputs, (vector,), (v,))
        bent = jvp(slope, (output,), (pushed,))[1]
        return vjp(outputs, vector)[1](bent)[0]

    return lambda vectors: torch.stack([product(v) for v in vectors])


def by_difference(loss: MeanLoss) -> Part:
    """Compare the gradients on both sides."""
    least = torch.finfo(loss.vector.dtype).eps ** (1 / 3)
    reach = least * max(float(loss.vector.norm()), least)

    def rows(vectors: Rows) -> Rows:
        products = []
        for v in vectors:
            norm = float(v.norm())
            if norm == 0:
                products.append(torch.zeros_like(v))
                continue
            step = reach / norm * v
            ahead, behind = (loss.gradient(loss.vector + sign * step) for sign in (1, -1))
            products.append((ahead - behind) * (norm / (2 * reach)))
        return torch.stack(products)

    return rows
