"""Read CIFAR's python batches without running what a pickle may say.

A pickle is a program: loading one can call any function of any module. The classic CIFAR files are
pickles all the same, so they are read by an unpickler that admits three names only, those with
which NumPy writes an array, and binds them to the two inert classes below. No NumPy function is
called on the file's word either: shape, type and length are checked here before bytes become
pixels. Every other name ends the reading.
"""

import io
import pickle
from typing import Any

import numpy as np

__all__ = ["read_cifar_batch"]


class StoredType:
    """Stands for ``numpy.dtype``: keeps its code, takes no other order."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment: only single bytes are admitted."""


class StoredArray:
    """Stands for ``numpy.ndarray``: keeps what the file says about shape and bytes."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep the state; it is looked at only by :meth:`pixels`."""
        self.state = state

    def pixels(self) -> np.ndarray:
        """Build the array.

        Returns:
            Shape ``(n, 3072)``, uint8.

        Raises:
            ValueError: If it is anything but complete rows of 3,072 bytes.
        """
        _, shape, kind, by_column, data = self.state
        data = data.encode("latin1") if isinstance(data, str) else data
        rows = shape[0]
        if (
            kind.code not in ("u1", b"u1")
            or tuple(shape[1:]) != (3072,)
            or len(data) != rows * 3072
        ):
            raise ValueError(f"{kind.code} of shape {shape} in {len(data)} bytes")
        return np.frombuffer(data, np.uint8).reshape(rows, 3072, order="F" if by_column else "C")


def empty_array(*_: Any) -> StoredArray:
    """Stand for NumPy's ``_reconstruct``."""
    return StoredArray()


def latin1_bytes(text: str, encoding: str) -> bytes:
    """Stand for ``_codecs.encode``, with which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): empty_array,
    ("numpy._core.multiarray", "_reconstruct"): empty_array,
    ("numpy", "ndarray"): StoredArray,
    ("numpy", "dtype"): StoredType,
    ("_codecs", "encode"): latin1_bytes,
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays of bytes and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up one of the admitted names.

        Args:
            module: Module that the pickle asks for.
            name: Name in that module.

        Returns:
            The inert stand-in.

        Raises:
            UnpicklingError: For every other name.
        """
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ADMITTED[module, name]


def read_cifar_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one CIFAR batch.

    Args:
        data: Content of a file such as ``data_batch_1``.
        where: Name of the file, for error messages.

    Returns:
        Pixels, shape ``(n, 3072)``, uint8, and labels, shape ``(n,)``, int64; of CIFAR-100 the
        fine labels.

    Raises:
        ValueError: If it is not a CIFAR batch, or asks for more than arrays.
    """
    try:
        entries = ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in entries.items()}
        labels = named["labels"] if "labels" in named else named["fine_labels"]
        return named["data"].pixels(), np.array([int(label) for label in labels], np.int64)
    except Exception as error:  # a damaged pickle raises almost anything
        raise ValueError(
            f"{where} must be a CIFAR batch: a dictionary of a byte array and a list of labels, "
            f"nothing else is loaded from a pickle; got {type(error).__name__}: {error}. "
            "Download it again."
        ) from error
