"""When the switch turns, on scores that are put in, and how many lines the method costs."""

from difflib import SequenceMatcher
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland import importance
from lowland.importance import ImportanceSampling
from lowland.models import build

__all__ = ["changed_lines", "first_active", "measure_switch"]

ROWS = 32
STEPS = 60
SMOOTHING = 0.9
# tau of the scores that are put in, and the threshold: oracle O4 of the specification, and one
# that lies between tau and the threshold for ever
CASES = ((3.0, 2.0), (1.6, 1.5), (1.4, 1.5))


def measure_switch() -> dict[str, Any]:
    """Put in scores with a known tau, and losses whose scores are all alike.

    Returns:
        For each case tau, threshold, and the first active step as it is predicted and as it came;
        the active steps with an L1 loss; and the lines that the method adds to a loop.
    """
    cases = []
    for tau, threshold in CASES:
        steps = run_switch(injected(tau), nn.CrossEntropyLoss(reduction="none"), threshold)
        cases.append(
            {
                "tau": tau,
                "threshold": threshold,
                "predicted": first_active(tau, threshold),
                "measured": next((n for n, active in enumerate(steps, 1) if active), None),
            }
        )
    useless = run_switch("bound", absolute_error, None)
    return {
        "cases": cases,
        "useless_steps": len(useless),
        "useless_active": sum(useless),
        "lines": changed_lines(readme()),
    }


def first_active(tau: float, threshold: float, smoothing: float = SMOOTHING) -> int | None:
    r"""The first step with importance sampling on, if every batch has the same tau.

    After n updates from zero the running mean is :math:`\tau (1 - a^n)`; step n + 1 is on once
    that exceeds the threshold.

    Args:
        tau: Of every batch.
        threshold: Of the switch.
        smoothing: Factor a of the running mean.

    Returns:
        The step, counted from 1; None if there is none.
    """
    if tau <= threshold:
        return None
    mean, updates = 0.0, 0
    while mean <= threshold:
        mean, updates = smoothing * mean + (1 - smoothing) * tau, updates + 1
    return updates + 1


def injected(tau: float) -> Any:
    """A score with the given tau for any batch: equal on one part, zero on the rest."""

    def score(output: Tensor, target: Tensor) -> Tensor:
        # two values a, b half and half have tau = 2 (a^2 + b^2) / (a + b)^2 ≤ 2; more by zeros
        count = len(target)
        values = torch.zeros(count, dtype=torch.float64)
        some = min(count, int(2 * count / tau) // 2 * 2)
        values[:some] = spread(some, tau * some / count)
        return values

    return score


def spread(count: int, tau: float) -> Tensor:
    """Two values half and half, with mean 1 and the given tau ≤ 2."""
    width = (tau - 1) ** 0.5
    return torch.cat([torch.full((count // 2,), 1 + width), torch.full((count // 2,), 1 - width)])


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """L1 loss: all its scores are alike, so there is nothing to choose by."""
    return (output - nn.functional.one_hot(target, output.shape[1])).abs().mean(1)


def run_switch(score: Any, loss_fn: Any, threshold: float | None) -> list[bool]:
    """Which steps of a short training are on."""
    model = build("mlp-4-3", classes=3, in_shape=(4,))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    sampling = ImportanceSampling(
        model, loss_fn, score=score, decision="paper", tau_threshold=threshold, smoothing=SMOOTHING
    )
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 4, generator=draws)
    y = torch.randint(3, (ROWS,), generator=draws)
    found = []
    while len(found) < STEPS:
        for inputs, target in sampling([(x, y)] * 30):
            sampling.loss(model(inputs), target).backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(bool(sampling.is_active))
    return found[:STEPS]


def changed_lines(blocks: tuple[str, str]) -> int:
    """Count the lines that the method adds to a loop or changes in it.

    Args:
        blocks: The loop without and with importance sampling.

    Returns:
        Lines of the second that are not in the first, imports, blank ones and comments left out.
    """
    plain, changed = (lines_of(block) for block in blocks)
    parts = SequenceMatcher(None, plain, changed, autojunk=False).get_opcodes()
    return sum(max(j2 - j1, i2 - i1) for tag, i1, i2, j1, j2 in parts if tag != "equal")


def lines_of(block: str) -> list[str]:
    """Lines of code, without imports and comments."""
    lines = [line.split("#")[0].rstrip() for line in block.splitlines()]
    return [line for line in lines if line and not line.lstrip().startswith(("import ", "from "))]


def readme() -> tuple[str, str]:
    """The two loops of the room's README: under "Plain", and under "With importance sampling"."""
    text = Path(str(importance.__file__)).with_name("README.md").read_text(encoding="utf-8")
    return block_after(text, "Plain"), block_after(text, "With importance sampling")


def block_after(text: str, heading: str) -> str:
    """The first python block after a line that begins with a heading."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.lstrip("#* ").lower().startswith(heading.lower()):
            break
    for line in lines:
        if line.startswith("```python"):
            return "\n".join(takewhile(lambda line: not line.startswith("```"), lines))
    raise ValueError(f"the README of the room must show a python block under {heading!r}.")
