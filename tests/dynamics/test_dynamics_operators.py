"""Operators: one symmetric matrix, or a sentence; and Hessians of functions known by hand."""

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.dynamics.operators import Operator, check_operator, function_hessian


def test_any_function(rng):
    """A quartic with a Hessian known by hand."""
    point = torch.randn(6, dtype=float64, generator=rng)
    operator = function_hessian(lambda v: (v**4).sum() + v[0] * v[1], point)
    expected = torch.diag(12 * point**2)
    expected[0, 1] = expected[1, 0] = 1
    assert_close(operator.dense(), expected)
    with torch.no_grad():
        assert_close(operator(point), expected @ point)


def test_an_operator_must_be_one_symmetric_matrix(rng):
    matrix = torch.randn(5, 5, dtype=float64, generator=rng)
    good = Operator(lambda rows: rows @ (matrix + matrix.T), 5, float64)
    check_operator(good, rng)
    with pytest.raises(ValueError, match="must be symmetric"):
        check_operator(Operator(lambda rows: rows @ matrix, 5, float64), rng)
    noisy = Operator(lambda rows: rows + torch.randn(rows.shape, generator=rng), 5, float64)
    with pytest.raises(ValueError, match="same product twice"):
        check_operator(noisy, rng)
    with pytest.raises(ValueError, match="must be finite"):
        check_operator(Operator(lambda rows: rows / 0, 5, float64), rng)
    check_operator(Operator(lambda rows: 0 * rows, 5, float64), rng)


def test_one_number():
    """Whose derivative is asked for."""
    with pytest.raises(ValueError, match="one number that depends"):
        function_hessian(lambda v: v, torch.ones(2))
