"""A story says what was measured: change a number, and its sentence and verdict change with it."""

from copy import deepcopy
from functools import partial
from importlib import import_module
from json import dumps, loads
from pathlib import Path

import pytest
import test_baityjesi2018_claims as dynamics
import test_draxler2018_claims as barriers
import test_huang2018_claims as boosting
import test_katharopoulos2018_claims as importance
import test_li2018_claims as control
import torch

import lowland.connectivity as connectivity
from lowland.connectivity import Cycle, Schedule
from lowland.report.story import CAUSE, PREAMBLE, check_story
from lowland.reproduce import RECIPES
from lowland.reproduce.every_story import picture, said, verdicts
from lowland.reproduce.li2018_claims import DIAL
from lowland.reproduce.runs import mean
from lowland.reproduce.verdicts import because, claim
from lowland.results import Claim, Record, plain
from lowland.training import use_threads


def good(recipe):
    """Settings and parts that meet every claim that such small parts can show."""
    if recipe == "draxler2018":
        return barriers.SETTINGS | {"data": "digits"}, barriers.good_parts()
    if recipe == "katharopoulos2018":
        return importance.settings(), importance.good()
    room = {"baityjesi2018": dynamics, "huang2018": boosting, "li2018": control}[recipe]
    settings, parts = room.good()
    for one in parts.get("phases", ()):
        one["aging"]["lag"] = 100
        one["alone"] = [{"t2": t2, "loss_ratio": one["phases"]["loss_ratio"]} for t2 in (216, 220)]
    return settings, parts


@pytest.fixture
def told():
    """The story of made-up parts, and a list of the figures it may choose from."""
    names = ["text", "line-and-path", "displacement-digits", "sequences-seconds", "bounds-digits",
             "nonzero-digits"]  # fmt: skip

    def tell(recipe, settings, parts, drawn=tuple(names)):
        story_of = import_module(f"lowland.reproduce.{recipe}_story").tell
        judge = import_module(f"lowland.reproduce.{recipe}_claims").judge
        figures = [{"id": name} for name in drawn]
        settings, parts = loads(dumps(plain(settings))), loads(dumps(plain(parts)))
        kept = deepcopy((settings, parts))
        story = story_of(settings, parts, judge(settings, parts), figures)
        assert (settings, parts) == kept
        check_story({"story": story, "figures": figures}, Path("here"))
        assert loads(dumps(story, allow_nan=False)) == story
        return story

    return tell


# Sentences that follow from the numbers of the made-up parts by hand.
SENTENCES = {
    "draxler2018": [
        "2 networks (mlp) were trained on digits from different random starts; 3 paths join them.",
        "climbs to 0.900 (n = 3), from 0.00500 at the higher end.",
        "it reaches 0.00900 (n = 3) at most: 1.80 (n = 3) times the loss of the higher end (C1: "
        "met).",
        "rises by 0.800 (n = 3) percentage points, and the path is 1.40 (n = 3) times as long",
    ],
    "baityjesi2018": [
        "flat for 30 updates, falls until update 218.0 ± 2.8 (n = 2), then creeps down to 1 % (n "
        "= 2) of its first value (C1: met).",
        "in the same 100 updates it moves 5 times less",
        "by 0.800 (scatter of the logarithm; 0 if age did not matter), and by 0.300 once",
        "rises by 0 % (n = 1) of the first loss at most (C9: met).",
        "(digits-2, 1,000 weights) ends at 50 % (n = 2) of its first loss; its pace differs by "
        "0.300 from age to age, by 0.400 once it is divided by the noise (C6: met).",
        "in a time of 10 it moves 1.56 times less at age 10 than at age 1 (C7: met).",
    ],
    "katharopoulos2018": [
        "0.200 (n = 2) times as far from what all examples ask of them as with a random batch; "
        "drawn by the exact, slow measure, 0.20 times (C1: met).",
        "Fine-tuning (m on digits), for equal work: the training loss with chosen examples is "
        "0.502 (0.391 to 0.644) times that with shuffled ones (n = 3, with the 95 % interval): "
        "lower (C8: met).",
        "was right in 6 of the 6 comparisons with a clear outcome (C11: met).",
    ],
    "huang2018": [
        "Digits, 8 blocks grown one by one, 3 times: the training error falls from 1 % (n = 3) "
        "after the first block to 1 % (n = 3) after the last, and 24 of 24 blocks improved",
        "from 0.500 (n = 3) to 0.500 (n = 3) (below 1 it says something); in 0 cases the error "
        "lay above a bound (C2: met).",
        "98 % (n = 3) of the test images, 3.00 (n = 3) percentage points above ordinary",
        "0 (n = 3) percentage points above ordinary training of the same length in all (C7: met).",
        "keeps 11.7 times less in memory than an update of all blocks (C9: met).",
    ],
    "li2018": [
        "Digits: with weights of -1 and 1 the network is right on 98 % (n = 3) of the test images, "
        "with ordinary weights on 98 % (n = 3) (C5: met).",
        "4 % (n = 3) of the weights are not zero in the end, and it is right on 98 % (n = 3) (C6: "
        "met).",
        "told to keep 2 %, it keeps 2.01 % (n = 3) and is right on 97.8 % (n = 3), against 98 % "
        "(n = 3) without zeros (C6b: met).",
        "made 9 changes of a weight; 0 weights ended up other than",
    ],
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_numbers_by_hand(recipe, told):
    story = told(recipe, *good(recipe))
    text = "\n".join(story["measured"])
    for sentence in SENTENCES[recipe]:
        assert sentence in text
    assert "missed" not in text
    assert story["figure"] != "text"


def change(recipe):
    """One number made bad, and a sentence that must say so."""
    settings, parts = good(recipe)
    if recipe == "draxler2018":
        parts["runs"][0]["path"]["profile"]["train_loss"][1] = 0.04
        return settings, parts, "(C1: missed)"
    if recipe == "baityjesi2018":
        parts["phases"][0]["aging"]["fall"] = 2.0
        return settings, parts, "it moves 2 times less at the end"
    if recipe == "katharopoulos2018":
        for run in parts["races"]:
            run["train_loss"] = 0.1 / run["train_loss"]
        return settings, parts, "higher (C8: missed)"
    if recipe == "huang2018":
        for run in parts["runs"]:
            if run["way"] == "end to end":
                run["curve"] = [row | {"test_error": 0.01} for row in run["curve"]]
        return settings, parts, "1 (n = 3) percentage points below ordinary"
    for run in parts["runs"]:
        if run["arm"] == DIAL:
            run["test_accuracy"] = 97.0
    return settings, parts, "against 98 % (n = 3) without zeros (C6b: missed)"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bad_number_is_told(recipe, told):
    """The verdict beside a sentence is that of the claim."""
    settings, parts, expected = change(recipe)
    text = "\n".join(told(recipe, settings, parts)["measured"])
    assert expected in text
    assert "missed)" in text


EMPTY = {
    "baityjesi2018": {"runs", "phases", "exact", "simulated", "quenches", "flat", "widths"},
    "katharopoulos2018": {"races", "variance"},
    "huang2018": {"runs", "memory", "timing", "fitted", "collapse", "noise"},
    "li2018": {"runs"},
}


@pytest.mark.parametrize("recipe", EMPTY)
def test_parts_that_a_scale_leaves_out(recipe, told):
    """One by one, fewer sentences and never a wrong one; without any of them, one that says so."""
    settings, whole = good(recipe)
    sentences = told(recipe, settings, whole)["measured"]
    for name in EMPTY[recipe]:
        found = told(recipe, settings, whole | {name: []}, ("text",))
        assert found["figure"] == "text"
        assert len(found["measured"]) <= len(sentences)
    empty = whole | dict.fromkeys(EMPTY[recipe], []) | {"checks": None, "noise": []}
    empty["noise"] = None if recipe == "katharopoulos2018" else []
    nothing = ["Nothing that this story is about was measured at this scale."]
    assert told(recipe, settings, empty)["measured"] == nothing


def test_a_scale_that_judges_nothing(told):
    """Numbers are told all the same, beside the reason why there is no verdict."""
    settings, parts = good("baityjesi2018")
    text = "\n".join(told("baityjesi2018", settings | {"judged": False}, parts)["measured"])
    assert "(C1: not judged at this scale)" in text


def test_verdicts_of_several_networks(told):
    """A sentence is about the first; the verdict is about all, and says so."""
    settings, parts = good("baityjesi2018")
    parts["phases"].insert(1, deepcopy(parts["phases"][0]) | {"course": "cifar10-mlp"})
    text = "\n".join(told("baityjesi2018", settings, parts)["measured"])
    assert "(C1: met, of all 2 such networks)" in text


def test_a_file_that_was_weighed(told):
    settings, parts = good("li2018")
    row = {"kind": "entropy", "bytes": 100, "times_smaller": 40.0, "error": 4e-7, "weights": 1000}
    for number, run in enumerate(parts["runs"]):
        run["packing"] = [row, row | {"kind": "sparse16", "bytes": 200, "times_smaller": number}]
    text = "\n".join(told("li2018", settings, parts)["measured"])
    assert "the file of that network is 40 (n = 3) times smaller" in text
    assert "differ by 4.00 × 10⁻⁷ at most" in text


def test_the_picture_exists():
    """The first name that was drawn; a dash at the end stands for a family."""
    drawn = [{"id": "text"}, {"id": "bounds-depth"}, {"id": "memory"}]
    assert picture(drawn, "memory", "bounds-") == "memory"
    assert picture(drawn, "bounds", "bounds-digits", "bounds-") == "bounds-depth"
    assert picture(drawn, "race") == "text"


def test_words_that_are_shared():
    claims = [Claim("C1", "", "", "", verdict="met"), Claim("C2", "", "", "")]
    assert verdicts(claims, "C1", "C2") == " (C1: met; C2: not judged at this scale)"
    assert said(None, "One.", None) == ["One."]
    runs = [{"x": 1.0, "y": None}, {"x": 2.0, "y": 1.0}]
    assert (mean(runs, "x"), mean(runs, "y"), mean([], "x")) == (1.5, None, None)
    assert CAUSE in because("missed", "a cause.")  # where the page finds it


@pytest.mark.parametrize(
    ("truths", "verdict", "note"),
    [
        ([True, True], "met", "Note."),
        ([True, False], "missed", f"Note. {CAUSE} why."),
        ([], "not judged at this scale", "Note."),
    ],
)
def test_a_claim_is_met_if_every_part_of_its_rule_is(truths, verdict, note):
    found = claim("C1", "", "", "", [1.0, None], "m", truths, "Note.", "why.")
    assert (found.verdict, found.note, found.values) == (verdict, note, (1.0, None))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_code_runs_as_it_stands(recipe, monkeypatch, capsys):
    """After the names that the page shows; only the path is relaxed for fewer steps."""
    short = Schedule((Cycle(20, 0.1, insert="equal", count=3), Cycle(20, 0.1)))
    monkeypatch.setattr(connectivity, "find_path", partial(connectivity.find_path, schedule=short))
    code = import_module(f"lowland.reproduce.{recipe}_story").OWN
    assert len(code.splitlines()) <= 10
    assert code.startswith("# ")
    with torch.random.fork_rng(devices=[]), use_threads(1):
        namespace = {"__name__": "__main__"}
        exec(compile(PREAMBLE, "preamble", "exec"), namespace)
        exec(compile(code, recipe, "exec"), namespace)
    assert capsys.readouterr().out


def test_a_record_keeps_its_story(tmp_path):
    """Saved and loaded it is the same; a record from before there were stories has none."""
    record = Record("x2018", {}, "smoke", {}, [0], [], [], story={"claimed": "It holds."})
    file = record.save(tmp_path / "record.json")
    assert Record.load(file) == record
    values = loads(file.read_text())
    del values["story"]
    file.write_text(dumps(values))
    assert Record.load(file).story is None
