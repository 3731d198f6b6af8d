"""Run the races of the recipe: tune, then every budget for every seed, each kept when finished."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn

from lowland.importance.compare import best_rate
from lowland.importance.race import race, steps_down
from lowland.reproduce.images import Images, losses
from lowland.reproduce.katharopoulos2018_settings import Race
from lowland.reproduce.katharopoulos2018_tasks import find_backbone, make_arm
from lowland.reproduce.kept import Kept

__all__ = ["flushed_denormals", "run_race"]

# Arms that are about cost do not run at equal steps.
ABOUT_COST = ("larger", "default")

# Arms whose modelled cost is proportional to their steps: equal cost is equal steps for them.
UNSCORED = ("uniform", "replacement", "subset")

# Arms that see the same noise as uniform batches take their learning rate.
TUNED_AS = {"replacement": "uniform", "subset": "uniform"}

# Share of the updates that tells how long all of them take, where nothing else has measured it.
PROBE = 0.01


def run_race(
    settings: Race, images: Images, seen: Images | None, kept: Kept, display: Any
) -> list[dict[str, Any]]:
    """Run one race; what is finished is not run again.

    Args:
        settings: The race.
        images: Its data.
        seen: What its backbone is trained on, if it has one.
        kept: Keeps finished parts.
        display: Progress display.

    Returns:
        One dict of plain values per seed, budget, arm and learning rate.
    """
    name = f"races/{settings.name}"
    trunk = find_backbone(settings, seen, kept.folder / name / "backbone", display)
    track = Track(settings, images, trunk, display)
    seeds = range(settings.seeds)
    grid = [*product(settings.grid, settings.rates)]
    found = {seed: run_clocks(track, kept, name, seed, grid) for seed in seeds}
    tuning = tune(track, kept, name)
    runs = []
    for seed in seeds:
        others = [run for other in seeds if other != seed for run in found[other]]
        rates = choose_rates(settings, tuning or others or found[seed])
        tuned = [(arm, rates[arm]) for arm in settings.tuned]
        more = run_clocks(track, kept, f"{name}/tuned", seed, tuned)
        timed = run_seconds(track, kept, name, seed, rates, found[seed] + more)
        every = found[seed] + more + timed
        runs += [run | {"is_tuned": run["rate"] == rates[run["arm"]]} for run in every]
    return runs


class Track:
    """A race with its data, ready to run with any arms.

    Attributes:
        settings: The race.
        images: Its data.
        trunk: The backbone, if there is one.
        display: Progress display.
    """

    def __init__(self, settings: Race, images: Images, trunk: nn.Module | None, display: Any):
        self.settings, self.images, self.trunk = settings, images, trunk
        self.display = display

    def run(
        self, seed: int, clock: str, budget: float, entries: Sequence[tuple[str, float]]
    ) -> list[dict[str, Any]]:
        """Run some arms under one budget.

        Args:
            seed: Of weights, order and draws.
            clock: The budget.
            budget: How much of it.
            entries: Arms and learning rates.

        Returns:
            One dict per arm.
        """
        if not entries:
            return []
        plan, images = self.settings, self.images
        limit: dict[str, Any] = {clock: round(budget) if clock == "steps" else budget}
        with flushed_denormals(is_on=plan.flush_denormals):
            results = race(
                [make_arm(plan, images, self.trunk, *entry, clock) for entry in entries],
                losses,
                images.training,
                seed=seed,
                schedule=steps_down(*plan.decay_at),
                evaluation_batches=images.reading,
                test_batches=images.testing,
                evaluations=plan.evaluations,
                slice_seconds=plan.turn,
                gradient_clip=plan.clip,
                precision=plan.precision,
                progress=self.display,
                **limit,
            )
        found = []
        for (name, rate), result in zip(entries, results, strict=True):
            values = result.record()
            if seed:  # the first seed is drawn turn by turn, the others are not
                values["trace"] = []
            label = {"race": plan.name, "seed": seed, "clock": clock, "arm": name, "rate": rate}
            found.append(label | {k: v for k, v in values.items() if k not in ("name", "clock")})
        return found


@contextmanager
def flushed_denormals(*, is_on: bool) -> Iterator[None]:
    """Let this thread's CPU take numbers below the smallest normal one for zero, in a block.

    Args:
        is_on: Whether to; otherwise nothing is set.

    Yields:
        Nothing.
    """
    if not is_on:
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def tune(track: Track, kept: Kept, name: str) -> list[dict[str, Any]]:
    """Run every arm at every learning rate, at equal modelled cost, on seeds of their own."""
    plan, runs = track.settings, []
    arms = dict.fromkeys((*plan.grid, *plan.tuned, *plan.clocked))
    entries = [*product([arm for arm in arms if arm not in TUNED_AS], plan.rates)]
    for number in range(plan.tuning_seeds):
        seed = 1000 + number
        run = partial(track.run, seed, "cost", plan.tuning_share * full_cost(plan), entries)
        runs += kept(f"{name}/tuning-{seed}", run)
    return runs


def choose_rates(plan: Race, runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Choose the learning rate of every arm by its mean loss at equal modelled cost.

    Args:
        plan: The race.
        runs: Those of other seeds.

    Returns:
        A rate for each arm; the first one for an arm that did not run there.
    """
    chosen = {}
    for arm in dict.fromkeys((*plan.grid, *plan.tuned, *plan.clocked)):
        like = TUNED_AS.get(arm, arm)
        mine = [run for run in runs if (run["arm"], run["clock"]) == (like, "cost")]
        losses_at = {
            rate: [run["train_loss"] for run in mine if run["rate"] == rate] for rate in plan.rates
        }
        chosen[arm] = best_rate(losses_at)
    return chosen


def full_cost(plan: Race) -> float:
    """Modelled cost of all uniform updates, in forward passes of one example."""
    return 3.0 * plan.steps * plan.task.batch_size


def run_clocks(
    track: Track, kept: Kept, name: str, seed: int, entries: Sequence[tuple[str, float]]
) -> list[dict[str, Any]]:
    """Run arms at equal steps and at equal modelled cost; what one has shown is copied."""
    plan, runs = track.settings, []
    if not entries:
        return []
    if "steps" in plan.clocks:
        some = [entry for entry in entries if entry[0] not in ABOUT_COST]
        run = partial(track.run, seed, "steps", plan.steps, some)
        runs += kept(f"{name}/{seed}-steps", run)
    if "cost" in plan.clocks:
        same = [run | {"clock": "cost"} for run in runs if run["arm"] in UNSCORED]
        done = [(run["arm"], run["rate"]) for run in same]
        left = [entry for entry in entries if entry not in done]
        runs += same + kept(
            f"{name}/{seed}-cost", partial(track.run, seed, "cost", full_cost(plan), left)
        )
    return runs


def run_seconds(
    track: Track,
    kept: Kept,
    name: str,
    seed: int,
    rates: dict[str, float],
    known: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Run arms at equal wall clock, each at its tuned rate."""
    plan = track.settings
    if "seconds" not in plan.clocks or not plan.clocked:
        return []

    def compute() -> list[dict[str, Any]]:
        budget = plan.seconds or seconds_of(track, seed, known, rates)
        return track.run(seed, "seconds", budget, [(arm, rates[arm]) for arm in plan.clocked])

    return kept(f"{name}/{seed}-seconds", compute)


def seconds_of(
    track: Track, seed: int, known: list[dict[str, Any]], rates: dict[str, float]
) -> float:
    """How long the uniform updates take on this machine."""
    plan = track.settings
    for run in known:
        if run["arm"] == "uniform":
            return run["seconds"] / run["steps"] * plan.steps
    steps = max(20, round(PROBE * plan.steps))
    probe = Track(replace(plan, evaluations=1), track.images, track.trunk, track.display)
    (run,) = probe.run(seed, "steps", steps, [("uniform", rates["uniform"])])
    return run["seconds"] / steps * plan.steps
