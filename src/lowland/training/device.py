"""Where and how numbers are computed: device, precision, processes, threads."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

__all__ = ["Ranks", "autocast", "choose_device", "distributed", "use_threads"]

PRECISIONS = ("float32", "bf16")


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """Find the device to compute on.

    Args:
        name: ``"auto"`` takes cuda (under ``torchrun``, the one of this process), else mps, else
            the CPU; any other name as torch spells it.

    Returns:
        The device.

    Raises:
        ValueError: If torch does not know the device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device(best_device())
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f'device must be "auto" or a device of this machine; got "{name}" '
            f'({str(error).splitlines()[0]}). Pass "auto" or "cpu".'
        ) from error
    return device


def best_device() -> str:
    """Name the fastest kind of device there is."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', torch.cuda.current_device())}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def autocast(
    device: torch.device, precision: str = "float32"
) -> AbstractContextManager[object | None]:
    """Choose the precision of matrix products and convolutions in a block.

    Args:
        device: Where the block computes.
        precision: ``"float32"`` keeps the model's own type and switches TensorFloat-32 off;
            ``"bf16"`` runs products in bfloat16 and keeps the weights as they are.

    Returns:
        A context manager.

    Raises:
        ValueError: If the precision is not one of the two.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}; got {precision!r}.")
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return full_float32() if device.type == "cuda" else nullcontext()


@contextmanager
def full_float32() -> Iterator[None]:
    """Switch TensorFloat-32 off, and back to what it was."""
    cudnn: Any = torch.backends.cudnn
    flags = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
    before = [flag.fp32_precision for flag in flags]
    cudnn.allow_tf32 = False  # the older switch; torch complains when the two disagree
    for flag in flags:
        flag.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.allow_tf32 = "tf32" in before[:2]
        for flag, value in zip(flags, before, strict=True):
            flag.fp32_precision = value


class Ranks(NamedTuple):
    """Which process this is, of how many."""

    rank: int
    world: int


@contextmanager
def distributed(device: str | torch.device = "auto") -> Iterator[Ranks]:
    """Join the other processes if ``torchrun`` started this one.

    Args:
        device: Chooses the backend: NCCL for cuda, else gloo.

    Yields:
        Rank and number of processes; ``(0, 1)`` outside of ``torchrun``. A process group that
        exists already is used and left open.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        yield Ranks(0, 1)
        return
    place = choose_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Compute with a number of CPU threads; the last digits of a result depend on it.

    Args:
        count: Number of threads, None for as many as now.

    Yields:
        Nothing.

    Raises:
        ValueError: If the count is not positive.
    """
    if count is not None and count < 1:
        raise ValueError(f"the number of threads must be at least 1; got {count}.")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
