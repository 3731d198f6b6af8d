"""Lanczos restricts an operator to a Krylov space: as powers and QR do, exactly if it ends."""

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from allocated import most_bytes
from lowland.dynamics import lanczos as lanczos_file
from lowland.dynamics import probes
from lowland.dynamics.lanczos import lanczos
from lowland.dynamics.operators import Operator
from lowland.dynamics.probes import lanczos_of_probes, probe_vectors
from lowland.training import generator
from oracles.slow_hessian import slow_krylov


def operator_from(matrix, calls=None):
    def rows(vectors):
        if calls is not None:
            calls.append(len(vectors))
        return vectors @ matrix

    return Operator(rows, len(matrix), matrix.dtype)


def symmetric(size, rng):
    matrix = torch.randn(size, size, dtype=float64, generator=rng)
    return (matrix + matrix.T) / 2


def rotated(eigenvalues, rng):
    """A matrix with known eigenvalues and random eigenvectors."""
    size = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=float64, generator=rng))[0]
    return basis * eigenvalues @ basis.T


def whole(tridiagonal):
    inner = tridiagonal.off_diagonal[:-1]
    return torch.diag(tridiagonal.diagonal) + torch.diag(inner, 1) + torch.diag(inner, -1)


def test_against_powers_and_qr(rng):
    """The same tridiagonal matrix, from a basis found without any recursion."""
    matrix = symmetric(40, rng)
    operator = operator_from(matrix)
    starts = probe_vectors(operator, range(3), seed=1)
    for start, found in zip(starts, lanczos(operator, starts, 12), strict=True):
        assert_close(whole(found), slow_krylov(matrix, start, 12), rtol=1e-9, atol=1e-9)
        assert not found.is_exhausted


def test_as_many_steps_as_parameters(rng):
    """All eigenvalues, and no more steps than there are parameters."""
    matrix = symmetric(30, rng)
    operator = operator_from(matrix)
    (found,) = lanczos(operator, probe_vectors(operator, range(1), 0), 99)
    assert found.steps == 30
    assert_close(found.eigh()[0], torch.linalg.eigvalsh(matrix), rtol=1e-10, atol=1e-10)


def test_no_eigenvalue_comes_twice(rng):
    """Large and small eigenvalues apart by 1e10: without reorthogonalization there are ghosts."""
    values = torch.cat([torch.tensor([1e10, 1e9], dtype=float64), torch.rand(98, generator=rng)])
    operator = operator_from(rotated(values, rng))
    (found,) = lanczos(operator, probe_vectors(operator, range(1), 0), 60)
    assert int((found.eigh()[0] > 1e8).sum()) == 2


@pytest.mark.parametrize("distinct", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, float64], ids=str)
def test_it_stops_where_the_space_ends(distinct, dtype, rng):
    """With k distinct eigenvalues after k steps, in spite of m larger than that; zeros are one."""
    values = torch.arange(distinct, dtype=float64).repeat(40)[:40]
    operator = operator_from(torch.diag(values).to(dtype))
    for found in lanczos(operator, probe_vectors(operator, range(3), 0), 20):
        assert found.is_exhausted
        assert found.steps == distinct
        expected = torch.arange(distinct, dtype=float64)
        assert_close(found.eigh()[0], expected, rtol=1e-5, atol=1e-5)


def test_the_zero_operator():
    operator = operator_from(torch.zeros(9, 9, dtype=float64))
    (found,) = lanczos(operator, probe_vectors(operator, range(1), 0), 4)
    assert found.is_exhausted
    assert found.diagonal.tolist() == [0.0]


def test_probes_that_end_leave_the_block(rng):
    """An eigenvector has a space of one dimension; nobody waits for it."""
    calls = []
    matrix = torch.diag(torch.arange(1.0, 9.0, dtype=float64))
    starts = torch.stack([torch.ones(8, dtype=float64), torch.eye(8, dtype=float64)[3]])
    full, single = lanczos(operator_from(matrix, calls), starts, 5)
    assert (full.steps, single.steps) == (5, 1)
    assert calls == [2, 1, 1, 1, 1]


def test_groups_and_blocks_do_not_change_the_numbers(rng):
    """Probes one by one, where memory is short, are the probes together."""
    operator = operator_from(symmetric(50, rng))
    starts = probe_vectors(operator, range(4), 0)
    for one, other in zip(
        lanczos(operator, starts, 10), lanczos(operator, starts, 10, max_bytes=1), strict=True
    ):
        assert_close(one.diagonal, other.diagonal, rtol=1e-12, atol=1e-12)
        assert_close(one.off_diagonal, other.off_diagonal, rtol=1e-12, atol=1e-12)


def test_steps_are_doubled_until_enough(rng):
    """And the space that is there is continued, not built again."""
    calls = []
    operator = operator_from(symmetric(100, rng), calls)
    starts = probe_vectors(operator, range(2), 0)
    seen = []

    def until(found):
        seen.append(found.steps)
        return found.steps >= 20

    found = lanczos(operator, starts, 6, max_steps=50, until=until)
    assert [one.steps for one in found] == [24, 24]
    assert seen == [6, 6, 12, 12, 24, 24]
    assert calls == [2] * 24
    capped = lanczos(operator, starts, 6, max_steps=10, until=lambda _: False)
    assert [one.steps for one in capped] == [10, 10]
    for a, b in zip(lanczos(operator, starts, 24), found, strict=True):
        assert torch.equal(a.diagonal, b.diagonal)


def test_probes_repeat():
    """Signs only; the same for a seed, others for another."""
    operator = operator_from(torch.eye(64, dtype=float64))
    first, again, other = (probe_vectors(operator, range(3), seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.abs() == 1).all()
    assert torch.equal(probe_vectors(operator, [2], 0)[0], first[2])


def test_probes_are_as_they_were_first_drawn():
    """A whole vector of coins from one generator, whatever pieces it is drawn in."""
    operator = Operator(lambda rows: rows, probes.CHUNK + 5, torch.float32)
    found = probe_vectors(operator, [0, 3], seed=7)
    for row, number in zip(found, (0, 3), strict=True):
        coins = torch.randint(0, 2, (len(row),), generator=generator(7, "probe", number))
        assert torch.equal(row, (2 * coins - 1).float())


@pytest.mark.parametrize("max_bytes", [1, 2 * 50 * 10 * 8, 2**31])
def test_probes_drawn_as_their_turn_comes(max_bytes, rng):
    """The bits of those that are drawn together, and with a rule that wants more steps."""
    operator = operator_from(symmetric(50, rng))
    starts = probe_vectors(operator, range(5), 3)
    limits = {"max_bytes": max_bytes, "max_steps": 10, "until": lambda one: one.steps >= 8}
    apart = lanczos_of_probes(operator, 5, 4, seed=3, **limits)
    for one, other in zip(lanczos(operator, starts, 4, **limits), apart, strict=True):
        assert torch.equal(one.diagonal, other.diagonal)
        assert torch.equal(one.off_diagonal, other.off_diagonal)


def test_probes_that_wait_take_no_memory():
    """With one basis at a time, forty probes take what two do."""
    values = torch.linspace(-1, 2, 5000)
    operator = Operator(lambda rows: rows * values, len(values), torch.float32)

    def top(count):
        return most_bytes(lambda: lanczos_of_probes(operator, count, 8, seed=0, max_bytes=1))

    few = top(2)
    assert top(40) < few + 40 * 8 * 8 * 8  # and its own matrix of eight steps for each


@pytest.mark.parametrize(("limit", "vectors"), [(2**31, 2 * 64), (1, 64)])
def test_a_basis_is_allocated_once(limit, vectors, monkeypatch):
    """One vector per step, in float64 where that fits: 128 floats of 4 bytes for 64 steps, or 64.

    Beside it there are a handful: the start, the product, and what is made orthogonal.
    """
    monkeypatch.setattr(lanczos_file, "CHUNK", 2**16)
    size = 20_000
    values = torch.linspace(-1, 2, size)
    operator = Operator(lambda rows: rows * values, size, torch.float32)
    found = most_bytes(lambda: lanczos_of_probes(operator, 1, 64, seed=0, max_bytes=limit))
    assert vectors <= found / (4 * size) < vectors + 16


def test_a_basis_that_cannot_be_granted_begins_with_the_first_steps(monkeypatch):
    """Eight of eighty steps are enough: no room for the others is taken."""
    monkeypatch.setattr(lanczos_file, "CHUNK", 2**16)
    size = 20_000
    values = torch.linspace(-1, 2, size)
    operator = Operator(lambda rows: rows * values, size, torch.float32)

    def work():
        return lanczos_of_probes(
            operator, 1, 8, seed=0, max_steps=80, until=lambda _: True, max_bytes=1
        )

    assert 8 <= most_bytes(work) / (4 * size) < 8 + 32


def test_bad_input():
    operator = operator_from(torch.eye(4, dtype=float64))
    starts = torch.ones(1, 4, dtype=float64)
    with pytest.raises(ValueError, match="at least one probe and one step"):
        lanczos(operator, starts, 0)
    with pytest.raises(ValueError, match="at least one probe and one step"):
        lanczos(operator, starts[:0], 3)
    with pytest.raises(ValueError, match="must not be zero"):
        lanczos(operator, 0 * starts, 3)
