"""The page says what the record says: every claim, number and figure, offline, twice the same."""

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser

import pytest

from conftest import example_record
from lowland.report import write_report

PICTURES = ("profile", "cycles", "slice", "learning", "minimax")


class Tags(HTMLParser):
    """Collects every tag with its attributes, and refuses tags that do not close in order."""

    VOID = ("meta", "img", "source", "br", "col")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def text_of(page: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_every_claim_stands_on_the_page_with_its_verdict(folder, record):
    """Misses as openly as hits: statement, paper, ours, rule, verdict in words, note."""
    text = text_of((folder / "report.html").read_text())
    for claim in record["claims"]:
        for key in ("id", "statement", "paper", "rule", "note", "verdict"):
            assert claim[key] in text
    assert "5 of 6 judged claims met, 1 missed; 1 not judged at this scale." in text
    assert "0.00240 ± 0.00030 nats n = 3: 0.00210, 0.00240, 0.00270" in text
    assert record["command"] in text
    assert "Essentially No Barriers in Neural Network Energy Landscape" in text
    assert "F. Draxler, K. Veschgini, M. Salmhofer, F. A. Hamprecht (2018)" in text


def test_the_page_is_one_file_without_scripts(folder):
    """Nothing is loaded from anywhere: pictures are inside, links only lead out on a click."""
    page = (folder / "report.html").read_text()
    tags = Tags(page)
    assert not tags.all("script")
    assert not tags.all("link")
    assert not re.search(r"\son\w+=", page)
    assert "url(" not in page
    assert "@import" not in page
    assert all(image["src"].startswith("data:image/png;base64,") for image in tags.all("img"))
    assert [source["media"] for source in tags.all("source")] == [
        "screen and (prefers-color-scheme: dark)"
    ] * len(PICTURES)
    assert all(image["alt"] for image in tags.all("img"))
    identifiers = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = [a["href"][1:] for a in tags.all("a") if a["href"].startswith("#")]
    assert targets
    assert set(targets) <= set(identifiers)


def test_every_linked_file_exists(folder):
    """Every picture has its CSV, PNG and SVG; a table has its CSV."""
    tags = Tags((folder / "report.html").read_text())
    linked = {a["href"] for a in tags.all("a") if a["href"].startswith("figures/")}
    expected = {
        f"figures/draxler2018-{name}.{ending}"
        for name in PICTURES
        for ending in ("csv", "png", "svg")
    }
    assert linked == expected | {"figures/draxler2018-pairs.csv"}
    assert {f"figures/{file.name}" for file in (folder / "figures").iterdir()} == linked


def test_another_process_without_torch_writes_the_same_bytes(folder, tmp_path, record):
    """Page, pictures and vectors repeat; no torch, no pyplot, and nothing heavy at import."""
    other = tmp_path / "with a blank"
    other.mkdir()
    (other / "record.json").write_text(json.dumps(record))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lowland.report import write_report\n"
        "assert not {'matplotlib', 'numpy', 'jinja2'} & set(sys.modules)\n"
        f"write_report({str(other)!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    assert len(files) == 3 + 3 * len(PICTURES) + 1
    for file in files:
        assert (folder / file).read_bytes() == (other / file).read_bytes(), file


def test_what_a_record_says_is_escaped(tmp_path, record):
    """A record is data: it can put no tag into the page and no path into a file name."""
    record["recipe"] = "../../<b>x"
    record["claims"][0]["statement"] = "<script>alert(1)</script> a | b"
    record["figures"] = [{**record["figures"][5], "id": "../up", "title": '"><i>'}]
    (tmp_path / "record.json").write_text(json.dumps(record))
    page = write_report(tmp_path).read_text()
    assert not Tags(page).all("script")
    assert not Tags(page).all("i")
    assert "&lt;script&gt;" in page
    assert [file.name for file in (tmp_path / "figures").iterdir()] == ["b-x-up.csv"]
    row = next(
        line for line in (tmp_path / "report.md").read_text().splitlines() if "alert" in line
    )
    assert len(re.findall(r"(?<!\\)\|", row)) == 7


def test_markdown_says_the_same(folder, record):
    """The Markdown twin has the claims table, the pictures and the command."""
    text = (folder / "report.md").read_text()
    assert "| C8 | Adaptive insertion" in text
    assert "| **missed** |" in text
    assert "0.00240 ± 0.00030 nats (n = 3)" in text
    assert "![Training loss between two minima](figures/draxler2018-profile.png)" in text
    assert "| 2, 3 | – | – | – | 1.92 | no |" in text
    assert record["command"] in text


def test_records_below_share_one_page(tmp_path):
    """One and two levels below are found; two runs of one recipe keep their figures apart."""
    places = {"a": ("x2018", "laptop"), "b/c": ("x2018", "hour"), "d": ("y2018", "laptop"),
              "e": ("x2018", "hour"), "f/g/h": ("z2018", "laptop")}  # fmt: skip
    for place, (recipe, scale) in places.items():
        record = example_record(recipe) | {"scale": scale}
        record["figures"] = record["figures"][5:6]
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "record.json").write_text(json.dumps(record))
    text = text_of(write_report(tmp_path).read_text())
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert names == ["x2018-hour-2-pairs.csv", "x2018-hour-pairs.csv", "x2018-laptop-pairs.csv",
                     "y2018-pairs.csv"]  # fmt: skip
    assert "z2018" not in text
    assert text.count("5 of 6 judged claims met") == 8  # an overview line and a section for each


def test_a_broken_figure_becomes_a_sentence(tmp_path, record):
    """The rest of the page is not lost for one figure that does not fit."""
    record["figures"] = [{"kind": "pie", "id": "p", "title": "Pie"}, record["figures"][5]]
    (tmp_path / "record.json").write_text(json.dumps(record))
    text = text_of(write_report(tmp_path).read_text())
    assert "This figure cannot be drawn: a figure is one of lines, heatmap, table, text" in text
    assert "Barriers of each pair" in text


def test_an_unfinished_run_says_so(tmp_path, record):
    record["status"] = "interrupted"
    record["figures"] = []
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert "This run did not finish: it was interrupted" in write_report(tmp_path).read_text()


def test_a_bare_record_is_enough(tmp_path):
    """Old or foreign records lack most fields; the page leaves out what is not there."""
    (tmp_path / "record.json").write_text('{"recipe": "bare", "claims": [], "figures": []}')
    page = write_report(tmp_path).read_text()
    assert "This run makes no claim." in page
    assert not Tags(page).all("details")


def test_bad_input_is_answered_in_a_sentence(tmp_path, record):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="needs at least one record.json; found none"):
        write_report(tmp_path)
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        write_report(tmp_path)
    (tmp_path / "record.json").write_text('{"recipe": "x", "figures": []}')
    with pytest.raises(ValueError, match="lacks claims"):
        write_report(tmp_path)
    record["claims"][0]["verdict"] = "surely"
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="claim C1 .* says 'surely'"):
        write_report(tmp_path)


def test_one_unreadable_record_does_not_hide_the_others(tmp_path, record):
    (tmp_path / "record.json").write_text(json.dumps(record | {"figures": []}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("no JSON")
    text = text_of(write_report(tmp_path).read_text())
    assert "Left out: a record must be JSON; broken/record.json is not" in text
    assert "5 of 6 judged claims met" in text


def test_two_processes_draw_the_same_bytes(tmp_path):
    """Whoever draws a record, page and pictures are the same."""
    pages = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        for name in ("draxler2018", "li2018"):
            record = example_record(name)
            (folder / name).mkdir(parents=True)
            file = folder / name / "record.json"
            file.write_text(json.dumps(record | {"figures": record["figures"][:1]}))
        write_report(folder, processes=processes)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        pages[processes] = {file.relative_to(folder): file.read_bytes() for file in files}
    assert len(pages[1]) > 8
    assert pages[1] == pages[2]
