"""A single row that is left of a pass begins the next one, where it fits: no row is ever lost."""

from copy import deepcopy
from itertools import cycle, islice

import pytest
import torch
from scored_batches import ALWAYS, taken
from torch import nn

from lowland.importance import ImportanceSampling
from small_networks import losses, mlp, norm_mlp, same, seeded

NUMBERS = torch.arange(25.0)
BATCH = (NUMBERS.view(25, 1).expand(25, 4), torch.zeros(25, dtype=torch.long))


NEVER = {"tau_threshold": 1e9}


class Mean(nn.Module):
    """A network for rows of every length."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 3)

    def forward(self, x):
        return self.layer(x.mean(1, keepdim=True))


def padded(sizes, widths):
    """Batches of rows that are numbered through, each batch as wide as its longest row."""
    numbers = torch.arange(float(sum(sizes))).split(sizes)
    rows = [n.view(-1, 1).expand(-1, w) for n, w in zip(numbers, cycle(widths))]
    return [(x, torch.zeros(len(x), dtype=torch.long)) for x in rows]


def passes(options, count=3, make=norm_mlp, loaders=(), state=None):
    """Rows that the steps of each pass begin with: those of a pool, or of a uniform batch."""
    model, read = seeded(make, 0), []
    sampling = ImportanceSampling(model, losses, **{"batch_size": 8} | options)
    if state is not None:
        sampling.load_state_dict(state)
    model.register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0][:, 0].round().int().tolist())
    )
    for loader in islice(cycle(loaders or [[BATCH]]), count):
        found = []
        for x, y in sampling(loader):
            sampling.loss(model(x), y).backward()
            found.append(read[0])
            read.clear()
        yield found


def test_of_pools():
    """Of 25 rows and pools of 24: one is left, then two, which are a step, then one again."""
    assert [*passes(ALWAYS)] == [[[*range(24)]], [[24, *range(23)], [23, 24]], [[*range(24)]]]


def test_of_batches():
    """Where a loader's batch of 25 is cut into steps of 8: batch norm never meets one row."""
    found = [*passes(NEVER)]
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


@pytest.mark.parametrize("options", [ALWAYS, NEVER], ids=["chosen", "uniform"])
def test_a_batch_of_one_that_the_loader_makes_is_its_own(options):
    """As plain training gets it: a single row is a batch where batches have one."""
    rows = [(x.unsqueeze(0), y.unsqueeze(0)) for x, y in zip(*BATCH, strict=True)]
    sampling = ImportanceSampling(seeded(norm_mlp, 0).eval(), losses, **options)
    assert len([*taken(sampling, rows)]) == (9 if options is ALWAYS else 25)


def test_a_pass_goes_on_behind_a_single_row_of_batches_padded_to_many_lengths():
    """16 rows of one length are steps of 5, 5, 5 and 1, whatever the next 16 look like."""
    loader = padded([16] * 4, [4, 6, 5, 7])
    for steps in passes({**NEVER, "batch_size": 5}, count=4, make=Mean, loaders=[loader]):
        assert [len(rows) for rows in steps] == [5, 5, 5, 1] * 4
        assert sum(steps, []) == [*range(64)]


def test_pools_of_batches_padded_to_many_lengths():
    """Of 61 rows, 5 pools are 12 each, and the last is for itself, in each of 8 passes."""
    loader = padded([12] * 5 + [1], [3, 8, 5, 5, 7, 4])
    for steps in passes({**ALWAYS, "batch_size": 4}, count=8, make=Mean, loaders=[loader]):
        assert [len(rows) for rows in steps] == [12] * 5 + [1]
        assert sum(steps, []) == [*range(61)]


def test_the_last_row_of_lengths_that_vary_does_not_wait():
    """Whether it fits the first batch of the next pass is chance, so no pass is a row short."""
    loader = padded([12, 12, 13], [4, 6, 4])
    for steps in passes({**NEVER, "batch_size": 4}, count=3, make=Mean, loaders=[loader]):
        assert [len(rows) for rows in steps] == [4] * 9 + [1]


@pytest.mark.parametrize("options", [ALWAYS, NEVER], ids=["chosen", "uniform"])
def test_a_row_that_does_not_fit_the_next_pass_is_its_first_step(options):
    """25 rows of length 4, then 25 of length 6, as where images grow: each time one is held."""
    loaders = [padded([25], [4]), padded([25], [6])]
    first, *later = passes(options, count=5, make=Mean, loaders=loaders)
    assert sum(first, []) == [*range(24)]
    for steps in later:
        assert steps[0] == [24]
        assert sum(steps[1:], []) == [*range(24)]


def test_a_row_is_for_itself_where_what_belongs_to_the_whole_batch_has_changed():
    """The number of the epoch, given with each batch, is another one for the row that is held."""
    x, y = BATCH
    loaders = [[{"x": x, "epoch": epoch, "labels": y}] for epoch in range(3)]
    sampling = ImportanceSampling(mlp(), losses, batch_size=8, get_inputs=lambda b: b["x"], **NEVER)
    found = [[(len(b["x"]), b["epoch"]) for b in taken(sampling, loader)] for loader in loaders]
    assert found[0] == [(8, 0)] * 3
    assert found[1:] == [[(1, e - 1)] + [(8, e)] * 3 for e in (1, 2)]


@pytest.mark.parametrize("width", [4, 6], ids=["fits", "does_not_fit"])
def test_a_run_that_is_taken_up_between_passes_has_the_held_row(width):
    """25 rows, of which the last is held, and a state that is saved then."""
    sampling = ImportanceSampling(seeded(Mean, 0), losses, batch_size=8, **NEVER)
    assert len([*taken(sampling, [BATCH])]) == 3
    (steps,) = passes(
        NEVER,
        count=1,
        make=Mean,
        loaders=[padded([25], [width])],
        state=deepcopy(sampling.state_dict()),
    )
    if width == 4:
        assert sum(steps, []) == [24, *range(25)]
    else:
        assert steps == [[24], [*range(8)], [*range(8, 16)], [*range(16, 24)]]
