"""A model as stem, blocks and head: the same modules, called one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowland.boosting.part import Cut, Part, Wrapped, has_weights, logits_of, unharmed
from lowland.boosting.resnets import cut_resnet
from lowland.boosting.sequential import cut_sequential, is_plain_sequential
from lowland.boosting.watched import block_names, cut_by_watching
from lowland.errors import UnsupportedModelError
from lowland.params import call
from lowland.training import (
    device_of,
    kept_mode,
    map_tensors,
    norm_layers,
    tensors_in,
    to_device,
)

__all__ = ["Chain", "Part", "as_chain", "logits_of"]

Callback = Callable[[nn.Module], tuple[nn.Module | None, Sequence[nn.Module], nn.Module]]


@dataclass(frozen=True, eq=False)
class Chain:
    r"""The parts of a model, :math:`g_{t+1} = B_t(g_t)`.

    Attributes:
        model: The user's own object; its modules are those of the parts.
        parts: The stem if it has parameters, then the blocks, in the order of their calls. A stem
            without parameters, such as a flatten, belongs to ``enter``, in evaluation mode.
        head: From what the last block returns to the logits.
        has_stem: Whether ``parts[0]`` is the stem.
        enter: From the inputs of the model to what enters ``parts[0]``.

    Source:
        Huang et al., ICML 2018, Section 3: the theory needs only that the network is a chain.
    """

    model: nn.Module
    parts: tuple[Part, ...]
    head: Part
    has_stem: bool
    enter: Callable[[Any], tuple[Tensor, ...]]

    def values(self, inputs: Any) -> tuple[Tensor, ...]:
        """Prepare what enters the first part.

        Args:
            inputs: As the model takes them: a tensor, a tuple or a mapping.

        Returns:
            Hidden values and sides, each ``(batch, ...)``.
        """
        return self.enter(inputs)

    def __call__(self, inputs: Any) -> Tensor:
        """Run all parts and the head.

        Args:
            inputs: As the model takes them.

        Returns:
            Logits ``(batch, classes)``, those of the model.
        """
        values = self.values(inputs)
        for part in self.parts:
            values = part(*values)
        return self.head(*values)


def as_chain(
    model: nn.Module,
    inputs: Any = None,
    *,
    blocks: Sequence[str] | str | None = None,
    callback: Callback | None = None,
) -> Chain:
    """Find the stem, the blocks and the head of a model.

    An ``nn.Sequential`` is cut by the classes of its children
    (:func:`lowland.boosting.sequential.cut_sequential`), a ResNet in the manner of torchvision or
    timm by the names of its parts, every other model by watching a forward pass
    (:func:`lowland.boosting.watched.cut_by_watching`). With inputs, the chain is run once beside
    the model, and the logits must agree. The model stays as it is.

    Args:
        model: Any module.
        inputs: A batch of at least two examples, as the model takes it; needed where a forward
            pass is watched, and to compare.
        blocks: Qualified names of the blocks, or of the list that holds them, such as
            ``"encoder.layers"``; None to look for them.
        callback: Gives stem (or None), blocks and head of the model as modules that take hidden
            values and sides, and return new hidden values, or a tuple of these and the sides. All
            tensors of the inputs, in their order, enter the stem, else the first block.

    Returns:
        The chain.

    Raises:
        UnsupportedModelError: If the model is no chain, parts share weights, or a part changes the
            number of examples or returns integers.
        ValueError: If inputs are missing, or blocks are not the names of modules.

    Source:
        Ours.

    Example:
        >>> from lowland.models import build
        >>> chain = as_chain(build("resnet-8"))
        >>> [part.name for part in chain.parts]
        ['stem', 'stage1_block1', 'stage2_block1', 'stage3_block1']
    """
    if inputs is not None:
        inputs = to_device(inputs, device_of(model))
    names = None if blocks is None else block_names(model, blocks)
    if callback is not None:
        cut = called_back(model, callback)
    elif is_plain_sequential(model) and set(names or ()) <= model._modules.keys():
        cut = cut_sequential(model, names)  # pyright: ignore[reportArgumentType]
    elif names is None and (cut := cut_resnet(model)) and fits(model, cut, inputs):
        pass
    elif inputs is None:
        raise ValueError(
            "inputs must be a batch, to find the blocks by watching a forward pass; got None. "
            "Pass as_chain(model, inputs), or cut the model yourself with callback=."
        )
    else:
        cut = cut_by_watching(model, inputs, names)
    chain = assembled(model, cut)
    check_disjoint([*chain.parts, chain.head])
    if inputs is not None:
        check_run(chain, inputs)
    return chain


def called_back(model: nn.Module, callback: Callback) -> Cut:
    """Cut a model as the user says."""
    stem, blocks, head = callback(model)
    known = {id(module): name for name, module in model.named_modules()}
    names = [known.get(id(block)) or f"block{number}" for number, block in enumerate(blocks, 1)]
    if not names:
        raise ValueError("the callback must return at least one block; got none.")
    return Cut(
        enter=lambda inputs: tuple(tensors_in(inputs)),
        stem=None if stem is None else Wrapped("stem", {"stem": stem}),
        blocks=[Wrapped(name, {name: block}) for name, block in zip(names, blocks, strict=True)],
        head=Wrapped("head", {"head": head}, is_head=True),
    )


def assembled(model: nn.Module, cut: Cut) -> Chain:
    """Put a stem that can learn before the blocks; another only prepares the inputs."""
    stem = cut.stem
    if stem is None:
        return Chain(model, tuple(cut.blocks), cut.head, has_stem=False, enter=cut.enter)
    if has_weights(stem) or norm_layers(stem):
        return Chain(model, (stem, *cut.blocks), cut.head, has_stem=True, enter=cut.enter)

    def enter(inputs: Any) -> tuple[Tensor, ...]:
        with kept_mode(stem):
            stem.eval()  # what is stored must not be random
            return stem(*cut.enter(inputs))

    return Chain(model, tuple(cut.blocks), cut.head, has_stem=False, enter=enter)


def fits(model: nn.Module, cut: Cut, inputs: Any) -> bool:
    """Tell whether the parts compute what the model does; True if there is nothing to compare."""
    if inputs is None:
        return True
    try:
        check_run(assembled(model, cut), inputs)
    except (UnsupportedModelError, RuntimeError):
        return False
    return True


def check_disjoint(parts: Sequence[Part]) -> None:
    """Refuse parameters and buffers that belong to two parts."""
    owners: dict[int, tuple[str, str]] = {}
    for part in parts:
        own = [*part.named_parameters(), *part.named_buffers()]
        for name, tensor in own:
            other, before = owners.setdefault(id(tensor), (part.name, name))
            if other != part.name:
                raise UnsupportedModelError(
                    f"parts must not share weights or buffers; {part.name!r} uses {name!r}, which "
                    f"is {before!r} of {other!r} too (a module called twice, tied weights, or a "
                    "shared norm). Join the two in one block with callback=, or untie them."
                )


def check_run(chain: Chain, inputs: Any) -> None:
    """Refuse a chain whose parts do not fit together, or compute something else."""
    with unharmed(chain.model):
        expected = logits_of(call(chain.model, map_tensors(torch.clone, inputs)))
        values = chain.values(map_tensors(torch.clone, inputs))
        count, sides = len(values[0]), None
        for part in chain.parts:
            written = values[0]._version
            result = part(*values)
            if values[0]._version != written:
                part.clones = True
            check_values(part, result, count, sides)
            values = result
            sides = len(values)
        written = values[0]._version
        found = chain.head(*values)
        chain.head.clones = values[0]._version != written
    if found.shape != expected.shape or found.ndim != 2:
        raise UnsupportedModelError(
            f"the head must return logits (batch, classes), as the model does; got "
            f"{tuple(found.shape)}, and {tuple(expected.shape)} of the model."
        )
    if not agree(found, expected):
        gap = (found - expected).abs().max().item()
        raise UnsupportedModelError(
            "the parts, one after the other, must give the logits of the model; got a difference "
            f"of {gap:.3g}. The model is no chain of these blocks: something reaches the "
            "head or a later block past a block. Name other blocks with blocks=, or cut the "
            "model with callback=."
        )


def check_values(part: Part, values: Any, count: int, sides: int | None) -> None:
    """Refuse what cannot be stored as the features of some examples."""
    hidden = values[0]
    if not hidden.is_floating_point():
        raise UnsupportedModelError(
            f"features between parts must be real numbers; {part.name!r} returns {hidden.dtype}. "
            "Put the part into one block with the next."
        )
    for value in values:
        if value.ndim == 0 or len(value) != count:
            raise UnsupportedModelError(
                f"a part must return {count} examples for {count}, along the first axis; "
                f"{part.name!r} returns shape {tuple(value.shape)}. Use batch_first=True, or "
                "leave what mixes the examples to the head."
            )
    if sides is not None and len(values) != sides:
        raise UnsupportedModelError(
            f"every block must pass all sides on; {part.name!r} returns {len(values)} tensors, "
            f"and the part before it {sides}."
        )


def agree(found: Tensor, expected: Tensor) -> bool:
    """Tell whether logits are the same up to rounding."""
    tolerance = 10 * torch.finfo(expected.dtype).eps ** 0.75
    scale = expected.nan_to_num().abs().max().clamp(min=1).item()
    return torch.allclose(found, expected, rtol=0, atol=tolerance * scale, equal_nan=True)
