"""The kernels in C: whether they are there, which of them run, and how they are told their work."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from lowland.control.packing.bits import padded_words
from lowland.control.packing.gaps import decode_gaps
from lowland.control.packing.lists import MOST_COLUMNS, list_columns

__all__ = [
    "Weight",
    "available",
    "expand",
    "find_weight",
    "force",
    "is_plain",
    "level",
    "run",
    "transpose",
]

PORTABLE = "portable"
LEVELS = ("scalar", "avx2", "avx512")  # in the order of the C code


def load() -> ModuleType | None:
    """Find the compiled kernels, if there are any."""
    try:
        return import_module("lowland.control.packing._kernels")
    except ImportError:
        return None


compiled = load()
chosen = [LEVELS[compiled.best()] if compiled else PORTABLE]


def available() -> tuple[str, ...]:
    """Name what can run here, the fastest first.

    Returns:
        Some of ``"avx512"``, ``"avx2"``, ``"scalar"``, and ``"portable"``.
    """
    return (*(LEVELS[compiled.best() :: -1] if compiled else ()), PORTABLE)


def level() -> str:
    """Name what runs.

    Returns:
        The instruction set of the kernels in C, or ``"portable"`` for plain torch.
    """
    return chosen[0]


def force(name: str | None) -> None:
    """Choose what runs in this process; for tests and benchmarks.

    Args:
        name: One of :func:`available`, or None for the fastest.

    Raises:
        ValueError: If it is not available.
    """
    able = available()
    if name not in (None, *able):
        raise ValueError(f"the level must be one of {', '.join(able)}; got {name!r}.")
    chosen[0] = name or able[0]


class Weight(NamedTuple):
    """What a kernel needs of a weight.

    Attributes:
        kind: ``"bits"`` or ``"lists"``.
        first: The plane of bits, or the listed columns.
        second: The plane of negative weights, if zero bits are no such, or the starts of the lists.
        rows: Number of rows.
        columns: Number of columns.
    """

    kind: str
    first: Tensor
    second: Tensor | None
    rows: int
    columns: int


def find_weight(
    format: str, tensors: Mapping[str, Tensor], rows: int, columns: int
) -> Weight | None:
    """Make a weight ready for the kernels.

    Args:
        format: Name of the format.
        tensors: What it holds.
        rows: Number of rows.
        columns: Number of columns.

    Returns:
        The weight, or None where torch must do the work.

    Raises:
        ValueError: If the tensors do not have the shape that the format asks for.
    """
    if chosen[0] == PORTABLE:
        return None
    if format == "gaps":
        if columns > MOST_COLUMNS:
            return None
        format, tensors = "sparse16", expand(tensors, rows, columns)
    if format == "sparse16":
        first, second, last = tensors["columns"], tensors["starts"], tensors["starts"]
        kind, shape = "lists", (2 * rows + 1,)
    else:
        second = None if format == "bit1" else tensors["minus"]
        first = last = tensors["bits" if second is None else "plus"]
        kind, shape = "bits", (padded_words(columns), rows)
    if last.shape != shape or (kind == "bits" and second is not None and second.shape != shape):
        raise ValueError(
            f"{format} of {rows} rows and {columns} columns must hold tensors of shape {shape}; "
            f"got {', '.join(f'{name} {tuple(t.shape)}' for name, t in tensors.items())}."
        )
    if not (first.is_cpu and (second is None or second.is_cpu)):
        return None
    return Weight(
        kind, first.contiguous(), None if second is None else second.contiguous(), rows, columns
    )


def is_plain(x: Shaped[Tensor, "..."]) -> bool:
    """Tell whether the kernels can take a tensor.

    Args:
        x: Floats.

    Returns:
        Whether they lie in this machine's memory, in at most 32 bits, and nobody asks for
        gradients in them or records what is done with them.
    """
    if type(x) not in (Tensor, Parameter) or not x.is_cpu or x.dtype == torch.float64:
        return False
    if x.is_neg():
        return False
    if x.requires_grad and torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return False
    if forward_ad.unpack_dual(x).tangent is not None:
        return False
    try:
        x.data_ptr()
    except RuntimeError:  # inside torch.func, where a tensor has no memory of its own
        return False
    return True


def run(form: str, weight: Weight, *rest: int) -> None:
    """Run a kernel, on as many threads as torch uses.

    Args:
        form: ``"vector"`` or ``"columns"``.
        weight: The weight.
        rest: What the kernel in C asks for beyond the weight.
    """
    first, second = (
        weight.first.data_ptr(),
        0 if weight.second is None else weight.second.data_ptr(),
    )
    kernel = getattr(compiled, f"{weight.kind}_{form}")
    threads = torch.get_num_threads()
    kernel(LEVELS.index(chosen[0]), threads, first, second, weight.rows, weight.columns, *rest)


def transpose(source: Float[Tensor, "rows columns"], target: Float[Tensor, "columns wide"]) -> None:
    """Write the transpose of a matrix; twice as fast as torch's copy.

    Args:
        source: Float32, neighbors in a row neighbors in memory.
        target: Where it goes; what is wider is left alone.
    """
    assert compiled is not None
    compiled.transpose(
        source.data_ptr(), *source.shape, source.stride(0), target.data_ptr(), target.stride(0)
    )


def expand(tensors: Mapping[str, Tensor], rows: int, columns: int) -> dict[str, Tensor]:
    """Turn ``gaps`` into ``sparse16``, which holds more bytes and can be multiplied with.

    Args:
        tensors: What ``gaps`` holds; ``formats.check_tensors`` has passed them.
        rows: Number of rows.
        columns: Number of columns; at most 65,536.

    Returns:
        What ``sparse16`` holds.

    Raises:
        ValueError: If there are too many columns, or the gaps do not fit the shape.
    """
    if columns > MOST_COLUMNS:
        raise ValueError(f"sparse16 holds at most {MOST_COLUMNS} columns; got {columns}.")
    names = "quotients", "remainders", "signs"
    streams = [tensors[name].contiguous() for name in names]
    if compiled is None or not all(stream.is_cpu for stream in streams):
        lists = list_columns(decode_gaps(dict(tensors), rows, columns))
        return dict(zip(("columns", "starts"), lists, strict=True))
    most = 8 * streams[2].numel()
    listed = torch.empty(most, dtype=torch.uint16, device="cpu")
    starts = torch.empty(2 * rows + 1, dtype=torch.int32, device="cpu")
    sizes = (number for s in streams for number in (s.data_ptr(), s.numel()))
    count = compiled.expand_gaps(
        *sizes, int(tensors["gap_bits"]), rows, columns, listed.data_ptr(), most, starts.data_ptr()
    )
    if count < 0:
        raise ValueError(
            f"gaps must end within {rows} rows of {columns} columns; these lead beyond."
        )
    return {"columns": listed[:count].clone(), "starts": starts}
