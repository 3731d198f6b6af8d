"""Weights that no example feels: set to zero, with the outputs compared bit for bit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lowland.control.marks import values_of
from lowland.control.packing.codes import find_codes
from lowland.control.packing.felt import strike_felt, strike_met
from lowland.control.packing.network import without_wrappers
from lowland.control.packing.replace import is_packable, rows_of
from lowland.errors import UnsupportedModelError
from lowland.params import call
from lowland.training import (
    check_not_empty,
    generator,
    kept_buffers,
    kept_mode,
    map_tensors,
    tensors_in,
)

__all__ = ["Swept", "sweep_dead_weights"]

Masks = Mapping[str, Tensor]

# Rows that lost their weights may wake a unit up; so many groups of them are tried in a layer.
TRIALS = 8

# Cheap passes over so many batches narrow down what all of them must prove.
FEW_BATCHES = (1, 8)


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


@torch.inference_mode(False)
def sweep_dead_weights(model: nn.Module, batches: Iterable[Any], *, seed: int = 0) -> Swept:
    r"""Set ternary weights to zero that change no output, in place.

    A weight from input c to output r has :math:`M = \sum_s p_{s,r} x_{s,c}`. Where every summand
    is zero (a pixel that is always black, a unit that is never on) no threshold ever judged it,
    and it stays as it was drawn. Such weights are found in one pass over the batches, set to
    zero, and kept there only if all outputs stay the same to the bit.

    Args:
        model: A model with ternary layers, trained; their weights change, no other tensor of it.
        batches: Re-iterable, of ``(inputs, target)``: those whose outputs must not change. What
            the model will meet should be among them; the proof holds for these examples.
        seed: Of the random costates at the outputs.

    Returns:
        How many weights were dead.

    Raises:
        UnsupportedModelError: If no layer is ternary, or a tensor of the model was made under
            ``torch.inference_mode``.
        ValueError: If there is no batch, an output is NaN, or two passes differ.

    Source:
        Specification section 8 (weights with M = 0); the two-step proof is ours.
    """
    model = without_wrappers(model)
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
    check_tensors(model)
    swept = {id(layer) for layer in layers.values()}
    others = [module for module in model.modules() if id(module) not in swept]
    with kept_mode(model), kept_buffers(others):
        model.eval()
        before = list(outputs(model, batches))
        check_outputs(before)

        def is_same(few: int | None) -> bool:  # up to the first batch that is not
            now = islice(outputs(model, batches), few)
            pairs = zip_longest(before[:few], now, fillvalue=[])
            return all(are_equal(old, new) for old, new in pairs)

        if not is_same(None):
            raise ValueError(
                "the batches must be the same at every pass, in the same order; the outputs of two "
                "passes differ. Pass a list or a DataLoader, shuffle=False, and no augmentation."
            )
        unfelt, unmet = unused(model, layers, batches, seed)
        weights = {path: layer.weight for path, layer in layers.items()}
        had = {path: int(weight.count_nonzero()) for path, weight in weights.items()}
        sweep(weights, unfelt, unmet, is_same)
    left = {path: int(weight.count_nonzero()) for path, weight in weights.items()}
    dead = {path: had[path] - left[path] for path in left}
    return Swept(dead, left, sum(len(found[0]) for found in before))


def check_tensors(model: nn.Module) -> None:
    """Refuse a model whose weights torch lets nobody change."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_inference():
            raise UnsupportedModelError(
                "all tensors of the model must be made outside torch.inference_mode, so that they "
                f"can be changed; {name} was not. Build or load the model before it."
            )


def check_outputs(before: list[list[Tensor]]) -> None:
    """Refuse outputs that prove nothing."""
    check_not_empty(len(before))
    for i, found in enumerate(before):
        if any(bool(out.isnan().any()) for out in found):
            raise ValueError(
                "the model's outputs must be finite, for NaN does not equal itself; those of batch "
                f"{i} hold NaN. Look for what is not finite in that batch or in the weights."
            )


def is_ternary(module: Any, values: tuple[float, ...] | None) -> bool:
    """Whether a layer holds a plain weight that may be zero: it is marked so, or looks so."""
    if isinstance(module, nn.MultiheadAttention) or is_parametrized(module):
        return False
    if values is not None:
        return 0.0 in values
    codes = find_codes(rows_of(module).detach().cpu())
    return codes is not None and codes.kind == "ternary"


def unused(
    model: nn.Module, layers: dict[str, Any], batches: Iterable[Any], seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Find the weights that no example feels, and of these the ones that multiply only zeros."""
    unfelt, unmet = nonzero_weights(layers), nonzero_weights(layers)
    draws = generator(seed, "dead weights")
    for batch in batches:
        watched_layers = {path: layer for path, layer in layers.items() if unfelt[path].any()}
        if not watched_layers:
            break
        seen: list[tuple[str, Tensor, Tensor]] = []
        with watched(watched_layers, seen), torch.enable_grad():
            found = floats_in(call(model, usable(batch[0])))
            costates = [torch.randn(out.shape, generator=draws).to(out) for out in found]
            # only what depends on a layer has a costate
            gradients = torch.autograd.grad(
                found, [out for _, _, out in seen], costates, allow_unused=True
            )
        for buffer in model.buffers():
            if buffer.grad_fn is not None:  # an output was written into it
                buffer.detach_()
        for (path, x, out), gradient in zip(seen, gradients, strict=True):
            p = torch.zeros_like(out, dtype=torch.bool) if gradient is None else gradient != 0
            strike_felt(layers[path], unfelt[path], x, p)
            strike_met(layers[path], unmet[path], x, p)
    return unfelt, unmet


def nonzero_weights(layers: dict[str, Any]) -> dict[str, Tensor]:
    """Note the weights that are not zero; layers with a tied weight share the notes."""
    once = {id(layer.weight): layer.weight.detach() != 0 for layer in layers.values()}
    return {path: once[id(layer.weight)] for path, layer in layers.items()}


@contextmanager
def watched(layers: dict[str, Any], seen: list[tuple[str, Tensor, Tensor]]) -> Iterator[None]:
    """Note what enters and leaves every layer."""

    def note(path: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            out = out if out.requires_grad else out.detach().requires_grad_()
            seen.append((path, entering(module, args), out))
            return out.clone()  # which may be changed in place

        return hook

    hooks = [module.register_forward_hook(note(path)) for path, module in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def entering(module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
    """Say where the inputs of a layer are not zero; an embedding's are indices."""
    if isinstance(module, nn.Embedding):
        return args[0].detach()
    if isinstance(module, nn.Bilinear):
        return ((args[0] != 0).unsqueeze(-1) & (args[1] != 0).unsqueeze(-2)).flatten(-2)
    return args[0] != 0


def floats_in(output: Any) -> list[Tensor]:
    """Give the float tensors that a model returns, whatever they lie in."""
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]


def outputs(model: nn.Module, batches: Iterable[Any]) -> Iterator[list[Tensor]]:
    """Run the model over all batches; copies, for a model may write over what it returned."""
    for batch in batches:
        if not isinstance(batch, tuple | list) or not batch:
            raise ValueError(
                f"batches must hold pairs (inputs, target); got a {type(batch).__name__}."
            )
        with torch.no_grad():
            found = [out.clone() for out in floats_in(call(model, usable(batch[0])))]
        if not found:
            raise UnsupportedModelError(
                "the model must return a tensor of floats, or some in a tuple, list or dict; "
                f"{type(model).__name__} returns none. Sweep the part that does."
            )
        yield found


def usable(inputs: Any) -> Any:
    """Copy tensors made under torch.inference_mode, which gradients cannot use."""
    return map_tensors(lambda x: x.clone() if x.is_inference() else x, inputs)


def are_equal(old: list[Tensor], new: list[Tensor]) -> bool:
    """Compare what a model returned for a batch, to the bit."""
    return len(old) == len(new) and all(map(torch.equal, old, new))


@torch.no_grad()
def sweep(
    weights: Masks, unfelt: Masks, unmet: Masks, is_same: Callable[[int | None], bool]
) -> None:
    """Set dead weights to zero, as many as leave the outputs alone."""
    whole = partial(is_same, None)
    zeroed(weights, unmet, whole)  # what multiplies nothing but zeros adds nothing but zeros
    dead = {path: unfelt[path] & (weight != 0) for path, weight in weights.items()}
    if zeroed(weights, dead, whole):
        return
    for few in FEW_BATCHES:
        old = {path: weight.clone() for path, weight in weights.items()}
        sweep_layers(weights, dead, partial(is_same, few))
        dead = {path: dead[path] & (weight == 0) for path, weight in weights.items()}
        for path, before in old.items():
            weights[path].copy_(before)
    sweep_layers(weights, dead, whole)


def sweep_layers(weights: Masks, dead: Masks, is_same: Callable[[], bool]) -> None:
    """Set dead weights to zero all at once, or layer by layer in ever smaller groups."""
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
