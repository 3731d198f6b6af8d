"""Where importance sampling wins on wall clock, and where it loses: two races on one thread.

python benchmarks/importance_wall_clock.py [--settings mnist digits] [--seeds 5] [--out FILE]

Both arms see the same rows of a shuffled loader in the same order; the learning rate of each arm is
tuned on a seed of its own. mnist wants $LOWLAND_DATA.
"""

import argparse
from dataclasses import dataclass

import torch
from timing import table
from torch import nn

from lowland.data import Batches, load
from lowland.importance import ImportanceSampling, UniformSampling
from lowland.importance.compare import best_rate, compare
from lowland.importance.race import Arm, race, steps_down
from lowland.models import build
from lowland.results import environment, write_json

TUNING_SEED = 1000
loss_fn = nn.CrossEntropyLoss(reduction="none")


@dataclass(frozen=True)
class Setting:
    """A problem and its budget.

    Attributes:
        data: Data set.
        model: Architecture.
        batch_size: Images per batch.
        seconds: Of each arm and seed.
        rates: Learning rates to choose from.
        presample: Pool over batch.
    """

    data: str
    model: str
    batch_size: int
    seconds: float
    rates: tuple[float, ...]
    presample: float


SETTINGS = {
    # many examples, soon known; the backward pass and the update of large layers are the cost
    "mnist": Setting("mnist", "mlp-784-512-512-10", 32, 30.0, (0.02, 0.05, 0.1), 5),
    # few examples, seen often in a reshuffled order; a step is mostly the framework's own time
    "digits": Setting("digits", "mlp-64-128-128-10", 32, 1.5, (0.05, 0.1, 0.2, 0.4), 3),
}


def main() -> None:
    """Tune, race, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, records = [], []
    for name in arguments.settings:
        records.append(run(name, SETTINGS[name], arguments.seeds))
        rows.append([name, *records[-1]["summary"].values()])
        print(table(["setting", *records[-1]["summary"]], rows), flush=True)
        if arguments.out:
            write_json(arguments.out, {"environment": environment(), "rows": records})


def run(name: str, setting: Setting, seeds: int) -> dict:
    """Both arms of a setting, on all seeds."""
    found = load(setting.data)
    tests = Batches(found.test_images, found.test_labels, 1000, shuffle=False)
    reading = Batches(found.images, found.labels, 1000, shuffle=False).subset(10000)

    def batches(seed: int) -> Batches:
        return Batches(found.images, found.labels, setting.batch_size, seed=seed)

    def arm(kind: str, rate: float) -> Arm:
        def make(seed: int):
            model = build(setting.model, in_shape=found.in_shape, seed=seed)
            optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
            if kind == "uniform":
                return model, optimizer, UniformSampling(loss_fn)
            chooser = ImportanceSampling(model, loss_fn, presample=setting.presample, seed=seed)
            return model, optimizer, chooser

        return Arm(kind, make)

    def go(rates: dict[str, float], seed: int) -> dict:
        results = race(
            [arm(kind, rate) for kind, rate in rates.items()],
            loss_fn,
            batches,
            seconds=setting.seconds,
            seed=seed,
            schedule=steps_down(0.5, 0.8),
            evaluation_batches=reading,
            test_batches=tests,
            evaluations=5,
        )
        return {result.name: result.record() for result in results}

    kinds = ("uniform", "importance")
    trials = {rate: go(dict.fromkeys(kinds, rate), TUNING_SEED) for rate in setting.rates}
    rates = {
        kind: best_rate({rate: [found[kind]["train_loss"]] for rate, found in trials.items()})
        for kind in kinds
    }
    runs = [go(rates, seed) for seed in range(seeds)]
    loss, error = (
        compare([r["importance"][what] for r in runs], [r["uniform"][what] for r in runs])
        for what in ("train_loss", "test_error")
    )
    summary = {
        "rate uniform": rates["uniform"],
        "rate importance": rates["importance"],
        "train loss, importance / uniform": interval(loss),
        "test error, likewise": interval(error),
        "n": seeds,
    }
    tuning = {str(rate): {k: v["train_loss"] for k, v in t.items()} for rate, t in trials.items()}
    shown = ("train_loss", "test_error", "steps", "active_share", "seconds", "switches", "status")
    plain = [{kind: {s: r[kind][s] for s in shown} for kind in kinds} for r in runs]
    return {
        "setting": name, "values": vars(setting), "tuning": tuning, "summary": summary,
        "comparison": {"train_loss": vars(loss), "test_error": vars(error)}, "runs": plain,
    }  # fmt: skip


def interval(found) -> str:
    """A ratio with its 95 % interval."""
    return f"{found.ratio:.3g} ({found.low:.3g} to {found.high:.3g})"


if __name__ == "__main__":
    main()
