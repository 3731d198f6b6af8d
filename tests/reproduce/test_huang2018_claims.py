"""A claim of huang2018 is a function of a record: one number made bad, and the verdict flips."""

from copy import deepcopy

import pytest

from lowland.reproduce.huang2018_check_claims import SAVED
from lowland.reproduce.huang2018_claims import judge
from lowland.reproduce.huang2018_figures import draw
from lowland.reproduce.huang2018_numbers import at, curve_of, gaps, signed_square

NOT_JUDGED = "not judged at this scale"


def one_round(number, error=0.02, **more):
    """A round that meets everything."""
    values = {
        "name": f"block{number}", "status": "kept", "edge": 1 - 0.5**number, "gamma": 0.5,
        "alpha": 1.0, "loss": 0.5, "bounds": {"B0": 0.5, "B1": 0.6, "B2": 0.7},
        "covariance": -0.1, "holds_condition": True, "step_ratio": 0.5, "train_error": 0.01,
        "test_error": error, "bytes": 1000, "seconds": 1.0, "module_updates": 10,
    }  # fmt: skip
    return values | more


def boosted(growth="digits", seed=0, blocks=8, error=0.02):
    rounds = [one_round(number, error) for number in range(1, blocks + 1)]
    depths = [{"dtype": dtype, "error": 1e-16, "model": 1e-16} for dtype in ("float64", "float32")]
    return {
        "growth": growth, "way": "boosted", "seed": seed, "rounds": rounds, "depths": depths,
        "is_plain": True, "test_error": error, "test_accuracy": 100 * (1 - error),
        "train_accuracy": 99.0, "module_updates": 10 * blocks, "seconds": 1.0 * blocks,
        "status": "finished",
    }  # fmt: skip


def trained(way, growth="digits", seed=0, errors=(0.2, 0.05, 0.02), step=40):
    curve = [
        {"module_updates": step * n, "seconds": 4.0 * n, "train_error": 0.0, "test_error": error}
        for n, error in enumerate(errors, 1)
    ]
    return {
        "growth": growth, "way": way, "seed": seed, "curve": curve, "test_error": errors[-1],
        "test_accuracy": 100 * (1 - errors[-1]), "train_accuracy": 100.0, "seconds": 12.0,
        "module_updates": step * len(errors), "status": "finished",
    }  # fmt: skip


def good():
    runs = []
    for seed in range(3):
        runs += [
            boosted(seed=seed),
            trained("end to end", seed=seed),
            trained("refined", seed=seed, errors=(0.03, 0.02)),
            trained("AdaBoost.MM", seed=seed, errors=(0.1, 0.04), step=10),
        ]
    runs.append(boosted("depth", blocks=30))
    parts = {
        "runs": runs,
        "variants": [],
        "memory": [
            {"part": name, "MiB": 366.6} if name == "end to end" else
            {"part": name, "plain": SAVED.get(name, 31.3), "deep": 40.0, "downstream": 50.0}
            for name in [*SAVED, *(f"other {number}" for number in range(26 - len(SAVED)))]
        ],
        "timing": [
            {"cache": cache, "depths": [2, 20], "seconds": [1e-3, ratio * 1e-3], "ratio": ratio}
            for cache, ratio in (("host", 1.05), ("recompute", 4.0))
        ],
        "fitted": [
            {"kind": kind, "rows": [
                {"train_loss": loss, "train_error": 0.1, "test_error": 0.1, "edge": None,
                 "gamma": None}
                for loss in (0.3, 0.2, 0.1)
            ]}
            for kind in ("random features", "trees")
        ],
        "collapse": [
            {"init": "he", "rate": 1e-3, "blocks": 30, "train_error": 0.5, "test_error": 0.6,
             "spread": 1e3, "status": "finished", "curve": []}
        ],
        "noise": [
            {"seed": 0, "radius": radius, "clean_error": 0.1, "changed": 0.18,
             "bound": {"total": 1e6, "vacuous": True}, "rounds": [one_round(1)]}
            for radius in (None, 1.0)
        ],
    }  # fmt: skip
    return {"judged": True}, parts


def verdicts(settings, parts):
    return {claim.id: claim.verdict for claim in judge(settings, parts)}


def test_all_met():
    """All but C5 and C13, which are reported only."""
    found = verdicts(*good())
    assert found.pop("C5") == found.pop("C13") == NOT_JUDGED
    assert set(found.values()) == {"met"}
    assert len(found) == 11


def every(parts, way, **values):
    for run in parts["runs"]:
        if run["way"] == way and run["growth"] == "digits":
            run.update(values)


BAD = {
    "C1": lambda p: p["runs"][0]["depths"][0].update(model=2e-12),
    "C2": lambda p: p["runs"][0]["rounds"][3]["bounds"].update(B2=0.009),
    "C3": lambda p: p["runs"][0]["rounds"][3].update(gamma=0.3),
    "C4": lambda p: p["runs"][-1]["rounds"][4].update(test_error=0.009),
    "C6": lambda p: every(p, "end to end", curve=trained("", errors=(0.01, 0.01, 0.02))["curve"]),
    "C7": lambda p: every(p, "refined", test_error=0.0391),
    "C8": lambda p: every(p, "AdaBoost.MM", test_error=0.02),
    "C9": lambda p: p["memory"][2].update(plain=35.0),
    "C10": lambda p: p["timing"][0].update(ratio=1.21),
    "C11": lambda p: p["runs"][0].update(is_plain=False),
    "C12": lambda p: p["fitted"][1]["rows"][2].update(train_loss=0.2),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_number(name):
    """It flips its own claim and no other, and the miss has a cause."""
    settings, parts = good()
    BAD[name](parts)
    found = judge(settings, parts)
    assert [claim.id for claim in found if claim.verdict == "missed"] == [name]
    assert all("Likely cause" in claim.note for claim in found if claim.verdict == "missed")


def test_bytes_that_grow_with_depth():
    settings, parts = good()
    parts["runs"][0]["rounds"][5]["bytes"] = 1001
    assert verdicts(settings, parts)["C9"] == "missed"


def test_another_function_than_the_last_round():
    """C11 also wants the model to compute what the last round was measured on."""
    settings, parts = good()
    parts["runs"][0]["test_error"] = 0.03
    assert verdicts(settings, parts)["C11"] == "missed"


def test_void_bounds_prove_nothing():
    """None is no bound; a void one is not a violation."""
    settings, parts = good()
    parts["runs"][0]["rounds"][3]["bounds"] = {"B0": None, "B1": None, "B2": None}
    assert verdicts(settings, parts)["C2"] == "met"


def test_failures_of_the_printed_inequality_are_counted():
    """Only where the condition holds; they do not make C2 a miss."""
    settings, parts = good()
    parts["runs"][0]["rounds"][0]["step_ratio"] = 0.9
    parts["runs"][0]["rounds"][1].update(step_ratio=0.9, holds_condition=False)
    found = next(claim for claim in judge(settings, parts) if claim.id == "C2")
    assert found.verdict == "met"
    assert "fails in 1 of 53 rounds" in found.note


def test_short_runs_are_not_judged():
    """Theorems, costs and blocks without gradient are; accuracies and timings are not."""
    settings, parts = good()
    found = verdicts(settings | {"judged": False}, parts)
    met = [name for name, judged in found.items() if judged == "met"]
    assert met == ["C1", "C2", "C9", "C11", "C12"]
    empty = {name: [] for name in parts}
    assert set(verdicts(settings, empty).values()) == {NOT_JUDGED}


def test_images_ask_less_of_gamma():
    """C3 wants more than 0.1 on digits only."""
    settings, parts = good()
    run = boosted("cifar10", blocks=25)
    run["rounds"][3]["gamma"] = 0.01
    parts["runs"] = [run]
    assert verdicts(settings, parts)["C3"] == "met"
    run["rounds"][3]["gamma"] = -0.01
    assert verdicts(settings, parts)["C3"] == "missed"


def test_a_budget_between_two_measurements():
    """Accuracy is read along a line; before the first measurement it is the first one's."""
    run = trained("end to end")
    assert at(run, "module_updates", 60) == pytest.approx(0.125)
    assert at(run, "module_updates", 20) == 0.2
    assert at(run, "module_updates", 120) == 0.02
    assert at(run, "module_updates", 121) is None
    assert at(run, "seconds", 8.0) == pytest.approx(0.05)


def test_gaps_are_points_of_test_accuracy():
    """80 module updates of boosting are the second row of end to end."""
    runs = [boosted(), trained("end to end")]
    assert gaps(runs, "digits", "boosted", "end to end", "module_updates") == [pytest.approx(3.0)]
    assert gaps(runs, "digits", "boosted", "end to end") == [pytest.approx(0.0)]
    short = [boosted(), trained("end to end", errors=(0.2,))]
    assert gaps(short, "digits", "boosted", "end to end", "module_updates") == []


def test_curves_add_up():
    rows = curve_of(boosted(blocks=3))
    assert [row["module_updates"] for row in rows] == [10, 20, 30]
    assert [row["seconds"] for row in rows] == [1.0, 2.0, 3.0]
    assert signed_square(-0.5) == -0.25


def test_figures_of_the_same_numbers():
    """Refinement goes on where boosting ended; nothing is changed by drawing."""
    settings, parts = good()
    before = deepcopy(parts)
    figures = {figure["id"]: figure for figure in draw(settings, parts)}
    assert parts == before
    refined = figures["race-module-updates-digits"]["series"][2]
    assert refined["x"] == [80, 120, 160]
    rows = figures["ways"]["rows"]
    assert ["digits", "end to end, module updates of boosting"] in [row[:2] for row in rows]
    equal = next(row for row in rows if row[1] == "end to end, module updates of boosting")
    assert equal[5].startswith("95.00")
