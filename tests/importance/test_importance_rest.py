"""A single row that is left of a pass begins the next one: no row is lost, none is alone."""

import pytest
import torch
from scored_batches import ALWAYS, taken

from lowland.importance import ImportanceSampling
from small_networks import losses, norm_mlp, same, seeded

NUMBERS = torch.arange(25.0)
BATCH = (NUMBERS.view(25, 1).expand(25, 4), torch.zeros(25, dtype=torch.long))


def passes(options, count=3):
    """Rows that the steps of each pass begin with: those of a pool, or of a uniform batch."""
    model, read = seeded(norm_mlp, 0), []
    sampling = ImportanceSampling(model, losses, batch_size=8, **options)
    model.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][:, 0].int().tolist()))
    for _ in range(count):
        found = []
        for x, y in sampling([BATCH]):
            sampling.loss(model(x), y).backward()
            found.append(read[0])
            read.clear()
        yield found


def test_of_pools():
    """Of 25 rows and pools of 24: one is left, then two, which are a step, then one again."""
    assert [*passes(ALWAYS)] == [[[*range(24)]], [[24, *range(23)], [23, 24]], [[*range(24)]]]


def test_of_batches():
    """Where a loader's batch of 25 is cut into steps of 8: batch norm never meets one row."""
    found = [*passes({"tau_threshold": 1e9})]
    assert [len(steps) for steps in found] == [3, 4, 3]
    assert [sum(steps, []) for steps in found] == [[*range(24)], [24, *range(25)], [*range(24)]]


def test_each_row_is_in_a_pool_equally_often():
    """So that estimates, each unbiased for its pool, are so for the data: 48 passes."""
    read = [row for steps in passes(ALWAYS, count=48) for rows in steps for row in rows]
    assert sorted(read) == sorted([*range(25)] * 48)


def test_the_row_is_in_a_saved_state():
    one, two = (
        ImportanceSampling(seeded(norm_mlp, 0), losses, batch_size=8, **ALWAYS) for _ in range(2)
    )
    assert len([*taken(one, [BATCH])]) == 1
    two.load_state_dict(one.state_dict())
    first, second = [*taken(one, [BATCH])], [*taken(two, [BATCH])]
    assert len(first) == 2
    assert same(second, first)


@pytest.mark.parametrize("options", [ALWAYS, {"tau_threshold": 1e9}], ids=["chosen", "uniform"])
def test_a_batch_of_one_that_the_loader_makes_is_its_own(options):
    """As plain training gets it: a single row is a batch where batches have one."""
    rows = [(x.unsqueeze(0), y.unsqueeze(0)) for x, y in zip(*BATCH, strict=True)]
    sampling = ImportanceSampling(seeded(norm_mlp, 0).eval(), losses, **options)
    assert len([*taken(sampling, rows)]) == (9 if options is ALWAYS else 25)
