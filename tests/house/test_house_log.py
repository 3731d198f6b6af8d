"""Drivers that take ``log`` tell their learning curve while it comes, and change nothing by it."""

import inspect
import json

import pytest
from rooms import driven
from trials import loader, timeless

from lowland.results import Status
from small_networks import losses, norm_mlp, seeded

pytestmark = [
    pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning"),
    pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning"),
]


def takes_a_log(driver):
    """By its own name, or among the arguments of ``train`` that it hands on."""
    parameters = inspect.signature(driver).parameters
    return "log" in parameters or "training" in parameters


LOGGED = [(driver, call) for driver, call in driven() if takes_a_log(driver)]


@pytest.mark.parametrize(
    ("driver", "call"), LOGGED, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_every_row_is_told(driver, call):
    """Plain finite values, at steps that never go back; the record is that of a run without."""
    seen = []
    result = call(
        seeded(norm_mlp, 1), losses, loader(), log=lambda values, step: seen.append((step, values))
    )
    assert result.status in (Status.FINISHED, Status.CONVERGED)
    steps = [step for step, _ in seen]
    assert steps == sorted(steps)
    assert steps[-1] > 0
    for step, values in seen:
        assert values["step"] == step
        assert json.loads(json.dumps(values, allow_nan=False)) == values
    without = call(seeded(norm_mlp, 1), losses, loader())
    assert timeless(result.record()) == timeless(without.record())
