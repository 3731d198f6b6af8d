"""The claims of Katharopoulos & Fleuret 2018, each as a function of what a run recorded."""

from statistics import fmean
from typing import Any

from lowland.importance.compare import compare
from lowland.reproduce.katharopoulos2018_numbers import CLOCKS, decisions, pick, ratio, word
from lowland.reproduce.katharopoulos2018_score_claims import (
    as_good_as_exact,
    cheap,
    few_lines,
    loss_can_hurt,
    pool_size,
    probabilities_match,
    switch_turns,
    variance_reduced_gradients,
)
from lowland.reproduce.runs import Runs
from lowland.reproduce.verdicts import claim
from lowland.results import Claim

__all__ = ["judge"]

# Seeds that a claim of "better" needs.
ENOUGH_SEEDS = 3


def judge(settings: dict[str, Any], parts: dict[str, Any]) -> list[Claim]:
    """Judge every claim of the specification.

    Args:
        settings: Plain settings of the recipe.
        parts: ``races``, ``variance``, ``noise`` and ``switch`` of a run.

    Returns:
        Claims C1 to C13; those that the scale cannot show are not judged.
    """
    runs, looks = parts["races"], parts["variance"]
    return [
        as_good_as_exact(settings, looks),
        probabilities_match(settings, looks),
        loss_can_hurt(settings, looks),
        cheap(looks),
        switch_turns(parts["switch"], settings, runs),
        lower_loss(settings, runs),
        lower_error(settings, runs),
        fine_tuning(settings, runs),
        sequences(settings, runs),
        pool_size(parts["noise"]),
        rule_decides(settings, runs),
        few_lines(parts["switch"]),
        variance_reduced_gradients(),
    ]


def faster(
    settings: dict[str, Any], runs: Runs, name: str, what: str = "train_loss"
) -> tuple[Any, tuple[float, ...]]:
    """The paper's arm over the uniform one under the budget that decides, tuned rates."""
    clock = settings["judged_by"]
    paper, uniform = (pick(runs, name, clock, arm) for arm in ("paper", "uniform"))
    found = ratio(paper, uniform, what)
    if found is None:
        return None, ()
    each = (compare([a[what]], [b[what]]).ratio for a, b in zip(paper, uniform, strict=True))
    return found, tuple(each)


def all_clocks(runs: Runs, race: str, what: str = "train_loss", over: str = "uniform") -> str:
    """The comparison under every budget, in words."""
    found = {
        words: ratio(pick(runs, race, clock, "paper"), pick(runs, race, clock, over), what)
        for clock, words in CLOCKS.items()
    }
    return "; ".join(f"{words}: {word(one)}" for words, one in found.items() if one) + "."


def lower_loss(settings: dict[str, Any], runs: Runs) -> Claim:
    """C6: lower training loss at equal wall clock."""
    factor = settings["factor"]
    data = {race["name"]: race["task"]["data"] for race in settings["races"]}
    names = [name for name, of in data.items() if of.startswith("cifar") and "images" in name]
    found = {name: faster(settings, runs, name) for name in names}
    need = {name: min(factor, 3.0) if data[name] == "cifar100" else factor for name in names}
    truths = [
        one is not None and 1 / one.ratio >= need[name] and one.is_below
        for name, (one, _) in found.items()
    ]
    truths = truths if all(one and one.n >= ENOUGH_SEEDS for one, _ in found.values()) else []
    cause = (
        "a budget that ends before most examples are learned, so that tau stays small; or steps "
        "so cheap that scoring costs more than the model says."
    )
    shown = " ".join(f"Importance / uniform, {n}: {all_clocks(runs, n)}" for n in names)
    note = shown or "Digits are no substitute: see the known counter-result among the figures."
    return claim(
        "C6",
        "At equal wall clock the training loss is far lower.",
        "more than 10 x lower (CIFAR-10), about 3 x (CIFAR-100)",
        f"uniform / importance ≥ {factor:g} with its 95 % interval above 1, paper's rule, tuned "
        "learning rates",
        tuple(1 / value for _, each in found.values() for value in each),
        "x lower",
        truths,
        note,
        cause,
    )


def lower_error(settings: dict[str, Any], runs: Runs) -> Claim:
    """C7: lower test error."""
    scale = settings["scale"] in ("gpu", "paper")
    found, each = faster(settings, runs, "images", "test_error") if scale else (None, ())
    return claim(
        "C7",
        "At equal wall clock the test error is lower.",
        "0.079 against 0.087 (CIFAR-10, -8 %), 0.32 against 0.34 (CIFAR-100, -5 %)",
        "test error, importance / uniform: 95 % interval below 1",
        each,
        "x uniform",
        [found.is_below] if found and found.n >= ENOUGH_SEEDS else [],
        all_clocks(runs, "images", "test_error") if each else "Needs the paper's network.",
        "too few seeds for a difference of this size.",
    )


def fine_tuning(settings: dict[str, Any], runs: Runs) -> Claim:
    """C8: fine-tuning gains most."""
    found, each = faster(settings, runs, "fine-tuning")
    clock = settings["judged_by"]
    arms = [pick(runs, "fine-tuning", clock, arm) for arm in ("paper", "uniform")]
    errors = [fmean(run["test_error"] for run in arm) for arm in arms if arm]
    truths = []
    if found is not None and found.n >= ENOUGH_SEEDS:
        truths = [found.is_below, errors[0] <= errors[1]]
    frozen = [pick(runs, "fine-tuning", "seconds", f"frozen-{arm}") for arm in ("paper", "uniform")]
    note = f"Training loss, importance / uniform: {all_clocks(runs, 'fine-tuning')}" if each else ""
    if each:
        note += f" Test error {100 * errors[0]:.2g} % against {100 * errors[1]:.2g} %."
    if all(frozen):
        note += f" With the trunk frozen, equal wall clock: {word(ratio(frozen[0], frozen[1]))}."
    return claim(
        "C8",
        "Fine-tuning reaches a lower training loss and test error in the same time.",
        "training loss 3.3e-3 against 7.8e-2, test error 28.1 % against 33.7 % (MIT67)",
        f"training loss, importance / uniform: 95 % interval below 1 at {CLOCKS[clock]}, and the "
        "mean test error is not higher",
        each,
        "x uniform",
        truths,
        note,
        unclear(found, "a task so near that noise limits nothing."),
    )


def unclear(found: Any, otherwise: str) -> str:
    """The cause of a miss: too few seeds, if the interval holds 1."""
    if found is None or found.is_below or found.is_above:
        return otherwise
    return f"the interval {word(found)} holds 1, so that it takes more seeds; or {otherwise}"


def sequences(settings: dict[str, Any], runs: Runs) -> Claim:
    """C9: an LSTM gains a little, sampling by loss hurts."""
    clock = settings["judged_by"]
    found, each = faster(settings, runs, "sequences")
    by_loss = ratio(
        pick(runs, "sequences", clock, "loss"), pick(runs, "sequences", clock, "uniform")
    )
    truths = []
    if found is not None and by_loss is not None and found.n >= ENOUGH_SEEDS:
        truths = [found.is_below, found.ratio < by_loss.ratio]
    note = ""
    if each:
        note = (
            f"Training loss, importance / uniform: {all_clocks(runs, 'sequences')} "
            f"By loss / uniform: {word(by_loss)}."
        )
    return claim(
        "C9",
        "A recurrent network reaches a lower loss; sampling by loss is worse.",
        "training loss 0.317 against 0.397, by loss 0.410; test error 0.1055 against 0.1139",
        f"training loss, importance / uniform: 95 % interval below 1 at {CLOCKS[clock]}, and "
        "smaller than by loss / uniform",
        each,
        "x uniform",
        truths,
        note,
        unclear(found, "a run that is limited by its number of steps."),
    )


def rule_decides(settings: dict[str, Any], runs: Runs) -> Claim:
    """C11: the paper's condition decides when sampling pays."""
    cases = decisions(settings, runs)
    decided = [case for case in cases if case["measured"] != "undecided"]
    right = [case["paper"] == (case["measured"] == "pays") for case in decided]
    two_stage = [case["two_stage"] == (case["measured"] == "pays") for case in decided]
    enough = all(race["seeds"] >= ENOUGH_SEEDS for race in settings["races"])
    note = ""
    if decided:
        note = (
            f"Of {len(cases)} cases {len(decided)} are decided (95 % interval); the paper's rule "
            f"is right in {sum(right)}, the two-stage rule in {sum(two_stage)}."
        )
    return claim(
        "C11",
        "B + 3b < 3 tau b decides whether importance sampling pays.",
        "a guaranteed speed-up (Section 3.3)",
        "in every decided case, at equal cost and at equal time: where the paper's rule ever "
        "switches on, the training loss falls below the uniform arm's; where it does not, it does "
        "not",
        tuple(case["loss_ratio"] for case in decided),
        "x uniform, decided cases",
        right if enough else [],
        note,
        "the rule leaves out the variance of the pool and looks at noise only, where a run may "
        "be limited by its number of steps.",
    )
