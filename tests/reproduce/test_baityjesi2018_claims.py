"""A claim of baityjesi2018 is a function of a record: one number made bad, the verdict flips."""

from copy import deepcopy

import pytest

from lowland.reproduce.baityjesi2018_claims import judge
from lowland.reproduce.baityjesi2018_figures import draw
from lowland.reproduce.baityjesi2018_numbers import analyze, at_lag, mean_curves, normalized
from lowland.reproduce.baityjesi2018_published import LOSS, NOISE, compare

NOT_JUDGED = "not judged at this scale"


def course(name="digits", kind="over"):
    """What is read off a course that meets everything."""
    score = {"raw": 0.8, "over_noise": 0.3, "over_integral": 0.4}
    aging = {"exponent": 0.6, "low": 0.5, "high": 0.7, "score": 0.1}
    phases = {
        "t1": 30.0, "t2": 220.0, "t1_interval": [28.0, 33.0], "t2_interval": None,
        "t1_threshold": 14.0, "t2_threshold": 880.0, "bic_gain": 100.0, "loss_ratio": 0.01,
        "loss_gained_late": 0.05,
        "scores": {"before_t1": score | {"raw": 0.05}, "after_t2": score, "all": score},
        "aging": dict.fromkeys(("between", "after_t2", "all"), aging),
        "plateau": {"after_t2": False},
    }  # fmt: skip
    return {
        "course": name, "kind": kind, "params": 1000, "seeds": 3, "phases": phases, "alone": [],
        "aging": {"fall": 5.0}, "short": {"spread": 10.0},
        "late": [{"wait": 300, "exponents": [{"from": 1, "to": 10, "exponent": 1.2}]}],
        "cloned": [{"wait": 300, "from": 10.0, "to": 100.0, "clone": 0.2, "raw": 1.4,
                    "clone_last": 1e-7, "raw_last": 1e-5}],
    }  # fmt: skip


def narrow():
    found = course("digits-2", "under")
    found["phases"] |= {"loss_ratio": 0.5}
    found["phases"]["scores"] = {
        "before_t1": {}, "after_t2": {"raw": 0.3, "over_noise": 0.4, "over_integral": 0.4}
    }  # fmt: skip
    return found


def glass(temperature):
    lags = [0.1, 1.0, 10.0, 30.0]
    return {
        "temperature": temperature, "order": 3, "times": [1.0, 10.0, 50.0],
        "energy": [-0.78, -1.08, -1.13], "limit": -1.1547, "threshold": -1.1547, "plateau": 0.72,
        "decay": 0.67, "negative": [0.4, 0.1, 0.01], "short": [0.09, 0.087, 0.0869, 0.0868],
        "curves": [{"wait": w, "lag": lags, "displacement": [0.09, 0.4, d, 1.8]}
                   for w, d in ((1.0, 1.4), (5.0, 1.0), (10.0, 0.9))],
    }  # fmt: skip


def counts(step, share):
    count = {"eps": 1e-3, "flat": share * 1000, "negative": 0, "error": 0.0, "reliable": True}
    return {
        "course": "digits-16", "seed": 0, "step": step, "params": 1000, "largest": 1.0,
        "counts": {name: dict(count) for name in ("age", "fixed", "relative")},
    }  # fmt: skip


def good():
    lines = [
        {"from": a, "to": b, "at": [0, 1], "loss": [0.02, 0.01], "bump": 0.0}
        for a, b in ((100, 1000), (1000, 5000))
    ]
    quench = {
        "course": "digits", "kind": "over", "seed": 0, "first": 2.3, "t2": 220.0, "lines": lines,
        "rows": [{"wait": w, "before": 0.02, "after": 0.02} for w in (100, 1000, 5000)],
        "path": {"from": 100, "to": 5000, "best_cycle": 0, "at": [0, 1], "loss": [0.02, 0.02],
                 "bump": 0.0, "straight": 0.01},
    }  # fmt: skip
    widths = [
        {"width": w, "seed": s, "params": 75 * w + 10, "first": 2.3, "last": 2.3 * r, "error": r}
        for s in (0, 1)
        for w, r in ((1, 0.7), (2, 0.5), (4, 0.1), (8, 0.02), (64, 0.01))
    ]
    parts = {
        "runs": [], "phases": [course(), narrow(), course("toy", "toy")],
        "exact": [glass(0.0), glass(0.5)], "simulated": [], "quenches": [quench],
        "flat": [counts(0, 0.7), counts(3000, 0.8)], "widths": widths, "published": [],
    }  # fmt: skip
    return {"judged": True}, parts


def verdicts(settings, parts):
    return {claim.id: claim.verdict for claim in judge(settings, parts)}


def test_all_met():
    """All but C11, which takes a second data set."""
    found = verdicts(*good())
    assert found.pop("C11") == NOT_JUDGED
    assert set(found.values()) == {"met"}
    assert len(found) == 12


def phases(parts, place=0):
    return parts["phases"][place]["phases"]


BAD = {
    "C1": lambda p: phases(p).update(bic_gain=-1.0),
    "C2": lambda p: phases(p)["scores"]["before_t1"].update(raw=0.11),
    "C3": lambda p: p["phases"][0]["aging"].update(fall=2.9),
    "C4": lambda p: phases(p)["scores"]["after_t2"].update(over_noise=0.61),
    "C5": lambda p: phases(p)["plateau"].update(after_t2=True),
    "C6": lambda p: phases(p, 1)["scores"]["after_t2"].update(over_noise=0.29),
    "C7": lambda p: p["exact"][0].update(decay=0.3),
    "C8": lambda p: p["phases"][0]["short"].update(spread=1.9),
    "C9": lambda p: p["quenches"][0]["lines"][1].update(bump=0.024),
    "C10": lambda p: p["flat"][1]["counts"]["age"].update(flat=690.0),
    "C12": lambda p: phases(p, 2)["scores"]["before_t1"].update(raw=0.4),
    "C13": lambda p: p["widths"][4].update(last=0.3),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_number_flips_one_verdict(name):
    settings, parts = good()
    parts = deepcopy(parts)
    BAD[name](parts)
    found = {claim.id: claim for claim in judge(settings, parts)}
    assert found[name].verdict == "missed"
    assert "Likely cause" in found[name].note
    others = {key for key, claim in found.items() if claim.verdict == "missed"} - {name}
    assert not others


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda p: phases(p).update(t1=61.0), "C1"),
        (lambda p: phases(p).update(t2=501.0), "C1"),
        (lambda p: phases(p, 1).update(loss_ratio=0.19), "C6"),
        (lambda p: p["exact"][1]["short"].__setitem__(2, 0.0926), "C7"),
        (lambda p: p["quenches"][0]["rows"][1].update(after=0.044), "C9"),
        (lambda p: p["quenches"][0]["path"].update(bump=0.024), "C9"),
        (lambda p: p["exact"][0].update(negative=[0.1, 0.2]), "C10"),
    ],
)
def test_other_ways_to_miss(change, name):
    settings, parts = good()
    parts = deepcopy(parts)
    change(parts)
    assert verdicts(settings, parts)[name] == "missed"


def test_bumps_before_t2_and_in_narrow_networks_do_not_count():
    settings, parts = good()
    parts["quenches"][0]["lines"][0]["bump"] = 1.0
    parts["quenches"].append(
        deepcopy(parts["quenches"][0]) | {"course": "digits-2", "kind": "under"}
    )
    parts["quenches"][1]["lines"][1]["bump"] = 1.0
    assert verdicts(settings, parts)["C9"] == "met"


def test_unreliable_counts_are_not_judged():
    settings, parts = good()
    for row in parts["flat"]:
        for count in row["counts"].values():
            count["reliable"] = False
    assert verdicts(settings, parts)["C10"] == NOT_JUDGED


def test_everywhere_takes_two_data_sets():
    settings, parts = good()
    parts["phases"].append(course("mnist-conv"))
    assert verdicts(settings, parts)["C11"] == "met"
    parts["phases"][-1]["aging"]["fall"] = 1.0
    assert verdicts(settings, parts)["C11"] == "missed"


def test_the_published_course_is_judged_by_its_table_only():
    settings, parts = good()
    bad = course("published")
    bad["phases"]["bic_gain"] = -1.0
    parts["phases"].append(bad)
    assert verdicts(settings, parts)["C1"] == "met"


def test_nothing_to_judge():
    settings, parts = good()
    assert set(verdicts({"judged": False}, parts).values()) == {NOT_JUDGED}
    empty = dict.fromkeys(parts, [])
    assert set(verdicts(settings, empty).values()) == {NOT_JUDGED}
    assert [figure["id"] for figure in draw(settings, empty)] == ["differences"]


def diffusing(noise=lambda step: 1.0, drift=0.0):
    """A run whose displacement is noise times lag, exactly."""
    waits = [0, *(2**k for k in range(11))]
    lags = [1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 100, 200, 500]
    steps = [0, *(2**k for k in range(12))]
    return {
        "course": "walk", "kind": "over", "seed": 0, "params": 100,
        "losses": [{"step": n, "loss": 2.3 / (1 + n / 50) ** 2, "error": 0.1} for n in steps],
        "noise": [{"step": n, "trace": noise(n)} for n in steps],
        "curves": [{"wait": w, "lag": lags, "kurtosis": [3.0] * len(lags),
                    "displacement": [noise(w) * t + drift * t**2 for t in lags]} for w in waits],
        "clones": [{"wait": 64, "lag": lags, "displacement": lags, "displacement_se": lags,
                    "raw": [t + t**2 for t in lags]}],
    }  # fmt: skip


def test_a_walk_with_falling_noise_collapses():
    """Delta = D(tw) t: raw curves scatter, divided ones do not; all exponents are 1."""
    found = analyze([diffusing(lambda n: 1 / (1 + n))], samples=2)
    late = found["phases"]["scores"]["after_t2"]
    assert late["over_noise"] == pytest.approx(0, abs=1e-9)
    assert late["raw"] > 0.3
    for one in found["late"]:
        assert all(e["exponent"] == pytest.approx(1) for e in one["exponents"])
    (clone,) = found["cloned"]
    assert clone["clone"] == pytest.approx(1)
    assert 1.9 < clone["raw"] < 2
    assert found["short"]["spread"] == pytest.approx(1025)


def test_means_over_seeds():
    first, second = diffusing(), diffusing(lambda n: 3.0)
    assert mean_curves([first, second])[4]["displacement"][2] == pytest.approx(2 * 3)
    assert normalized([first, second])[4]["displacement"][2] == pytest.approx(3)
    curve = first["curves"][0]
    assert at_lag(curve, 40) == pytest.approx(40)
    assert at_lag(curve, 0.5) is None
    assert at_lag(curve, 501) is None


def test_the_published_run_beside_itself():
    """Displacements and noise that the specification lists give back its ratios."""
    run = diffusing() | {"course": "published", "params": 56_890}
    run["losses"] = [{"step": n, "loss": x, "error": 1 - a} for n, x, a in LOSS]
    run["noise"] = [{"step": w, "trace": d} for w, d, *_ in NOISE]
    run["curves"] = [
        {
            "wait": wait,
            "lag": [10, 100],
            "displacement": [short * 1e-8, ratio * 1e-4 * trace * 100 / 56_890],
        }
        for wait, trace, short, _, ratio in NOISE
    ]
    rows = compare([run])
    assert len(rows) == 2 * len(LOSS) + 4 * len(NOISE)
    for row in rows:
        assert row["ours"][0] == pytest.approx(row["published"], rel=0.06), row
    assert compare([]) == []
