"""The short part of a page says what the records say, once, and leads to every detail."""

import json
import re
from html import unescape
from typing import Any

import pytest
from test_report_page import Tags, text_of

from conftest import example_record
from lowland.report import write_report
from lowland.report.records import find_records
from lowland.report.story import PREAMBLE, link_claims

STORY = {
    "claimed": "A bent path leads around the hill, from 0.0162 to 0.0324.",
    "measured": ["The line climbs to 0.90 ± 0.11 (n = 3).", "The path does not (C1: met; C8: no)."],
    "figure": "profile",
    "own": "# start, end: two networks\npath = find(model, start, end)\n\nif path < 2:\n    pass\n",
}


def with_story(recipe: str = "old2018", **more: Any) -> dict[str, Any]:
    """The example with a story and two of its figures: a table, which costs no drawing, and text.

    That of ``draxler2018`` has a picture instead of the text, and tells its story by that.
    """
    record: dict[str, Any] = example_record(recipe)
    drawn = recipe == "draxler2018"
    record["figures"] = [record["figures"][place] for place in ((0, 5) if drawn else (5, 6))]
    return record | {"story": STORY | {"figure": "profile" if drawn else "pairs"} | more}


def write(folder, records):
    for name, record in records.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "record.json").write_text(json.dumps(record))
    return write_report(folder).read_text()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two papers with a story, and one old record without; tests only read it."""
    folder = tmp_path_factory.mktemp("story")
    old = with_story("old2018")
    del old["story"]
    other = with_story("li2018", own="# other code\n")
    write(folder, {"a": with_story("draxler2018"), "b": other, "c": old})
    return folder


def test_stories_stand_first(two):
    """Claim, measurement, picture; then totals, misses, details, and code; each of them once."""
    page = (two / "report.html").read_text()
    text = text_of(page)
    parts = [STORY["claimed"], "The line climbs to 0.90 ± 0.11 (n = 3).", "All claims",
             "What was missed, and why", "In detail: Essentially", "Your own model"]  # fmt: skip
    places = [text.index(part, 300) for part in parts]
    assert places == sorted(places)
    assert text.count(STORY["claimed"]) == 2  # two of the three records tell it
    tags = Tags(page)
    identifiers = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {a["href"][1:] for a in tags.all("a") if a["href"].startswith("#")}
    assert targets <= set(identifiers)
    assert {"draxler2018-story", "li2018-own", "claims", "missed", "own", "old2018"} <= targets
    assert not tags.all("script")


def test_a_picture_is_there_once_with_its_numbers(two):
    """The story has it, and the details have all others; the CSV is beside it in both."""
    page = (two / "report.html").read_text()
    assert len(Tags(page).all("img")) == 1
    before = page.index('id="claims"')
    assert page.index('id="draxler2018-profile"') < before < page.index('id="draxler2018-pairs"')
    assert page.index("figures/draxler2018-profile.csv") < before
    assert "1 more pictures and tables" not in page
    assert "1 more picture or table" in page


def test_totals_add_up(two):
    """Three records with 5, 1 and 1 claims each: 15, 3 and 3."""
    text = text_of((two / "report.html").read_text())
    assert "15 claims met, 3 missed, 3 not judged at this scale." in text
    assert "All papers 15 3 3" in text
    assert "| **all papers** | 15 | 3 | 3 |" in (two / "report.md").read_text()


def test_misses_say_why(two, tmp_path):
    """All missed claims and no others, with the cause that their notes name."""
    page = (two / "report.html").read_text()
    missed = page[page.index('id="missed"') : page.index('id="draxler2018"')]
    assert re.findall(r"<b>(\w+)</b>", missed) == ["C8"] * 3
    record = with_story()
    record["claims"][4]["note"] = "Three pairs. Likely cause of the miss: noise & haste."
    text = text_of(write(tmp_path, {"x": record}))
    assert "n = 3). Three pairs. Why, we think noise & haste." in text
    record["claims"] = record["claims"][:2]
    text = text_of(write(tmp_path, {"x": record}))
    assert "No claim that could be judged was missed." in text


def test_sentences_lead_to_their_claims(two):
    """A claim that the record has is a link; another word of that form is not."""
    section = {"name": "n", "claims": [{"id": "C1"}, {"id": "C6b"}]}
    assert link_claims("C1, C2, C6b <i>", section) == (
        '<a href="#n-C1">C1</a>, C2, <a href="#n-C6b">C6b</a> &lt;i&gt;'
    )
    assert '(<a href="#li2018-C1">C1</a>: met;' in (two / "report.html").read_text()


def test_code_can_be_copied(two, tmp_path):
    """As it stands in the record, behind the names it goes by; once for runs that share it."""
    codes = re.findall(r"<pre><code>(.*?)</code></pre>", (two / "report.html").read_text(), re.S)
    assert unescape(codes[-2]) == STORY["own"].strip()
    assert PREAMBLE.strip() in [unescape(code) for code in codes]
    assert f"```python\n{STORY['own'].strip()}\n```" in (two / "report.md").read_text()
    page = write(tmp_path, {"x": with_story(), "y": with_story() | {"scale": "hour"}})
    assert page.count("find(model, start, end)") == 1
    assert page.count('href="#old2018-laptop-own"') == 2


def test_one_record_is_told_alike(tmp_path):
    """Without totals over papers; its other pictures lie open."""
    page = write(tmp_path, {".": with_story()})
    text = text_of(page)
    assert STORY["claimed"] in text
    assert "What was missed, and why" in text
    assert "All claims" not in text
    assert "more picture" not in text
    assert "More pictures" in text


def test_markdown_tells_the_same(two):
    text = (two / "report.md").read_text()
    assert f"**The paper claims.** {STORY['claimed']}" in text
    assert "- The path does not (C1: met; C8: no).\n" in text
    assert text.index("![Training loss between") < text.index("## All claims")
    assert "  - why, we think: " in text
    assert (
        text.index("## What was missed") < text.index("## In detail: ") < text.index("## Your own")
    )


def test_a_story_is_escaped(tmp_path):
    """It can put no tag into the page, wherever it stands."""
    bad = "<script>C1 alert(1)</script> C1"
    story = {"claimed": bad, "measured": [bad], "own": bad}
    record = with_story(**story)
    record["claims"][4] |= {"note": bad, "statement": bad}
    page = write(tmp_path, {"x": record, "y": with_story("li2018", **story)})
    assert not Tags(page).all("script")
    assert page.count("&lt;script&gt;") >= 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"claimed": 3}, "has no such claimed"),
        ({"measured": []}, "has no such measured"),
        ({"measured": "one"}, "has no such measured"),
        ({"measured": [" "], "own": ""}, "has no such own, measured"),
        ({"figure": "pie"}, "one of the record's figures, pairs, reading; that of .* is 'pie'"),
    ],
)
def test_a_story_that_cannot_be_told(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path, {".": with_story(**change)})


def test_a_story_must_be_a_mapping(tmp_path):
    with pytest.raises(ValueError, match="has no such claimed, figure, own, measured"):
        write(tmp_path, {".": with_story() | {"story": "once"}})


def test_a_picture_that_cannot_be_drawn(tmp_path):
    """The story stands all the same, beside the reason."""
    record = with_story("draxler2018")
    record["figures"][0]["series"][0]["y"] = [1.0]
    text = text_of(write(tmp_path, {".": record}))
    assert STORY["claimed"] in text
    assert text.count("This figure cannot be drawn") == 1


def test_what_a_restart_moved_aside_is_left_out(tmp_path):
    for name in ("run", "run.old-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text("{}")
    assert find_records(tmp_path) == [tmp_path / "run" / "record.json"]
    assert find_records(tmp_path / "run.old-1") == [tmp_path / "run.old-1" / "record.json"]
