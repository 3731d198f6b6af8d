"""How much memory can be had, and how much one pivot takes."""

import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lowland.connectivity.stack import Stack, losses_and_grads
from lowland.training import isolated_rng, mode, tensors_in

__all__ = ["free_bytes", "pass_bytes"]


def free_bytes(device: torch.device) -> int:
    """Look up how much memory can still be had.

    Args:
        device: A CUDA device, or any other for the memory of this machine.

    Returns:
        Bytes, those included that torch holds without using them.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(free_host(), free_in_group())


def free_host(file: Path = Path("/proc/meminfo")) -> int:
    """Read what Linux says is available; elsewhere count half of all memory."""
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def free_in_group(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Read what a container may still take; a very large number without a limit."""
    try:
        limit, used = ((folder / f"memory.{name}").read_text() for name in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):  # no such file, or the word "max"
        return 2**62


def pass_bytes(stack: Stack, vector: Float[Tensor, " params"], batch: tuple[Any, Any]) -> int:
    """Measure what one network keeps on its way forward for the way back.

    Neither its parameters count, nor what all networks share, like the batch.

    Args:
        stack: What the networks have in common.
        vector: One of them, on the device of the network.
        batch: Inputs and target of one step.

    Returns:
        Bytes of all storages that autograd saved in one pass.

    Raises:
        torch.OutOfMemoryError: If the pass does not fit.
    """
    row = vector.unsqueeze(0).clone()
    shared = [row, *tensors_in(batch), *stack.fixed.values()]
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        isolated_rng(0, "memory"),
        mode(stack.model, norm_trains=True),
        saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        losses_and_grads(stack.with_backend("loop"), row, *batch)
    for tensor in shared:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(kept.values())
