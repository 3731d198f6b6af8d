"""A binary or ternary weight in one of the formats: what packed layers have instead of floats."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int8, Int64, Integer, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from lowland.control.packing import kernels
from lowland.control.packing.formats import bytes_of, check_tensors, decode, encode

__all__ = ["PackedWeight"]

EXTRA = "_extra_state"  # torch's name for what a module adds to its state dict


class PackedWeight(nn.Module):
    """Signs -1, 0 and 1 in rows and columns, held in a few bits each.

    Args:
        tensors: What the format holds, by name.
        format: ``"bit1"``, ``"bit2planes"``, ``"sparse16"`` or ``"gaps"``.
        rows: Number of outputs.
        columns: Number of inputs.

    Attributes:
        format: As given.
        num_rows: Number of outputs.
        num_columns: Number of inputs.

    Raises:
        ValueError: If the tensors do not fit the format.

    Source:
        Specification section 9.
    """

    def __init__(self, tensors: Mapping[str, Tensor], format: str, rows: int, columns: int):
        super().__init__()
        check_tensors(tensors, format, rows, columns)
        self.format, self.num_rows, self.num_columns = format, rows, columns
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @classmethod
    def of(cls, signs: Int8[Tensor, "rows columns"], format: str) -> "PackedWeight":
        """Hold signs in a format.

        Args:
            signs: -1, 0 and 1.
            format: Name of the format.

        Returns:
            The weight.

        Raises:
            ValueError: If the format cannot hold these signs.
        """
        return cls(encode(signs, format), format, *signs.shape)

    def get_extra_state(self) -> Int64[Tensor, "2"]:
        """Give rows and columns, which a state dict would not tell otherwise."""
        return torch.tensor([self.num_rows, self.num_columns], device="cpu")

    def set_extra_state(self, state: Any) -> None:
        """Take nothing: ``_load_from_state_dict`` has compared it.

        Args:
            state: What :meth:`get_extra_state` gave.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Give what the format holds, by name."""
        return {name: buffer for name, buffer in self._buffers.items() if buffer is not None}

    def decode(self) -> Int8[Tensor, "rows columns"]:
        """Decode the whole weight."""
        return decode(self.tensors(), self.format, self.num_rows, self.num_columns)

    def rows(self, index: Integer[Tensor, " some"]) -> Int8[Tensor, "some columns"]:
        """Decode some rows.

        Args:
            index: Their numbers.

        Returns:
            The signs.
        """
        held = self.tensors()
        if self.format == "sparse16":
            held = listed_rows(held["columns"], held["starts"], index)
        elif self.format in ("bit1", "bit2planes"):
            held = {name: words.index_select(1, index) for name, words in held.items()}
        else:
            return self.decode().index_select(0, index)
        return decode(held, self.format, len(index), self.num_columns)

    def bytes(self) -> int:
        """Count the bytes held, in memory and in a file."""
        return bytes_of(self.tensors())

    def multiply(self, x: Shaped[Tensor, "*batch columns"]) -> Shaped[Tensor, "*batch rows"]:
        """Multiply the signs with the last axis of a tensor.

        Args:
            x: Floats of any precision, or integers, whose sums are exact.

        Returns:
            The products; int32 for integers.
        """
        flat = x.reshape(-1, x.shape[-1])
        out = kernels.multiply(self.format, self.tensors(), self.num_rows, self.num_columns, flat)
        return out.view(*x.shape[:-1], self.num_rows)

    def change_format(self, format: str) -> None:
        """Hold the same signs in another format.

        Args:
            format: Its name.
        """
        if format == self.format:
            return
        if (self.format, format) == ("gaps", "sparse16"):  # without the dense matrix between them
            tensors = kernels.expand(self.tensors(), self.num_rows, self.num_columns)
        else:
            tensors = encode(self.decode(), format)
        for name in list(self._buffers):
            del self._buffers[name]
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.format = format

    def _load_from_state_dict(  # noqa: D102
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any,
        unexpected: Any, errors: list[str],
    ) -> None:  # fmt: skip
        given = {name: state_dict.get(prefix + name, held) for name, held in self.tensors().items()}
        own = [self.num_rows, self.num_columns]
        shape = state_dict.get(prefix + EXTRA)  # torch itself says if it is missing
        shape = shape.tolist() if isinstance(shape, Tensor) else shape
        if shape not in (None, own):
            errors.append(
                f"{prefix[:-1]}: the weight must have rows and columns {own}; the state dict has "
                f"one of {shape}. Load it into the model that it is of."
            )
            return
        try:
            check_tensors(given, self.format, self.num_rows, self.num_columns)
        except ValueError as error:  # what the kernels would trust
            errors.append(f"{prefix[:-1]}: {error}")
            return
        super()._load_from_state_dict(
            state_dict, prefix, metadata, strict, missing, unexpected, errors
        )

    def extra_repr(self) -> str:
        """Say what is held."""
        return f"{self.num_rows}, {self.num_columns}, format={self.format!r}"


def listed_rows(columns: Tensor, starts: Tensor, index: Tensor) -> dict[str, Tensor]:
    """Copy the lists of some rows one behind the other."""
    bounds = starts.long()
    first, middle, last = (bounds[2 * index + shift] for shift in (0, 1, 2))
    counts = torch.stack([middle - first, last - middle], 1).view(-1)
    begins = torch.stack([first, middle], 1).view(-1)
    ends = counts.cumsum(0)
    place = torch.arange(int(counts.sum()), device=columns.device)
    place += (begins - ends + counts).repeat_interleave(counts)
    kept = columns.view(torch.int16)[place].view(torch.uint16)
    return {"columns": kept, "starts": F.pad(ends, (1, 0)).int()}


def scaled(
    out: Tensor, scale: Tensor | None, offset: Tensor | None, axis: int
) -> Shaped[Tensor, "..."]:
    """Scale and shift fresh sums along one axis, in place where they are floats.

    Args:
        out: Sums that nobody else holds.
        scale: Factors along the axis.
        offset: Summands along the axis.
        axis: Which; counted from the end.

    Returns:
        The result.
    """
    shape = [-1] + [1] * (-axis - 1)
    if scale is not None:
        factor = scale.view(shape)
        out = out.mul_(factor) if is_free(out, factor) else out * factor
    if offset is not None:
        summand = offset.view(shape)
        out = out.add_(summand) if is_free(out, summand) else out + summand
    return out


def is_free(out: Tensor, other: Tensor) -> bool:
    """Whether the result may be written over the sums."""
    return out.is_floating_point() and out.dtype == other.dtype and not out.requires_grad
