"""Auxiliary heads: small classifiers that show what a block has learned, and are thrown away."""

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lowland.models import initialize
from lowland.training import generator, isolated_rng, kept_mode, seed_from

if TYPE_CHECKING:
    from lowland.boosting.chain import Chain

__all__ = [
    "DownstreamHead",
    "PooledHead",
    "channel_axis",
    "deep_head",
    "downstream_head",
    "make_head",
    "own_head",
    "pooled_head",
    "warm_start",
]

HeadMaker = Callable[[tuple[Tensor, ...], int], nn.Module]
LAYERS = {"deep": 1, "deep-2": 2}
SAMPLED = {"downstream": 0, "downstream-2": 2, "downstream-4": 4}  # later blocks, at least
KINDS = ("plain", *LAYERS, *SAMPLED)


def make_head(
    kind: str | HeadMaker,
    chain: "Chain",
    index: int,
    values: tuple[Tensor, ...],
    classes: int,
    seed: int = 0,
) -> nn.Module:
    """Make the head that part ``index`` of a chain is trained with.

    The last part is always trained with the model's own head, whatever the kind: a copy of it, or
    with ``"downstream"`` itself. So the last round is about the function that the model computes.

    Args:
        kind: ``"plain"``, a copy of the model's own head where it accepts the features, else a
            pooled linear layer; ``"deep"`` and ``"deep-2"``, with one or two hidden layers;
            ``"downstream"``, through the first of the model's own blocks in every later stage;
            ``"downstream-2"`` and ``"downstream-4"``, through so many later blocks at least; or a
            function of ``values`` and ``classes`` that returns a head.
        chain: The chain.
        index: The part, counted from 0.
        values: What comes out of the part, a few examples.
        classes: Number of classes.
        seed: Seed of the weights; the global generators are left as they are.

    Returns:
        A module that turns such values into logits ``(batch, classes)``, on their device.

    Raises:
        ValueError: If the kind is unknown, or the head does not return such logits.
    """
    if not callable(kind) and kind not in KINDS:
        raise ValueError(f"head must be one of {', '.join(KINDS)} or a function; got {kind!r}.")
    is_last = index == len(chain.parts) - 1
    axis = channel_axis(chain.parts[index], values[0])
    if isinstance(kind, str) and kind in SAMPLED:
        head: nn.Module = downstream_head(chain, index, values, SAMPLED[kind])
    elif is_last or (kind == "plain" and answer(chain.head, values) == (classes,)):
        head = own_head(chain)
    elif callable(kind):
        with isolated_rng(seed, "head", index):
            head = kind(values, classes).to(values[0].device)
    else:
        layers = LAYERS.get(kind, 0)
        head = deep_head(values, classes, layers, axis=axis, seed=seed_from(seed, "head", index))
    shape = answer(head, values)
    if shape != (classes,):
        raise ValueError(
            f"the head of part {chain.parts[index].name!r} must turn its features into {classes} "
            f"numbers per example; got {shape or 'an error'} for features "
            f"{tuple(values[0].shape)}. Take head='plain', or give a function of (values, classes)."
        )
    return head


@torch.no_grad()
def answer(head: nn.Module, values: tuple[Tensor, ...]) -> tuple[int, ...] | None:
    """Shape of what a head says of one example, None if it does not accept the values."""
    with kept_mode(head), isolated_rng(0, "probe"):
        head.eval()
        try:
            return tuple(head(*(value[:2] for value in values)).shape[1:])
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError):
            return None  # features of another shape than those it was made for


def pooled_head(
    values: tuple[Tensor, ...], classes: int, *, axis: int | None = None, seed: int = 0
) -> "PooledHead":
    """Make the plain head: mean over pixels or tokens, then a linear layer with bias.

    Args:
        values: Features, then side inputs that the head ignores; their shapes matter only.
        classes: Number of classes.
        axis: Axis of the channels; by default 1 for images, the last for tokens and vectors.
        seed: Seed of the weights.

    Returns:
        The head, on the device and in the type of the features.
    """
    return deep_head(values, classes, 0, axis=axis, seed=seed)


def deep_head(
    values: tuple[Tensor, ...],
    classes: int,
    layers: int = 1,
    *,
    axis: int | None = None,
    seed: int = 0,
) -> "PooledHead":
    """Make a head with hidden layers as wide as the features.

    Where the channels are axis 1 of an image or a sequence, a hidden layer is a convolution of
    width 3, a batch norm and ReLU; else it is linear, for each token alone, and ReLU.

    Args:
        values: Features, then side inputs that the head ignores; their shapes matter only.
        classes: Number of classes.
        layers: Number of hidden layers.
        axis: Axis of the channels; by default 1 for images, the last for tokens and vectors.
        seed: Seed of the weights.

    Returns:
        The head, on the device and in the type of the features.

    Raises:
        ValueError: If the features are not numbers of shape ``(batch, channels, ...)``.

    Source:
        Belilovsky et al., ICML 2019, Section 3.1.
    """
    hidden = values[0]
    if hidden.ndim not in (2, 3, 4, 5) or not hidden.is_floating_point():
        raise ValueError(
            "features must be floating-point numbers of 2 to 5 axes, the batch first; got "
            f"{hidden.dtype} of shape {tuple(hidden.shape)}. Give head= a function of your own."
        )
    axis = (1 if hidden.ndim > 3 else -1) if axis is None else axis
    with isolated_rng(seed, "head"):  # torch's own draws are overwritten below
        head = PooledHead(hidden.ndim, hidden.shape[axis], classes, layers, axis)
    draws = generator(seed, "head")
    initialize(head.layers, "he", draws)
    initialize(head.linear, "official", draws)
    return head.to(hidden.device, hidden.dtype)


class PooledHead(nn.Module):
    """Hidden layers if any, the mean over all axes but those of batch and channels, linear layer.

    Args:
        axes: Number of axes of the features.
        width: Channels of the features.
        classes: Number of classes.
        layers: Number of hidden layers.
        axis: Axis of the channels, 1 or -1.
    """

    def __init__(self, axes: int, width: int, classes: int, layers: int = 0, axis: int = 1):
        super().__init__()
        self.pooled = tuple(range(1, axes - 1) if axis == -1 else range(2, axes))
        is_image = axis == 1 and axes > 2
        hidden = [convolution(axes, width) if is_image else linear(width) for _ in range(layers)]
        self.layers = nn.Sequential(*(module for layer in hidden for module in layer))
        self.linear = nn.Linear(width, classes)

    def forward(
        self, hidden: Float[Tensor, "batch ..."], *sides: Tensor
    ) -> Float[Tensor, "batch classes"]:
        """Classify.

        Args:
            hidden: Features.
            *sides: Ignored; a mean over tokens takes those of padding in too.

        Returns:
            Logits.
        """
        hidden = self.layers(hidden)
        return self.linear(hidden.mean(self.pooled) if self.pooled else hidden)


def convolution(axes: int, width: int) -> tuple[nn.Module, ...]:
    """One hidden layer for features of so many axes, channels second."""
    kinds = {
        3: (nn.Conv1d, nn.BatchNorm1d),
        4: (nn.Conv2d, nn.BatchNorm2d),
        5: (nn.Conv3d, nn.BatchNorm3d),
    }
    conv, norm = kinds[axes]
    return conv(width, width, 3, padding=1, bias=False), norm(width), nn.ReLU()


def linear(width: int) -> tuple[nn.Module, ...]:
    """One hidden layer for features whose channels are last."""
    return nn.Linear(width, width), nn.ReLU()


def channel_axis(part: nn.Module, hidden: Tensor) -> int:
    """Find out which axis of a part's features is that of the channels.

    Args:
        part: The module that made the features.
        hidden: The features.

    Returns:
        1 if the part holds a convolution with as many channels as axis 1 is long; else -1 if it
        holds a linear or normalization layer as wide as the last axis; else 1 from four axes on,
        -1 below.
    """
    if hidden.ndim == 2:
        return -1
    modules = list(part.modules())
    first, last = hidden.shape[1], hidden.shape[-1]
    convs = [m for m in modules if isinstance(m, _ConvNd) and m.weight.ndim == hidden.ndim]
    if any(first in (conv.in_channels, conv.out_channels) for conv in convs):
        return 1
    if any(isinstance(m, nn.LayerNorm) and m.normalized_shape == (last,) for m in modules):
        return -1
    if any(isinstance(m, nn.Linear) and last in (m.in_features, m.out_features) for m in modules):
        return -1
    return 1 if hidden.ndim > 3 else -1


def own_head(chain: "Chain") -> nn.Module:
    """Copy the model's own head, with its present weights.

    Args:
        chain: The chain.

    Returns:
        A head that shares nothing with the model.
    """
    return deepcopy(chain.head)


def downstream_head(
    chain: "Chain", index: int, values: tuple[Tensor, ...], blocks: int = 0
) -> "DownstreamHead":
    """Make a head of the model's own later modules: what changes shapes, some more, the head.

    Nothing is copied: these blocks and the classifier are trained by all the rounds before their
    own, and are warm when it comes.

    Args:
        chain: The chain.
        index: The part in front of the head, counted from 0.
        values: What comes out of the part, a few examples.
        blocks: Later blocks at least, as far as there are so many, spread evenly up to the last;
            0 takes only those that change the shape, the first of every later stage.

    Returns:
        The head; its parameters are the model's.

    Source:
        Huang et al., ICML 2018, released code; more blocks: Ma et al., ICLR 2024 (AugLocal).
    """
    values = tuple(value[:2] for value in values)
    later = list(chain.parts[index + 1 :])
    chosen = {len(later) * (number + 1) // blocks - 1 for number in range(min(blocks, len(later)))}
    if blocks > len(later):
        chosen = set(range(len(later)))
    with torch.no_grad(), kept_mode(chain.model), isolated_rng(0, "probe"):
        chain.model.eval()
        for place, part in enumerate(later):
            before, values = values[0].shape, part(*values)
            if values[0].shape != before:
                chosen.add(place)
    return DownstreamHead([later[place] for place in sorted(chosen)], chain.head)


class DownstreamHead(nn.Module):
    """Some later parts of a chain, one after the other, then its head.

    Args:
        later: The parts.
        head: The head.
    """

    def __init__(self, later: list[nn.Module], head: nn.Module):
        super().__init__()
        self.later = nn.ModuleList(later)
        self.head = head

    def forward(self, *values: Tensor) -> Float[Tensor, "batch classes"]:
        """Classify.

        Args:
            *values: Features and side inputs.

        Returns:
            Logits.
        """
        for part in self.later:
            values = part(*values)
        return self.head(*values)


@torch.no_grad()
def warm_start(new: nn.Module, old: nn.Module) -> bool:
    """Let a new head begin with the weights of the one before, where their shapes agree.

    Args:
        new: The head of this round, changed in place.
        old: The head of the round before.

    Returns:
        Whether the new head is warm: all of its tensors were copied, or are the old one's own.
    """
    kept = {id(parameter) for parameter in old.parameters()}
    if all(id(parameter) in kept for parameter in new.parameters()):
        return True
    fresh, trained = list(new.state_dict().values()), list(old.state_dict().values())
    if [tensor.shape for tensor in fresh] != [tensor.shape for tensor in trained]:
        return False
    for tensor, value in zip(fresh, trained, strict=True):
        tensor.copy_(value)
    return True
