"""The mean loss over fixed batches, as a function of all parameters as one vector."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from lowland.errors import FallbackWarning, UnsupportedModelError
from lowland.params import Layout, call_at, trainable
from lowland.training import (
    as_pair,
    autocast,
    batch_count,
    check_batches,
    checked_losses,
    isolated_rng,
    mode,
    to_device,
)

__all__ = ["BATCH_NORMS", "MeanLoss", "mean_loss"]

BATCH_NORMS = ("eval", "train")


@dataclass(frozen=True)
class MeanLoss:
    """The loss of a model at any vector of parameters, averaged over the same examples each time.

    Attributes:
        model: The network; never written.
        loss_fn: From output and target to one loss per example.
        batches: Re-iterable of (inputs, target); what is random in them repeats.
        layout: The distinct trainable parameters.
        vector: Their values when this was made; a copy.
        fixed: Frozen parameters when this was made; copies.
        buffers: Likewise.
        examples: Number of examples in all batches.
        batch_norm: ``"eval"`` or ``"train"``.
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batches: Any
    layout: Layout
    vector: Float[Tensor, " params"]
    fixed: Mapping[str, Tensor] = field(repr=False)
    buffers: Mapping[str, Tensor] = field(repr=False)
    examples: int
    batch_norm: str = "eval"

    def read(self) -> Iterator[tuple[Any, Any]]:
        """Go through the batches, inside of :meth:`ready`.

        Yields:
            Inputs and target, on the model's device.
        """
        for batch in self.batches:
            yield to_device(as_pair(batch), self.vector.device)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Put the model in the mode in which it is measured, and back; what is random repeats.

        Fused attention has no second derivative, nor have recurrent layers of cuDNN; that of
        weight norm is wrong.

        Yields:
            Nothing.
        """
        recurrent = any(isinstance(module, nn.RNNBase) for module in self.model.modules())
        cudnn: Any = torch.backends.cudnn
        with (
            isolated_rng(0, "hessian", batches=self.batches),
            mode(self.model, norm_trains=self.batch_norm == "train"),
            sdpa_kernel(SDPBackend.MATH),
            WeightNormByParts() if has_weight_norm(self.model) else nullcontext(),
            cudnn.flags(enabled=cudnn.enabled and not recurrent),
            torch.enable_grad(),
        ):
            yield

    def full_precision(self) -> AbstractContextManager[object | None]:
        """Let a backward pass through kept graphs compute as :meth:`ready` does."""
        return autocast(self.vector.device)

    def outputs(self, vector: Float[Tensor, " params"], inputs: Any) -> Any:
        """Run the model at a vector; what it writes goes to copies of its buffers."""
        copies = {name: value.clone() for name, value in self.buffers.items()}
        return call_at(self.model, self.layout.views(vector) | dict(self.fixed) | copies, inputs)

    def share(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """The part of a batch in the mean over all examples."""
        losses = checked_losses(self.loss_fn, output, target)
        wide = torch.promote_types(losses.dtype, torch.float32)
        return losses.to(wide).sum() / self.examples

    def at(self, vector: Float[Tensor, " params"], batch: tuple[Any, Any]) -> Float[Tensor, ""]:
        """The share of a batch at a vector."""
        return self.share(self.outputs(vector, batch[0]), batch[1])

    def gradient(self, vector: Float[Tensor, " params"]) -> Float[Tensor, " params"]:
        """Gradient of the mean loss, summed over the batches in float32 or wider."""
        total = torch.zeros_like(vector)
        with self.ready():
            for batch in self.read():
                leaf = vector.detach().requires_grad_()
                (part,) = torch.autograd.grad(self.at(leaf, batch), leaf, materialize_grads=True)
                total += part
        return total


class WeightNormByParts(TorchFunctionMode):
    """Computes weight norm without its fused kernel, which loses terms of the Hessian (2.13)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run any function of torch, this one by parts."""
        if func is torch._weight_norm:  # type: ignore[attr-defined]
            direction, length, dim = args
            norm = torch.norm_except_dim(direction, 2, dim)  # type: ignore[attr-defined]
            return direction * (length / norm)
        return func(*args, **(kwargs or {}))


def has_weight_norm(model: nn.Module) -> bool:
    """Tell whether a model has weight norm, as a parametrization or as the hook of old."""
    return any(
        isinstance(part, _WeightNorm | WeightNorm)
        for module in model.modules()
        for part in (module, *module._forward_pre_hooks.values())
    )


def mean_loss(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    *,
    batch_norm: str = "eval",
) -> MeanLoss:
    """Fix what a Hessian is the Hessian of, or say why that cannot be.

    Args:
        model: Any module; its parameters and buffers are copied, so that it may go on training.
        loss_fn: One loss per example.
        batches: Re-iterable of (inputs, target).
        batch_norm: ``"eval"`` uses running statistics, ``"train"`` those of each of the batches.

    Returns:
        The loss.

    Raises:
        ValueError: If ``batch_norm`` is unknown, or the batches are empty or cannot be read again.
        UnsupportedModelError: If a parameter is complex, sparse or of half precision, or the loss
            does not depend on any.
    """
    if batch_norm not in BATCH_NORMS:
        raise ValueError(f"batch_norm must be one of {BATCH_NORMS}; got {batch_norm!r}.")
    check_batches(batches)
    layout = trainable(model)
    named = dict(model.named_parameters())
    check_parameters({name: named[name] for name in layout.names})
    loss = MeanLoss(
        model,
        loss_fn,
        batches,
        layout,
        layout.flatten(named),
        {n: p.detach().clone() for n, p in named.items() if n not in layout.names},
        {n: b.detach().clone() for n, b in model.named_buffers()},
        examples=1,
        batch_norm=batch_norm,
    )
    with loss.ready():
        count = sum(batch_count(target, inputs) for inputs, target in loss.read())
    if not count:
        raise ValueError("batches must hold at least one example; got none. Is the loader empty?")
    loss = replace(loss, examples=count)
    check_loss(loss)
    return loss


def check_loss(loss: MeanLoss) -> None:
    """Refuse a loss without a gradient, and tell of one that is random."""
    leaf = loss.vector.clone().requires_grad_()
    with loss.ready():
        first = next(loss.read())
        value, again = loss.at(leaf, first), loss.at(leaf, first)
    if not value.requires_grad:
        raise UnsupportedModelError(
            "the loss must depend on a trainable parameter through differentiable steps; this one "
            "does not. Is there a detach(), argmax or no_grad() on the way?"
        )
    difference, scale = float((value - again).detach().abs()), float(value.detach().abs())
    if difference > 1e-4 * scale:
        warnings.warn(
            "the model must give the same loss twice in evaluation mode; two passes differ by "
            f"{difference / scale:.2g} of it. The same random numbers are used in every product: "
            "what is measured is the Hessian of one draw.",
            FallbackWarning,
            stacklevel=4,
        )


def check_parameters(named: Mapping[str, Tensor]) -> None:
    """Refuse parameters that a Hessian product in real numbers cannot treat."""
    for name, value in named.items():
        if value.layout != torch.strided or value.dtype not in (torch.float32, torch.float64):
            kind = value.dtype if value.layout == torch.strided else value.layout
            raise UnsupportedModelError(
                "parameters must be dense float32 or float64 tensors for second derivatives; "
                f"{name!r} is {kind}. Measure a copy: copy.deepcopy(model).float()."
            )
