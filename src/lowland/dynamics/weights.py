"""The weights of a run as one vector, read again and again without disturbing them."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.errors import UnsupportedModelError
from lowland.params import trainable

__all__ = ["Source", "Weights"]

Source = nn.Module | Mapping[str, Tensor] | Iterable[Tensor]


class Weights:
    """The distinct tensors that training changes, in the order in which they are named.

    A tensor that has several names is one tensor.

    Args:
        source: A module, whose parameters that require a gradient are taken, or tensors: by name,
            or in a sequence.
        sharded: Whether this process holds its part of every tensor, or of some of them.

    Attributes:
        names: One for each tensor.
        sizes: Number of coordinates of each, here.
        tied: Further names of tensors, each with the name that is kept.

    Raises:
        ValueError: If there is no tensor, or they do not share one type and device.
        UnsupportedModelError: If a tensor is complex, sparse, of less than 32 bits, or a shard
            that nobody announced.

    Source:
        Ours.
    """

    def __init__(self, source: Source, *, sharded: bool = False):
        self.model = source if isinstance(source, nn.Module) else None
        self.sharded = sharded
        named, self.tied = named_tensors(source)
        for name, tensor in named.items():
            check_tensor(name, tensor, sharded)
        if self.model is not None and not any(hasattr(t, "to_local") for t in named.values()):
            trainable(self.model)  # one type, one device
        self.names, self.tensors = tuple(named), tuple(named.values())
        self.kinds = [kind(tensor) for tensor in self.tensors]
        self.sizes = tuple(tensor.numel() for tensor in map(local, self.tensors))
        if len({made[1:] for made in self.kinds}) > 1:
            raise ValueError(
                "the tensors of a recorder must share one dtype and one device; got "
                f"{sorted({f'{dtype} on {device}' for _, dtype, device in self.kinds})}. "
                "Use one recorder for each."
            )
        self.places: list[int] | None = None
        self.parts: list[Tensor] = []
        self.buffer = torch.empty(self.size, dtype=self.dtype, device=self.device)

    @property
    def size(self) -> int:
        """Number of coordinates, here."""
        return sum(self.sizes)

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Of every tensor, by name."""
        return {name: [*made[0]] for name, made in zip(self.names, self.kinds, strict=True)}

    @property
    def dtype(self) -> torch.dtype:
        """Of every tensor."""
        return self.tensors[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return local(self.tensors[0]).device

    def read(self) -> Float[Tensor, " params"]:
        """Copy the weights as they are now.

        Returns:
            A vector that the next call overwrites.

        Raises:
            ValueError: If a tensor has another shape, type or device now.
        """
        return torch.cat(self.views(), out=self.buffer)

    def views(self) -> list[Float[Tensor, " _part"]]:
        """Look at the weights where they are.

        Returns:
            Every tensor as a vector; the same list as before if none has moved.

        Raises:
            ValueError: If a tensor has another shape, type or device now.
        """
        if self.places != [tensor.data_ptr() for tensor in self.tensors]:
            self.parts = self.find_parts()
        return self.parts

    @torch.no_grad()
    def find_parts(self) -> list[Tensor]:
        """Look at every tensor as a vector; where that takes a copy, do it again next time."""
        for name, tensor, made in zip(self.names, self.tensors, self.kinds, strict=True):
            if kind(tensor) != made:
                raise ValueError(
                    "a recorder needs the same shapes, types and devices from the first update to "
                    f"the last; {name} was {describe(made)} and is {describe(kind(tensor))}. "
                    "Move or resize the model before, or begin a new recorder."
                )
        locals_ = [local(tensor) for tensor in self.tensors]
        views = all(tensor.is_contiguous() for tensor in locals_)
        self.places = [tensor.data_ptr() for tensor in self.tensors] if views else None
        return [tensor.detach().reshape(-1) for tensor in locals_]

    def check(self) -> None:
        """Refuse a model that does not train the parameters of the beginning.

        Raises:
            ValueError: If some were added, taken away, frozen or replaced.
        """
        if self.model is not None:
            now = [id(tensor) for tensor in self.model.parameters() if tensor.requires_grad]
            if now != [id(tensor) for tensor in self.tensors]:
                raise ValueError(
                    "a recorder needs the same parameters from the first update to the last; the "
                    f"model now trains {len(now)} others than the {len(self.names)} at the "
                    "beginning. Freeze or replace parameters before, or begin a new recorder."
                )


def named_tensors(source: Source) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Distinct tensors by name, and what other names they have."""
    every: Iterable[tuple[Any, Any]]
    if isinstance(source, nn.Module):
        found = source.named_parameters(remove_duplicate=False)
        every = [(name, tensor) for name, tensor in found if tensor.requires_grad]
        if not every:
            trainable(source)  # says what is missing
    elif isinstance(source, Mapping):
        every = list(source.items())
    else:
        every = [(str(index), tensor) for index, tensor in enumerate(source)]
    named: dict[str, Tensor] = {}
    kept: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, tensor in every:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"weights must be a module or tensors; {name} is a {type(tensor).__name__}."
            )
        if id(tensor) in kept:
            tied[name] = kept[id(tensor)]
        else:
            kept[id(tensor)] = name
            named[name] = tensor
    if not named:
        raise ValueError("weights must hold at least one tensor; got none.")
    return named, tied


def check_tensor(name: str, tensor: Tensor, sharded: bool) -> None:
    """Refuse a tensor whose displacement would mean something else."""
    if tensor.layout is not torch.strided or not tensor.is_floating_point():
        raise UnsupportedModelError(
            f"weights must be dense and real; {name} is {tensor.dtype}, {tensor.layout}. "
            "Record the parts you mean, for instance torch.view_as_real(weight)."
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        raise UnsupportedModelError(
            f"weights must have 32 or 64 bits; {name} is {tensor.dtype}, which cannot hold the "
            "small steps of training. Pass the optimizer's float32 master copies."
        )
    if hasattr(tensor, "to_local"):
        split = all(place.is_shard() for place in tensor.placements)  # type: ignore[attr-defined]
        if not (sharded and split):
            raise UnsupportedModelError(
                f"{name} is spread over processes ({tensor.placements}); "  # type: ignore[attr-defined]
                'pass ranks="sharded", and only tensors that every process has a part of.'
            )


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[attr-defined]


def kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    """What must not change of a tensor."""
    return tensor.shape, tensor.dtype, tensor.device


def describe(made: tuple[Any, ...]) -> str:
    """The same in words."""
    shape, dtype, device = made
    return f"{tuple(shape)} of {dtype} on {device}"
