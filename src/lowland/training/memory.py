"""How many bytes a computation keeps for its backward pass, and how many are free."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

__all__ = ["free_bytes", "free_disk", "saved_bytes"]


def saved_bytes(
    run: Callable[[], Any], model: nn.Module | None = None, *, shared: Iterable[Tensor] = ()
) -> int:
    """Count the memory that autograd keeps for a backward pass.

    Two tensors that share their storage count once, with all of it. Inputs count if they are kept.

    Args:
        run: A forward pass, for instance ``lambda: loss_fn(model(x), y)``. If it also goes
            backward, what was let go meanwhile counts too.
        model: Its parameters and buffers are not counted, as they are there anyway.
        shared: Tensors that are not counted either.

    Returns:
        Bytes of all storages.

    Source:
        Ours, specification O12.

    Example:
        >>> x = torch.ones(8, requires_grad=True)
        >>> saved_bytes(lambda: (x * x).sum())
        32
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no other one gets its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    own = [] if model is None else [*model.parameters(), *model.buffers()]
    for tensor in (*own, *shared):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    del result
    return sum(storage.nbytes() for storage in kept.values())


def free_bytes(device: torch.device) -> int:
    """Look up how much memory can still be had.

    Args:
        device: An accelerator of CUDA's kind, or any other for the memory of this machine.

    Returns:
        Bytes. On the host, what the machine says is available, or less where a container is
        limited to less.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min(free_host(), free_in_group())


def free_host(file: Path = Path("/proc/meminfo")) -> int:
    """Read what Linux says is available; elsewhere take half of all memory for free."""
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def free_in_group(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Read what a container may still take; a very large number where there is no limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return 2**62


def free_disk(folder: str | Path | None = None) -> int:
    """Look up how much room a folder's disk has.

    Args:
        folder: The folder, which need not be there yet; None takes the system's folder for
            temporary files.

    Returns:
        Bytes.
    """
    place = Path(tempfile.gettempdir() if folder is None else folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
