"""The pictures of Katharopoulos & Fleuret 2018, described in plain values for the report."""

from typing import Any

from lowland.report.figures import banded, lines, series, shown, text
from lowland.reproduce.katharopoulos2018_numbers import CLOCKS, RACES, common, pick, tuned_rate
from lowland.reproduce.katharopoulos2018_tables import arms, counter_result, noise, rules
from lowland.reproduce.katharopoulos2018_tasks import WORDS
from lowland.reproduce.runs import Runs

__all__ = ["draw"]

SCORES = {"bound": "bound", "last_layer": "last layer", "loss": "loss", "exact": "exact norm"}

# A color for each arm in every picture, and dashes for those that have it second.
COLORS = {
    "uniform": (0, "line"),
    "replacement": (0, "dashed"),
    "frozen-uniform": (0, "dashed"),
    "loss": (1, "line"),
    "history": (2, "line"),
    "subset": (2, "dashed"),
    "rank": (3, "line"),
    "larger": (3, "dashed"),
    "paper": (4, "line"),
    "frozen-paper": (4, "dashed"),
    "default": (5, "line"),
}

DIFFERENCES = text(
    "differences",
    "What is not as in the paper",
    "The uniform arm shuffles epochs, which is stronger than the paper's draws with "
    "replacement; both are in the tables.\n\n"
    "Evaluation and compilation are on nobody's clock; the official script's clock runs "
    "through its evaluations.\n\n"
    "Images are normalized by channel, not whitened (ZCA); augmentation is drawn anew in every "
    "epoch, and not once for 1.5 million images.\n\n"
    "Fine-tuning starts from a backbone that was trained here on other classes; ImageNet's "
    "ResNet-50 and MIT67 are not part of this library.\n\n"
    "The name of the paper's rule stands for independent draws, the printed threshold and, "
    "where the paper had it, the square root of tau that its third version retracts. Our "
    "defaults are systematic draws and the two-stage rule, with measured costs at equal wall "
    "clock and modelled ones elsewhere.",
)


def draw(settings: dict[str, Any], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe all figures."""
    runs, looks = parts["races"], parts["variance"]
    figures = []
    for number, race in enumerate(settings["races"]):
        figures.append(curves(runs, race, "seconds"))
        if number == 0 or not figures[-1]:
            figures.append(curves(runs, race, "steps"))
    figures += [counter_result(race, runs) for race in settings["races"][:1]]
    if looks:
        figures += [distances(looks), taus(looks), scatter(looks)]
    figures += [switch(settings, runs), rules(settings, runs)]
    if parts["noise"]:
        figures.append(noise(parts["noise"]))
    return shown([*figures, arms(settings, runs), DIFFERENCES])


def curves(runs: Runs, race: dict[str, Any], clock: str) -> dict[str, Any] | None:
    """Training loss against a clock, every arm at its tuned rate."""
    name, drawn = race["name"], []
    budget = clock if any(r["race"] == name and r["clock"] == clock for r in runs) else "seconds"
    for arm, (color, style) in COLORS.items():
        mine = pick(runs, name, budget, arm)
        curve = common(mine, clock)
        if curve["x"]:
            band = [curve["low"], curve["high"]]
            words = f"{WORDS[arm]}, rate {tuned_rate(mine)}"
            drawn.append(series(words, curve["x"], curve["y"], style, band=band, color=color))
    if not drawn:
        return None
    what = {"seconds": "seconds of training", "steps": "updates"}[clock]
    return lines(
        f"{name}-{clock}",
        f"{RACES.get(name, name)}: loss against {what}",
        f"Training loss of {race['task']['model']} on {race['task']['data']} at "
        f"{CLOCKS[budget]}, every arm at its tuned learning rate: geometric mean and range over "
        "the seeds. Evaluation and warm-up are on nobody's clock.",
        what,
        "training loss (nats per example)",
        drawn,
        y_log=True,
    )


def by_step(name: str, looks: Runs, number: Any, **more: Any) -> dict[str, Any]:
    """A number of every look, with its range over the seeds."""
    values: dict[int, list[Any]] = {}
    for look in sorted(looks, key=lambda look: look["step"]):
        values.setdefault(look["step"], []).append(number(look))
    known = {step: each for step, each in values.items() if None not in each}
    return banded(name, list(known), [*known.values()], **more)


def distances(looks: Runs) -> dict[str, Any]:
    """Figure 1 of the paper."""
    return lines(
        "distances",
        "How much variance each score takes away",
        "Mean distance between the gradient of a drawn batch and that of its pool, relative to "
        "uniform draws, in the course of a training with uniform batches (Figure 1 of the paper). "
        "Independent draws, as in the paper; mean and range over the seeds.",
        "updates",
        "distance / uniform",
        [
            by_step(words, looks, lambda look, name=name: look["distance"][name])
            for name, words in SCORES.items()
        ],
        marks=[{"x": None, "y": 1.0, "text": "uniform"}],
    )


def taus(looks: Runs) -> dict[str, Any]:
    """How much there is to gain."""
    return lines(
        "tau",
        "Tau grows as most examples are learned",
        "Equivalent batch of the bound and of exact gradient norms (third version's formula) in "
        "the same training.",
        "updates",
        "tau",
        [
            by_step("bound", looks, lambda look: look["tau_bound"]),
            by_step("exact norm", looks, lambda look: look["tau_exact"], style="dashed"),
        ],
        y_log=True,
    )


def scatter(looks: Runs) -> dict[str, Any]:
    """Figure 2 of the paper."""
    steps = sorted({look["step"] for look in looks})
    chosen = steps[min(len(steps) - 1, max(1, len(steps) // 2))]
    look = next(look for look in looks if look["step"] == chosen)
    drawn, smallest = look["shown"], 1e-6
    kept = [
        row
        for row in zip(drawn["exact"], drawn["bound"], drawn["loss"], strict=True)
        if min(row) > smallest
    ]
    x, bound, loss = (list(column) for column in zip(*kept, strict=True))
    ends = [min(x), max(x)]
    return lines(
        "probabilities",
        "The bound knows which examples matter",
        f"Sampling probability of single examples times the pool size, against the ideal one by "
        f"exact gradient norms, after {chosen} updates (Figure 2 of the paper).",
        "ideal probability x pool",
        "probability x pool",
        [
            series("loss", x, loss, "points"),
            series("bound", x, bound, "points"),
            series("ideal", ends, ends, "dashed"),
        ],
        x_log=True,
        y_log=True,
    )


def switch(settings: dict[str, Any], runs: Runs) -> dict[str, Any]:
    """Tau and the switch over the steps of one run of each race."""
    drawn = []
    for number, race in enumerate(settings["races"]):
        for clock in CLOCKS:
            found = pick(runs, race["name"], clock, "paper")
            if found and found[0]["trace"]:
                break
        else:
            continue
        run, root = found[0], race["rule"] == "v1"
        steps = [row[0] / run["steps"] for row in run["trace"]]
        tau = [(row[3] or 0.0) ** (2 if root else 1) or None for row in run["trace"]]
        turns = [(0, False), *run["switches"]]
        on = [[is_on for step, is_on in turns if step <= row[0]][-1] for row in run["trace"]]
        active = [t if is_on else None for t, is_on in zip(tau, on, strict=True)]
        words = str(RACES.get(race["name"], race["name"])).lower()
        drawn.append(series(f"{words}: tau", steps, tau, "dashed", color=number))
        drawn.append(series(f"{words}: on", steps, active, color=number))
    return lines(
        "switch",
        "When the switch turns",
        "Running tau (as a variance ratio, third version's formula) over the first seed of each "
        "race, paper's rule and thresholds; drawn through while importance sampling is on.",
        "share of the updates",
        "tau",
        drawn,
        y_log=True,
    )
