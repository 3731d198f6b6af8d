"""Code that is shown runs: the blocks of every page, and the examples in docstrings."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch

from lowland.results import Claim, Record
from lowland.training import use_threads

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, *sorted(SRC.rglob("README.md"))]
SHOWN = [file for file in sorted(SRC.rglob("*.py")) if ">>> " in file.read_text()]


def blocks(file):
    """The python blocks of a page, each behind as many empty lines as come before it."""
    text = file.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield "\n" * text[: found.start(1)].count("\n") + found[1]


def name_of(file):
    return str(file.relative_to(ROOT))


@pytest.fixture
def after_the_demo(tmp_path, monkeypatch):
    """An empty folder but for what ``make demo`` leaves, and a record of one text in it."""
    figure = {"kind": "text", "id": "note", "title": "A note", "text": "Words."}
    paper = {"title": "A title", "authors": "A. Author", "year": 2018, "arxiv": "1803.00885"}
    claim = Claim("C1", "It holds.", "1", "at most 2", (1.0,), "nats", "met")
    record = Record("draxler2018", paper, "smoke", {}, [0], [], [claim], [figure])
    record.save(tmp_path / "lowland-out" / "demo" / "draxler2018" / "record.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", PAGES, ids=name_of)
def test_blocks_of_a_page(file, after_the_demo):
    """One after the other, in one namespace, in a folder of their own."""
    namespace = {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]), use_threads(1):
        for block in blocks(file):
            exec(compile(block, str(file), "exec"), namespace)
    if file == ROOT / "README.md":
        assert len(namespace) > 1


def test_the_pages_have_blocks():
    assert all(list(blocks(file)) for file in PAGES)


@pytest.mark.parametrize("file", SHOWN, ids=name_of)
def test_examples_in_docstrings(file):
    """They print what the docstring says."""
    name = ".".join(file.relative_to(SRC).with_suffix("").parts)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0
