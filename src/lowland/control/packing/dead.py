"""Weights that no example feels: set to zero, with the outputs compared bit for bit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lowland.control.marks import values_of
from lowland.control.packing.codes import find_codes
from lowland.control.packing.replace import is_packable, rows_of
from lowland.control.products import linear_in_parameters
from lowland.errors import UnsupportedModelError
from lowland.params import call
from lowland.training import generator, kept_mode

__all__ = ["Swept", "sweep_dead_weights"]

Masks = Mapping[str, Tensor]

# Rows that lost their weights may wake a unit up; so many groups of them are tried in a layer.
TRIALS = 16


@dataclass(frozen=True)
class Swept:
    """What was set to zero.

    Attributes:
        dead: Number of weights set to zero, by path of the layer.
        nonzero: Number of weights that are left, by path of the layer.
        examples: On so many examples the outputs are the same to the bit.
    """

    dead: dict[str, int]
    nonzero: dict[str, int]
    examples: int


def sweep_dead_weights(model: nn.Module, batches: Iterable[Any], *, seed: int = 0) -> Swept:
    r"""Set ternary weights to zero that change no output, in place.

    A weight from input c to output r has :math:`M = \sum_s p_{s,r} x_{s,c}`. Where every summand
    is zero (a pixel that is always black, a unit that is never on) no threshold ever judged it,
    and it stays as it was drawn. Such weights are found in one pass over the batches, set to
    zero, and kept there only if all outputs stay the same to the bit.

    Args:
        model: A model with ternary layers, trained; its weights change, nothing else.
        batches: Re-iterable, of ``(inputs, target)``: those whose outputs must not change. What
            the model will meet should be among them; the proof holds for these examples.
        seed: Of the random costates at the outputs.

    Returns:
        How many weights were dead.

    Raises:
        UnsupportedModelError: If no layer is ternary.
        ValueError: If there is no batch.

    Source:
        Specification section 8 (weights with M = 0); the two-step proof is ours.
    """
    found = values_of(model)
    layers: dict[str, Any] = {
        path: module
        for path, module in model.named_modules()
        if is_packable(module) and is_ternary(module, found.get(f"{path}.weight"))
    }
    if not layers:
        raise UnsupportedModelError(
            f"the model must have a layer with weights -1, 0 and 1 that no parametrization "
            f"computes; {type(model).__name__} has none. Train it with train_msa first."
        )
    with kept_mode(model):
        model.eval()
        felt, inputs, examples = counts(model, layers, batches, seed)
        if not examples:
            raise ValueError("batches must hold at least one batch; got none.")
        before = list(outputs(model, batches))

        def is_same() -> bool:  # up to the first batch that is not
            now = outputs(model, batches)
            return all(torch.equal(a, b) for a, b in zip(before, now, strict=True))

        if not is_same():
            raise ValueError(
                "the batches must be the same at every pass, in the same order; the outputs of two "
                "passes differ. Pass shuffle=False, and no augmentation."
            )

        weights = {path: layer.weight for path, layer in layers.items()}
        had = {path: int(weight.count_nonzero()) for path, weight in weights.items()}
        sweep(weights, felt, inputs, is_same)
    left = {path: int(weight.count_nonzero()) for path, weight in weights.items()}
    return Swept({path: had[path] - left[path] for path in left}, left, examples)


def is_ternary(module: Any, values: tuple[float, ...] | None) -> bool:
    """Whether a layer holds a plain weight that may be zero: it is marked so, or looks so."""
    if isinstance(module, nn.MultiheadAttention) or is_parametrized(module):
        return False
    if values is not None:
        return 0.0 in values
    codes = find_codes(rows_of(module).detach().cpu())
    return codes is not None and codes.kind == "ternary"


def counts(
    model: nn.Module, layers: dict[str, Any], batches: Iterable[Any], seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Count for every weight the examples that feel it, and those that meet its input."""
    felt = {path: torch.zeros_like(module.weight.detach()) for path, module in layers.items()}
    inputs = {path: torch.zeros_like(count) for path, count in felt.items()}
    draws, examples = generator(seed, "dead weights"), 0
    for batch in batches:
        if not isinstance(batch, tuple | list) or not batch:
            raise ValueError(
                f"batches must hold pairs (inputs, target); got a {type(batch).__name__}."
            )
        seen: list[tuple[str, Tensor, Tensor]] = []
        with watched(layers, seen), torch.enable_grad():
            found = tensors_of(call(model, batch[0]))
            costates = [torch.randn(out.shape, generator=draws).to(out) for out in found]
            # only what depends on a layer has a costate
            gradients = torch.autograd.grad(
                found, [out for _, _, out in seen], costates, allow_unused=True
            )
        examples += len(found[0])
        for (path, x, out), p in zip(seen, gradients, strict=True):
            x = x if isinstance(layers[path], nn.Embedding) else (x != 0).to(out.dtype)
            p = torch.zeros_like(out) if p is None else (p != 0).to(out.dtype)
            formula = linear_in_parameters(layers[path])
            assert formula is not None
            felt[path] += formula(layers[path], (x.detach(),), p)["weight"]
            inputs[path] += formula(layers[path], (x.detach(),), torch.ones_like(p))["weight"]
    return felt, inputs, examples


@contextmanager
def watched(layers: dict[str, Any], seen: list[tuple[str, Tensor, Tensor]]) -> Iterator[None]:
    """Note what enters and leaves every layer."""

    def note(path: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            out = out if out.requires_grad else out.detach().requires_grad_()
            seen.append((path, args[0].detach(), out))
            return out

        return hook

    hooks = [module.register_forward_hook(note(path)) for path, module in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def tensors_of(output: Any) -> list[Tensor]:
    """Give the float tensors that a model returns, whatever they lie in."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return [tensor for value in output.values() for tensor in tensors_of(value)]
    if isinstance(output, tuple | list):
        return [tensor for value in output for tensor in tensors_of(value)]
    return []


def outputs(model: nn.Module, batches: Iterable[Any]) -> Iterator[Tensor]:
    """Run the model over all batches."""
    for batch in batches:
        with torch.no_grad():
            found = tensors_of(call(model, batch[0]))
        yield from found


@torch.no_grad()
def sweep(weights: Masks, felt: Masks, inputs: Masks, is_same: Callable[[], bool]) -> None:
    """Set dead weights to zero, as many as leave the outputs alone."""
    # what multiplies nothing but zeros adds nothing but zeros
    unmet = {path: (inputs[path] == 0) & (weight != 0) for path, weight in weights.items()}
    zeroed(weights, unmet, is_same)
    dead = {path: (felt[path] == 0) & (weight != 0) for path, weight in weights.items()}
    if zeroed(weights, dead, is_same):
        return
    for path in list(weights)[::-1]:  # what nobody reads any more may go
        groups = [dead[path].nonzero()]
        for _ in range(TRIALS):
            if not groups:
                break
            group = groups.pop()
            mask = torch.zeros_like(dead[path])
            mask[tuple(group.T)] = True
            if not zeroed(weights, {path: mask}, is_same) and len(group) > 1:
                groups += list(group.chunk(2))


def zeroed(weights: Masks, masks: Masks, is_same: Callable[[], bool]) -> bool:
    """Set weights to zero, or take it back if an output changed."""
    masks = {path: mask for path, mask in masks.items() if bool(mask.any())}
    if not masks:
        return True
    old = {path: weights[path].clone() for path in masks}
    for path, mask in masks.items():
        weights[path].masked_fill_(mask, 0)
    if is_same():
        return True
    for path, before in old.items():
        weights[path].copy_(before)
    return False
