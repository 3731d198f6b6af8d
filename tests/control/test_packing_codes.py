"""Signs and factors found in a matrix give back exactly the matrix they were found in."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from lowland.control.packing.codes import Codes, find_codes, row_chunks


def random_signs(rows, columns, rng, nonzero=0.5):
    """Signs drawn independently."""
    plus = torch.randint(2, (rows, columns), generator=rng) * 2 - 1
    return (plus * (torch.rand(rows, columns, generator=rng) < nonzero)).to(torch.int8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_scale_for_each_row(dtype, rng):
    """Multiplying with -1, 0 and 1 rounds nothing, so the weight comes back in every bit."""
    signs = random_signs(50, 30, rng)
    scale = torch.rand(50, generator=rng).add(0.1).to(dtype)
    codes = find_codes(scale.unsqueeze(1) * signs.to(dtype))
    assert codes is not None
    assert_close(codes.signs, signs, rtol=0, atol=0)
    assert codes.scale is not None
    assert_close(codes.scale, scale.float(), rtol=0, atol=0)
    assert_close(codes.weight(dtype), scale.unsqueeze(1) * signs.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rows", "kind", "scale"),
    [
        ([[1, -1], [-1, 1]], "binary", None),
        ([[1, -1], [-1, 0]], "ternary", None),
        ([[1, 0], [0, 0]], "ternary", None),
        ([[0.5, -0.5], [-2, 2]], "binary", [0.5, 2]),
        ([[0.5, 0], [0, 0]], "ternary", [0.5, 1]),
        ([[-0.0, 3e38]], "ternary", [3e38]),
        ([[-0.0, 2.0**-149]], "ternary", [2.0**-149]),
    ],
)
def test_known_matrices(rows, kind, scale):
    weight = tensor(rows, dtype=torch.float32)
    codes = find_codes(weight)
    assert codes is not None
    assert (codes.kind, codes.scale is None) == (kind, scale is None)
    if scale is not None:
        assert_close(codes.scale, tensor(scale), rtol=0, atol=0)
    assert codes.nonzero == sum(value != 0 for row in rows for value in row) / weight.numel()
    assert_close(codes.weight(), weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    "row",
    [
        [1, 2],
        [1, 1 + 2**-20],
        [1, torch.nan],
        [1, torch.inf],
        [torch.inf, -torch.inf],
        [0, torch.nan],
    ],
)
def test_what_has_no_codes(row):
    """Two magnitudes in one row, or numbers that are not finite."""
    assert find_codes(tensor([[1.0, 1.0], row])) is None


@pytest.mark.parametrize("size", [1e-60, 1e60])
def test_factors_beyond_float32(size):
    assert find_codes(torch.full((2, 2), size, dtype=torch.float64)) is None


def test_tolerance():
    """The factor lies halfway between the magnitudes, which lie 1/100 of the larger apart."""
    weight = tensor([[0.99, -1.0, 0.0]])
    assert find_codes(weight, tolerance=0.009) is None
    codes = find_codes(weight, tolerance=0.011)
    assert codes is not None
    assert codes.scale is not None
    assert_close(codes.scale, tensor([0.995]))
    assert codes.signs.tolist() == [[1, -1, 0]]


def test_a_second_magnitude_in_a_late_chunk():
    """Rows are looked at some at a time; none is forgotten."""
    weight = torch.ones(40, 2**16)
    assert len(row_chunks(*weight.shape)) > 1
    assert find_codes(weight) is not None
    weight[-1, -1] = 2
    assert find_codes(weight) is None


@given(st.integers(1, 5000), st.integers(1, 2**22))
def test_chunks_cover_all_rows(rows, columns):
    parts = row_chunks(rows, columns)
    assert [r for part in parts for r in range(rows)[part]] == list(range(rows))
    assert all(
        part.stop - part.start == 1 or (part.stop - part.start) * columns <= 2**20 for part in parts
    )


def test_bad_input():
    with pytest.raises(ValueError, match="at least one row and one column; got shape"):
        find_codes(torch.ones(0, 3))
    with pytest.raises(ValueError, match="tolerance must be at least 0 and less than 1; got 1"):
        find_codes(torch.ones(2, 3), tolerance=1.0)
    with pytest.raises(ValueError, match="-1, 0 and 1; got values from 0 to 2"):
        Codes(tensor([[0, 2]], dtype=torch.int8))


@pytest.mark.untyped
def test_bad_types():
    with pytest.raises(ValueError, match="signs must be int8; got torch.int64"):
        Codes(tensor([[0, 1]]))
    with pytest.raises(ValueError, match="one factor for each of 1 rows"):
        Codes(tensor([[0, 1]], dtype=torch.int8), torch.ones(2))
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        find_codes(torch.ones(3))
