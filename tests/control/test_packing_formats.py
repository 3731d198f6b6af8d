"""Every format gives back the signs it was given, in the layout and the bytes it promises."""

from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from lowland.control.packing.bits import unpack_bits
from lowland.control.packing.formats import (
    FORMATS,
    applicable,
    bytes_of,
    check_tensors,
    decode,
    encode,
    sizes,
)

LENGTHS = [*range(1, 131), 191, 192, 193, 255, 256, 257]


def random_signs(rows, columns, nonzero, rng):
    """Signs drawn independently, in the type and the order of memory of a weight."""
    plus = torch.randint(2, (rows, columns), generator=rng) * 2 - 1
    return (plus * (torch.rand(rows, columns, generator=rng) < nonzero)).to(torch.int8)


@pytest.mark.parametrize("nonzero", [0.0, 0.02, 0.5, 1.0])
def test_round_trip_of_every_length(nonzero, rng):
    """Columns of every remainder by 8, 64 and 128, in several numbers of rows."""
    for columns in LENGTHS:
        for rows in (1, 3):
            signs = random_signs(rows, columns, nonzero, rng)
            for name in applicable(signs):
                tensors = encode(signs, name)
                check_tensors(tensors, name, rows, columns)
                assert_close(decode(tensors, name, rows, columns), signs, rtol=0, atol=0)
                assert bytes_of(tensors) == sizes(signs)[name]


@given(st.integers(1, 12), st.integers(1, 200), st.data())
def test_round_trip_of_anything(rows, columns, data):
    values = st.lists(st.integers(-1, 1), min_size=rows * columns, max_size=rows * columns)
    signs = tensor(data.draw(values), dtype=torch.int8).view(rows, columns)
    for name in applicable(signs):
        assert_close(decode(encode(signs, name), name, rows, columns), signs, rtol=0, atol=0)


def test_a_matrix_of_several_chunks(rng):
    """More weights than are treated at once, and a gap that bridges whole chunks."""
    signs = random_signs(50, 70_000, 0.02, rng)
    signs[5:40] = 0
    for name in ("bit2planes", "gaps"):
        assert_close(decode(encode(signs, name), name, *signs.shape), signs, rtol=0, atol=0)
    assert "sparse16" not in applicable(signs)
    narrower = signs[:, :65_536]
    assert_close(decode(encode(narrower, "sparse16"), "sparse16", *narrower.shape), narrower)


def test_more_nonzeros_than_are_treated_at_once(rng):
    """The streams of the gaps join at whole bytes."""
    signs = random_signs(1500, 2001, 0.8, rng)
    for name in ("sparse16", "gaps"):
        assert_close(decode(encode(signs, name), name, *signs.shape), signs, rtol=0, atol=0)


def test_views_are_read_in_their_own_order(rng):
    """A transposed matrix is another matrix."""
    signs = random_signs(70, 40, 0.3, rng).T
    for name in ("bit2planes", "sparse16", "gaps"):
        assert_close(decode(encode(signs, name), name, 40, 70), signs, rtol=0, atol=0)


def test_layout_of_bits():
    """Column 32 w + j of row r is bit j of word (w, r)."""
    signs = -torch.ones(2, 70, dtype=torch.int8)
    signs[0, 0] = signs[0, 31] = signs[1, 33] = signs[1, 69] = 1
    bits = encode(signs, "bit1")["bits"]
    assert bits.dtype == torch.int32
    assert bits.tolist() == [[1 - 2**31, 0], [0, 2], [0, 32], [0, 0]]


def test_layout_of_planes():
    signs = tensor([[1, -1, 0, -1]], dtype=torch.int8)
    assert {n: t.tolist() for n, t in encode(signs, "bit2planes").items()} == {
        "plus": [[1], [0]],
        "minus": [[10], [0]],
    }


def test_layout_of_lists():
    """Plus-list and minus-list of each row."""
    signs = tensor([[1, -1, 0, -1, 1], [0, 0, 0, 0, 0], [0, 0, -1, 0, 0]], dtype=torch.int8)
    tensors = encode(signs, "sparse16")
    assert tensors["columns"].dtype == torch.uint16
    assert tensors["columns"].tolist() == [0, 4, 1, 3, 2]
    assert tensors["starts"].tolist() == [0, 2, 4, 4, 4, 4, 5]


def test_layout_of_gaps():
    """Worked by hand: gaps 2, 0 and 5 take 10 bits with k = 0, 9 with k = 1, 10 with k = 2."""
    signs = tensor([[0, 0, 1, -1, 0], [0, 0, 0, 0, 1]], dtype=torch.int8)
    tensors = {n: t.tolist() for n, t in encode(signs, "gaps").items()}
    # k = 1: quotients 1, 0, 2 are 01 1 001; remainders 0, 0, 1; signs 1, 0, 1
    assert tensors == {
        "quotients": [0b100110],
        "remainders": [0b100],
        "signs": [0b101],
        "gap_bits": [1],
    }


def smallest(signs):
    """The format of the fewest bytes."""
    counted = sizes(signs)
    return min(counted, key=counted.__getitem__)


@pytest.mark.parametrize("columns", [1, 3, 64])
def test_only_zeros(columns):
    signs = torch.zeros(5, columns, dtype=torch.int8)
    assert smallest(signs) == "gaps"
    for name in applicable(signs):
        assert_close(decode(encode(signs, name), name, 5, columns), signs, rtol=0, atol=0)


def test_some_rows_of_bits(rng):
    """Rows are unpacked alone from a part of the words."""
    signs = random_signs(20, 75, 1.0, rng)
    words = encode(signs, "bit1")["bits"]
    assert_close(unpack_bits(words[:, 3:9], 75), signs[3:9] > 0, rtol=0, atol=0)


def entropy_bytes(size, p):
    """Bits of which weights are zero, and one bit for the sign of each other."""
    return size * (-p * log2(p) - (1 - p) * log2(1 - p) + p) / 8


@pytest.mark.parametrize(
    ("rows", "columns", "share", "list_megabytes"),
    [(2048, 4888, 0.0179, 0.36), (2048, 6846, 0.0130, 0.36), (2048, 3125, 0.0254, 0.32)],
    ids=["mnist", "cifar10", "svhn"],
)
def test_sizes_of_the_specification(rows, columns, share, list_megabytes, rng):
    """The table of section 9, to 1 % for planes, 2 bytes per nonzero and 8 per row for lists."""
    signs = random_signs(rows, columns, share, rng)
    nonzero, size = int(signs.count_nonzero()), rows * columns
    counted = sizes(signs)
    assert counted["bit2planes"] == pytest.approx(size / 4, rel=0.02)
    assert counted["sparse16"] == 2 * nonzero + 8 * rows + 4
    assert 2 * nonzero / 1e6 == pytest.approx(list_megabytes, abs=0.01)
    bound = entropy_bytes(size, nonzero / size)
    assert bound <= counted["gaps"] <= 1.01 * bound
    assert smallest(signs) == "gaps"
    assert bytes_of(encode(signs, "gaps")) == counted["gaps"]


@pytest.mark.parametrize("share", [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3])
def test_gaps_come_within_3_percent_of_the_entropy(share, rng):
    signs = random_signs(1000, 1000, share, rng)
    bound = entropy_bytes(10**6, int(signs.count_nonzero()) / 10**6)
    assert sizes(signs)["gaps"] <= 1.03 * bound


def test_the_smallest_by_share(rng):
    """Without zeros a bit each; with half of them planes or gaps, never lists."""
    assert smallest(random_signs(64, 640, 1.0, rng)) == "bit1"
    assert smallest(random_signs(64, 640, 0.95, rng)) == "gaps"  # two bits for a nonzero weight
    assert smallest(random_signs(64, 640, 0.02, rng)) == "gaps"


def hostile(name, **changes):
    """A small matrix in a format, with some tensors replaced."""
    signs = tensor([[1, -1, 1, -1, 1]] * 3, dtype=torch.int8)
    if name != "bit1":
        signs[:, 1] = 0
    return {**encode(signs, name), **changes}


def i32(*values):
    return tensor(values, dtype=torch.int32)


def u16(*values):
    return tensor(values, dtype=torch.int32).to(torch.uint16)


def u8(*values):
    return tensor(values, dtype=torch.uint8)


LIES = {
    "padding": ("bit1", {"bits": i32(32, 0, 0, 0, 0, 0).view(2, 3)}, "beyond column 4 must be 0"),
    "far padding": ("bit1", {"bits": i32(0, 0, 0, 0, 0, 1).view(2, 3)}, "beyond column 4"),
    "sign bit": ("bit1", {"bits": i32(-(2**31), 0, 0, 0, 0, 0).view(2, 3)}, "beyond column 4"),
    "words": ("bit1", {"bits": i32(0, 0, 0).view(1, 3)}, r"of shape \(2, 3\)"),
    "dtype": ("bit1", {"bits": torch.zeros(2, 3)}, "must be torch.int32"),
    "both": ("bit2planes", {"minus": i32(1, 0, 0, 0, 0, 0).view(2, 3)}, "not be both"),
    "descending starts": ("sparse16", {"starts": i32(0, 3, 2, 4, 8, 11, 12)}, "starts must ascend"),
    "late start": ("sparse16", {"starts": i32(1, 3, 4, 7, 8, 11, 12)}, "starts must ascend"),
    "negative starts": ("sparse16", {"starts": i32(0, -3, 4, 7, 8, 11, 12)}, "starts must ascend"),
    "long starts": ("sparse16", {"starts": i32(0, 3, 4, 7, 8, 11, 2**30)}, "starts must ascend"),
    "few starts": ("sparse16", {"starts": i32(0, 3, 4, 7, 8)}, "starts of sparse16 must be"),
    "wide": ("sparse16", {"columns": u16(*[0, 2, 5, 3] * 3)}, "less than 5; got 5"),
    "unsorted": ("sparse16", {"columns": u16(*[2, 0, 4, 3] * 3)}, "must ascend"),
    "repeated": ("sparse16", {"columns": u16(*[0, 0, 4, 3] * 3)}, "must ascend"),
    "in both": ("sparse16", {"columns": u16(*[0, 2, 4, 4] * 3)}, "not stand in both"),
    "long k": ("gaps", {"gap_bits": i32(40)}, "gap_bits must lie in 0 to 31; got 40"),
    "negative k": ("gaps", {"gap_bits": i32(-1)}, "gap_bits must lie in 0 to 31"),
    "other k": ("gaps", {"gap_bits": i32(7)}, "remainders must hold"),
    "no signs": ("gaps", {"signs": u8()}, "signs must hold"),
    "more signs": ("gaps", {"signs": u8(0, 0, 0)}, "signs must hold"),
    "sign padding": ("gaps", {"signs": u8(0, 255)}, "signs must hold"),
    "quotient padding": ("gaps", {"quotients": u8(255, 15, 0)}, "quotients must hold"),
    "beyond": ("gaps", {"quotients": u8(0, 240, 255)}, "got place 23"),
    "far beyond": ("gaps", {"quotients": u8(0, 0, 240, 255)}, "the quotients lead beyond"),
    "many": ("gaps", {"quotients": u8(*[255] * 6)}, "must be shorter"),
    "missing": ("gaps", {"signs": None}, "gaps must hold quotients"),
    "flat": ("gaps", {"signs": u8(0, 0).view(1, 2)}, "signs of gaps must be"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_hostile_tensors(lie):
    """Every lie meets a sentence, when checked and when decoded."""
    name, changes, words = LIES[lie]
    tensors = {n: t for n, t in hostile(name, **changes).items() if t is not None}
    for read in (check_tensors, decode):
        with pytest.raises(ValueError, match=words):
            read(tensors, name, 3, 5)


def test_gaps_that_end_behind_the_matrix():
    """The last remainder leads one place too far."""
    signs = torch.zeros(4, 8, dtype=torch.int8)
    signs[3, 7] = 1
    tensors = encode(signs, "gaps")
    with pytest.raises(ValueError, match=r"end within 31 weights; (the quotients|got place 31)"):
        decode(tensors, "gaps", 1, 31)


def decoded_or_refused(tensors, name, rows, columns):
    """The signs, or None after a sentence."""
    refused = ""
    try:
        return decode(tensors, name, rows, columns)
    except ValueError as error:
        refused = str(error)
    assert "must" in refused
    return None


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(2**30, 2**30), (0, 5), (3, 0), (-3, -5), (3, 6), (3, 64), (3, 65), (5, 3)],
)
@pytest.mark.parametrize("name", FORMATS)
def test_hostile_shapes(name, rows, columns):
    """Another shape is refused, or (where nothing speaks against it) is read within it."""
    signs = decoded_or_refused(hostile(name), name, rows, columns)
    assert signs is None or (tuple(signs.shape) == (rows, columns) and signs.numel() < 1000)


@given(st.sampled_from(list(FORMATS)), st.data())
def test_random_tensors(name, data):
    """Arbitrary content is refused in words, or means signs that give back the same tensors."""
    shapes = {"bits": (2, 3), "plus": (2, 3), "minus": (2, 3), "starts": (7,), "gap_bits": (1,)}
    tensors = {}
    for part, dtype in FORMATS[name].items():
        shape = shapes.get(part) or (data.draw(st.integers(0, 6)),)
        size = int(np.prod(shape)) * dtype.itemsize
        raw = data.draw(st.binary(min_size=size, max_size=size))
        small = data.draw(st.booleans()) and part in ("starts", "gap_bits", "columns")
        array = torch.tensor(list(raw), dtype=torch.uint8).view(dtype).view(shape)
        tensors[part] = (array.to(torch.int32) % 7).sort().values.to(dtype) if small else array
    signs = decoded_or_refused(tensors, name, 3, 5)
    if signs is None:
        return
    again = encode(signs, name)
    if name != "gaps" or again["gap_bits"] == tensors["gap_bits"]:  # any k is legible
        assert all(torch.equal(again[part], tensors[part]) for part in tensors)


def test_bad_input():
    signs = tensor([[1, 0]], dtype=torch.int8)
    with pytest.raises(
        ValueError, match="bit1 must fit the signs; .* as bit2planes, sparse16, gaps"
    ):
        encode(signs, "bit1")
    with pytest.raises(ValueError, match='one of bit1, bit2planes, sparse16, gaps; got "int4"'):
        encode(signs, "int4")
    with pytest.raises(ValueError, match="values from 0 to 5"):
        encode(tensor([[0, 5]], dtype=torch.int8), "gaps")
    with pytest.raises(ValueError, match="at least one row and one column"):
        encode(torch.zeros(3, 0, dtype=torch.int8), "gaps")
    with pytest.raises(ValueError, match=r"at most 65536 columns; got 70000"):
        check_tensors(encode(signs, "sparse16"), "sparse16", 1, 70_000)
