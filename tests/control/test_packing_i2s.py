"""I2_S holds, byte for byte, what the formula of the specification says."""

import struct

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from lowland.control.packing.i2s import from_i2s, to_i2s


def obvious(rows, scale):
    """The formula, one byte after the other."""
    out = bytearray()
    for row in rows:
        for first in range(0, len(row), 128):
            w = [value + 1 for value in row[first : first + 128]]
            for i in range(32):
                out.append(w[i] << 6 | w[32 + i] << 4 | w[64 + i] << 2 | w[96 + i])
    return bytes(out) + struct.pack("<f", scale) + bytes(28)


@pytest.mark.parametrize(("rows", "columns"), [(1, 128), (3, 256), (5, 1152)])
def test_bytes(rows, columns, rng):
    signs = torch.randint(-1, 2, (rows, columns), generator=rng).to(torch.int8)
    data = to_i2s(signs, 0.37)
    assert data == obvious(signs.tolist(), 0.37)
    again, scale = from_i2s(data, rows, columns)
    assert_close(again, signs, rtol=0, atol=0)
    assert scale == pytest.approx(0.37, rel=2**-24)


def test_a_block_by_hand():
    """Zeros are 01 01 01 01; +1 at 0 sets the highest bits, -1 at 127 clears the lowest."""
    signs = torch.zeros(1, 128, dtype=torch.int8)
    signs[0, 0], signs[0, 127] = 1, -1
    data = to_i2s(signs)
    assert data[:32] == bytes([0b10010101, *[0b01010101] * 30, 0b01010100])
    assert data[32:] == bytes([0, 0, 128, 63]) + bytes(28)


def test_the_offset_is_the_sum_of_the_activations(rng):
    """Codes times activations exceed signs times activations by that sum: what the kernels undo."""
    signs = torch.randint(-1, 2, (4, 128), generator=rng).to(torch.int8)
    x = torch.randint(-127, 128, (128,), generator=rng)
    packed = torch.tensor(list(to_i2s(signs)[:-32])).view(4, 1, 32)
    codes = torch.cat([packed >> shift & 3 for shift in (6, 4, 2, 0)], 1).view(4, 128)
    assert_close(codes @ x - x.sum(), signs.long() @ x, rtol=0, atol=0)


def test_several_chunks(rng):
    """More weights than are treated at once."""
    signs = torch.randint(-1, 2, (130, 2**14), generator=rng).to(torch.int8)
    assert_close(from_i2s(to_i2s(signs), 130, 2**14)[0], signs, rtol=0, atol=0)


def test_transposed(rng):
    signs = torch.randint(-1, 2, (128, 3), generator=rng).to(torch.int8).T
    assert to_i2s(signs) == obvious(signs.tolist(), 1.0)


def test_bad_input():
    with pytest.raises(ValueError, match="columns must be a multiple of 128 for I2_S; got 100"):
        to_i2s(torch.zeros(2, 100, dtype=torch.int8))
    with pytest.raises(ValueError, match="columns must be a multiple of 128 for I2_S; got 0"):
        from_i2s(b"", 1, 0)
    with pytest.raises(ValueError, match="values from 0 to 2"):
        to_i2s(torch.full((1, 128), 2, dtype=torch.int8) * tensor([0] + [1] * 127).to(torch.int8))
    data = to_i2s(torch.zeros(2, 128, dtype=torch.int8))
    for rows, damaged in (
        (3, data),
        (2, data[:-1]),
        (2, data + b"\0"),
        (2, b""),
        (-2, b""),
        (0, data[:32]),
    ):
        with pytest.raises(ValueError, match="I2_S of .* rows and 128 columns must have"):
            from_i2s(damaged, rows, 128)
    with pytest.raises(ValueError, match="must be 0, 1 and 2; some are 3"):
        from_i2s(b"\xff" + data[1:], 2, 128)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e-60])
def test_bad_scales(scale):
    signs = torch.zeros(1, 128, dtype=torch.int8)
    with pytest.raises(ValueError, match="scale must lie in 1.18e-38 to 3.4e"):
        to_i2s(signs, scale)
    if abs(scale) not in (1e39, 1e-60):
        with pytest.raises(ValueError, match="scale must lie in"):
            from_i2s(to_i2s(signs)[:32] + struct.pack("<f", scale) + bytes(28), 1, 128)
