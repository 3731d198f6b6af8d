"""Rows of one tensor for a whole data set: on the device, in host memory, or in a file."""

import os
import tempfile
from math import prod
from pathlib import Path

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

__all__ = ["PLACES", "Storage"]

PLACES = ("device", "host", "disk")


class Storage:
    """A tensor of all examples, kept at one place and handed out on the device.

    A file has no name any more once it is open: it goes when the storage goes, even if the process
    is killed.

    Args:
        like: Some rows, for shape, type and what comes out: ``(rows, ...)``.
        count: Number of rows to make room for.
        place: ``"device"``, ``"host"`` (memory of the CPU) or ``"disk"`` (a memory-mapped file).
        device: Where rows are handed out.
        dtype: What floating-point numbers are kept as; None keeps their type. They come out in the
            type of ``like``.
        folder: Of the file; None takes the system's folder for temporary files.

    Raises:
        OSError: If the disk has no room for the file.

    Source:
        Ours.
    """

    def __init__(
        self,
        like: Tensor,
        count: int,
        place: str,
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
        folder: str | Path | None = None,
    ):
        kept = dtype if dtype is not None and like.is_floating_point() else like.dtype
        shape = (count, *like.shape[1:])
        self.device, self.dtype = device, like.dtype
        if place == "disk":
            self.data = open_file(shape, kept, folder)
        else:
            where = device if place == "device" else torch.device("cpu")
            self.data = torch.empty(shape, dtype=kept, device=where)
        self.is_away = self.data.device.type != device.type

    @property
    def place(self) -> torch.device:
        """Where positions must lie."""
        return self.data.device

    def bytes(self) -> int:
        """Size of all rows.

        Returns:
            Bytes.
        """
        return self.data.numel() * self.data.element_size()

    def write(self, start: int, rows: Shaped[Tensor, "rows ..."]) -> Tensor:
        """Put rows in their place.

        Args:
            start: Position of the first.
            rows: The rows.

        Returns:
            Whether all are finite as they are kept, a truth value on the device of ``rows``.

        Raises:
            ValueError: If they have another shape than those before.
        """
        if rows.shape[1:] != self.data.shape[1:] or start + len(rows) > len(self.data):
            raise ValueError(
                f"features must have shape (examples, {', '.join(map(str, self.data.shape[1:]))}) "
                f"for {len(self.data)} examples; got {tuple(rows.shape)} at {start}. Pad all "
                'batches to one length, or pass cache="recompute".'
            )
        kept = rows.detach().to(self.data.dtype)
        self.data[start : start + len(rows)].copy_(kept)
        if not kept.is_floating_point():
            return torch.ones((), dtype=torch.bool, device=kept.device)
        return kept.isfinite().all()

    def rows(self, index: Int[Tensor, " batch"]) -> Shaped[Tensor, "batch ..."]:
        """Hand out any rows.

        Args:
            index: Their positions, on ``place``.

        Returns:
            A copy of the rows, on the device.
        """
        if not self.is_away:
            return self.data.index_select(0, index).to(self.dtype)
        shape = (len(index), *self.data.shape[1:])
        # through pinned memory, which torch keeps and uses again: the device copies by itself
        is_pinned = self.device.type == "cuda"
        staged = torch.empty(shape, dtype=self.data.dtype, pin_memory=is_pinned)
        torch.index_select(self.data, 0, index, out=staged)
        return staged.to(self.device, non_blocking=is_pinned).to(self.dtype)

    def slice(self, start: int, stop: int) -> Shaped[Tensor, "rows ..."]:
        """Hand out rows in their order.

        Args:
            start: Position of the first.
            stop: Position behind the last.

        Returns:
            A copy of the rows on the device; a layer that works in place changes nothing here.
        """
        return self.data[start:stop].to(self.device, copy=True).to(self.dtype)


def open_file(shape: tuple[int, ...], dtype: torch.dtype, folder: str | Path | None) -> Tensor:
    """Map a new file into memory, and take its name away."""
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="lowland-features-", dir=folder)
    try:
        size = prod(shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a crash in mid-run
            os.posix_fallocate(handle, 0, max(1, size * dtype.itemsize))
        return torch.from_file(name, shared=True, size=size, dtype=dtype).view(shape)
    finally:
        os.close(handle)
        os.unlink(name)
