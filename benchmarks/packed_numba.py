"""The two kernels of packed products in numba, to compare with those in C; ours do not need it."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray


@njit(fastmath=True, parallel=True)
def bits(words: NDArray, x: NDArray, out: NDArray) -> None:
    """Look up the sums of four neighboring activations, for words (words, rows) of 32 columns."""
    rows = words.shape[1]
    tables = np.empty((len(words) * 8, 16), np.float32)
    for k in range(len(tables)):
        for n in range(16):
            total = np.float32(0)
            for i in range(4):
                total += x[4 * k + i] if n >> i & 1 else -x[4 * k + i]
            tables[k, n] = total
    for block in prange((rows + 255) // 256):
        first, last = 256 * block, min(256 * block + 256, rows)
        out[first:last] = 0
        for w in range(len(words)):
            for r in range(first, last):
                word, total = np.uint32(words[w, r]), np.float32(0)
                for j in range(8):
                    total += tables[8 * w + j, word >> np.uint32(4 * j) & np.uint32(15)]
                out[r] += total


@njit(fastmath=True, parallel=True)
def masked(words: NDArray, x: NDArray, out: NDArray) -> None:
    """Add or subtract each activation, the rows side by side in registers."""
    rows = words.shape[1]
    for block in prange((rows + 255) // 256):
        first, last = 256 * block, min(256 * block + 256, rows)
        out[first:last] = 0
        for w in range(len(words)):
            for j in range(32):
                value = x[32 * w + j]
                for r in range(first, last):
                    out[r] += value if words[w, r] >> j & 1 else -value


@njit(fastmath=True, parallel=True)
def lists(columns: NDArray, starts: NDArray, x: NDArray, out: NDArray) -> None:
    """Add what a row's first list names and subtract what its second does."""
    for r in prange(len(out)):
        total = np.float32(0)
        for i in range(starts[2 * r], starts[2 * r + 1]):
            total += x[columns[i]]
        for i in range(starts[2 * r + 1], starts[2 * r + 2]):
            total -= x[columns[i]]
        out[r] = total
