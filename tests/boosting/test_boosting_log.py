"""What ``train_boosted`` tells a tracker is what its result holds, once, also after a resume."""

import pytest
import torch

from lowland.boosting import train_boosted
from small_networks import class_batches, norm_mlp, seeded

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")
BATCHES = class_batches(4, sizes=(8, 8, 8))


def told(**options):
    seen = []
    model = seeded(norm_mlp, 1)
    log = lambda values, step: seen.append((step, values))  # noqa: E731
    return train_boosted(model, BATCHES, epochs=2, log=log, **options), seen


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_rounds_are_told_behind_their_updates(schedule):
    result, seen = told(schedule=schedule)
    rounds = [(step, row) for step, row in seen if "round_edge" in row]
    assert [row["round_edge"] for _, row in rounds] == [found.edge for found in result.rounds]
    assert [row["round_name"] for _, row in rounds] == [found.name for found in result.rounds]
    assert [row["round"] for _, row in rounds] == [1 + i for i in range(len(result.rounds))]
    updates = [found.updates for found in result.rounds]
    wanted = torch.tensor(updates).cumsum(0).tolist() if schedule == "sequential" else updates
    assert [step for step, _ in rounds] == wanted


def test_blocks_are_told_while_they_train():
    result, seen = told()
    for number, found in enumerate(result.rounds, 1):
        losses = [row["train_loss"] for _, row in seen
                  if row.get("round") == number and "train_loss" in row]  # fmt: skip
        assert losses == [row["train_loss"] for row in found.curve]


def test_a_resumed_run_tells_no_round_twice(tmp_path):
    out = tmp_path / "run"
    whole = told()[1]
    parts = []
    for _ in range(20):
        result, seen = told(out=out, max_steps_now=4)
        parts += seen
        if result.status.name == "FINISHED":
            break
    edges = [row["round_edge"] for _, row in parts if "round_edge" in row]
    assert edges == [row["round_edge"] for _, row in whole if "round_edge" in row]
    assert [step for step, _ in parts] == sorted(step for step, _ in parts)
