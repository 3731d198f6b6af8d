"""A search that runs out of memory on the way ends with the numbers of one that does not."""

from dataclasses import replace

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.connectivity import find_path, insert_equal, stack
from lowland.connectivity.ends import read_ends
from lowland.connectivity.memory import Room, in_chunks
from small_networks import SHORT, class_batches, losses, mlp, norm_mlp, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def short_of_memory(monkeypatch, most):
    """Let every batched run of more than ``most`` rows fail, after it has done its work."""
    counts, run_rows = [], stack.run_rows

    def run(copies, work, params, norms, fixed):
        found = run_rows(copies, work, params, norms, fixed)
        rows = len(next(iter(params.values()))) if copies.backend == "vmap" else 1
        counts.append(rows)
        if rows > most:
            raise torch.OutOfMemoryError("out of memory, says the test")
        return found

    monkeypatch.setattr(stack, "run_rows", run)
    return counts


def test_rows_are_halved_and_remembered():
    """40 rows, memory for 9: 40, 20 and 10 fail, 5 fit; the next call begins with 5."""
    room, seen, done = Room(), [], []

    def run(rows):
        seen.append(rows.stop - rows.start)
        if seen[-1] > 9:
            raise torch.OutOfMemoryError
        done.extend(range(rows.start, rows.stop))

    in_chunks(40, 3, 1000, room, run)
    assert seen == [40, 20, 10] + [5] * 8
    assert done == [*range(40)]
    seen.clear()
    in_chunks(12, 3, 1000, room, run)
    assert seen == [5, 5, 2]


def test_a_row_that_does_not_fit_alone():
    def run(_):
        raise torch.OutOfMemoryError("too large")

    with pytest.raises(torch.OutOfMemoryError, match="too large"):
        in_chunks(8, 3, 1000, Room(), run)


@pytest.mark.parametrize("build", [mlp, norm_mlp])
@pytest.mark.parametrize("batch_norm", ["recalibrate", "interpolate"])
def test_the_same_path(build, batch_norm, monkeypatch):
    """Relaxation, statistics of batch norms and dense evaluation, to 1e-12 in float64.

    The failing run has moved the statistics already: they must not be moved twice.
    """
    start, end = two(build, float64)
    batches = class_batches(4, dtype=float64)
    settings = {"schedule": SHORT, "batch_norm": batch_norm, "backend": "vmap"}
    whole = find_path(start, losses, batches, start, end, test_batches=batches, **settings)
    counts = short_of_memory(monkeypatch, most=3)
    found = find_path(start, losses, batches, start, end, test_batches=batches, **settings)
    assert any(rows > 3 for rows in counts)
    assert len(counts) > 3 * sum(rows > 3 for rows in counts)
    assert_close(found.path.pivots, whole.path.pivots, rtol=0, atol=1e-12)
    for metric in ("train_loss", "test_loss", "test_error"):
        values, wanted = found.profile.values(metric), whole.profile.values(metric)
        assert_close(values, wanted, rtol=0, atol=1e-12)


def test_bfloat16_passes():
    """Products alone are rounded: gradients within 2 %, all types those of float32.

    Eight bits of mantissa round to 0.4 %; three layers and their way back add up to less than 2 %.
    """
    start, end = two(mlp, torch.float32)
    copies, a, b = read_ends(start, losses, start, end, batch_norm="recalibrate")
    path, _ = insert_equal(torch.stack([a, b]), torch.ones(1), 3)
    batch = class_batches(4, sizes=(64,))[0]
    for backend in ("vmap", "loop"):
        exact = stack.losses_and_grads(copies.with_backend(backend), path, *batch)
        half = replace(copies, backend=backend, precision="bf16")
        rounded = stack.losses_and_grads(half, path, *batch)
        for value, wanted in zip(rounded, exact, strict=True):
            assert value.dtype == torch.float32
            assert not torch.equal(value, wanted)
            assert (value - wanted).norm() < 0.02 * wanted.norm()


def test_evaluation_stays_exact():
    """A search in bfloat16 measures its path in float32."""
    start, end = two(mlp, torch.float32)
    batches, types = class_batches(4), {True: set(), False: set()}
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, out: types[torch.is_grad_enabled()].add(out.dtype)
    )
    try:
        settings = {"schedule": SHORT, "backend": "loop", "precision": "bf16"}
        found = find_path(start, losses, batches, start, end, **settings)
    finally:
        hook.remove()
    assert torch.bfloat16 in types[True]
    assert torch.float32 in types[False]
    assert found.path.pivots.dtype == torch.float32
    assert found.settings["precision"] == "bf16"
    again = linear_losses(start, batches, found)
    assert_close(found.profile.train_loss[[0, -1]], again, rtol=1e-6, atol=0)


def linear_losses(model, batches, found):
    """Losses of both ends by the module itself, in float32."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    values = []
    for t in (0.0, 1.0):
        model.load_state_dict(found.path.state_dict(t))
        with torch.no_grad():
            each = torch.cat([losses(model(x), y) for x, y in batches])
        values.append(each.double().mean())
    model.load_state_dict(kept)
    return torch.stack(values)


def test_an_unknown_precision():
    start, end = two(mlp, torch.float32)
    with pytest.raises(ValueError, match="precision must be one of"):
        find_path(start, losses, class_batches(4), start, end, precision="half")
