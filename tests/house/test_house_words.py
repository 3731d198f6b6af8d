"""What is written in the house: READMEs with their headings, documented names, no prints."""

import ast
import dataclasses
import importlib
import inspect
import re
from enum import Enum

import pytest
from rooms import COMMAND_LINE, PACKAGES, ROOMS, ROOT, SRC, example

SOURCES = sorted(SRC.rglob("*.py"))
PUBLIC = [
    (f"lowland.{name}", value)
    for name in [*PACKAGES, "params", "results"]
    for value in getattr(importlib.import_module(f"lowland.{name}"), "__all__", ())
]


def test_every_room_has_an_example_here():
    """A new room cannot stay outside of these tests."""
    assert ROOMS
    assert set(ROOMS) <= set(PACKAGES)
    for room in ROOMS:
        assert example(room).DRIVERS
        public = importlib.import_module(f"lowland.{room}").__all__
        assert {driver.__name__ for driver in example(room).DRIVERS} <= set(public)


HEADINGS = ("your own model", "numbers mean", "settings", "differences from the paper", "results")


@pytest.mark.parametrize("room", ROOMS)
def test_readme_of_a_room(room):
    """What it does, ten lines, the numbers, settings, numbered differences, a table of results."""
    text = (SRC / room / "README.md").read_text()
    found = [line for line in text.splitlines() if line.startswith("## ")]
    for words, heading in zip(HEADINGS, found, strict=True):
        assert words in heading.lower()
    about, *sections = re.split(r"^## .*$", text, flags=re.MULTILINE)
    assert about.startswith(f"# {room}")
    assert "```python" in sections[0]
    assert "not for this room" in sections[2].lower().replace("*", "")
    numbered = re.findall(r"^(\d+)\. ", sections[3], flags=re.MULTILINE)
    assert [int(number) for number in numbered] == [*range(1, len(numbered) + 1)]
    assert len(numbered) >= 3
    assert re.search(r"^\|.*ours.*\|.*paper.*\|.*command.*\|", sections[4], flags=re.MULTILINE)


@pytest.mark.parametrize("file", [ROOT / "README.md", *sorted(SRC.rglob("README.md"))], ids=str)
def test_no_placeholder_is_left(file):
    text = file.read_text()
    assert not re.findall(r"^[A-Z]{4,}$|TODO|FIXME|XXX", text, flags=re.MULTILINE)
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (file.parent / target).exists(), target


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=str)
def test_public_names_are_documented(module, name):
    """A docstring; of a function every argument and what it returns, of a dataclass every field."""
    value = getattr(importlib.import_module(module), name)
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return  # a constant
    text = inspect.getdoc(value)
    assert text
    assert text.splitlines()[0].rstrip()[-1] in ".:"
    if inspect.isfunction(value):
        assert_function_is_documented(value, text)
    elif dataclasses.is_dataclass(value):
        shown = [f.name for f in dataclasses.fields(value) if not f.name.startswith("_")]
        assert_listed(shown, text, "Attributes:")
    if inspect.isclass(value) and not issubclass(value, Enum):
        for method, function in vars(value).items():
            function = getattr(function, "__func__", getattr(function, "fget", function))
            if inspect.isfunction(function) and not method.startswith("_"):
                assert inspect.getdoc(function), method


def assert_function_is_documented(function, text):
    signature = inspect.signature(function)
    assert_listed(signature.parameters, text, "Args:")
    silent = signature.return_annotation in (None, "None", inspect.Signature.empty)
    assert silent or "Returns:" in text or "Yields:" in text
    assert not silent or "Returns:" not in text


def assert_listed(names, text, heading):
    _, _, listed = text.partition(heading)
    for name in names:
        assert re.search(rf"^\s+\*{{0,2}}{name}: ", listed, flags=re.MULTILINE), name


def calls(file):
    """Every call in a file: what is called, as text, and the call."""
    return [
        (ast.unparse(node.func), node)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(SRC)))
def test_a_file(file):
    """It says what it holds, is short, prints nothing, and loads no pickle."""
    text = file.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400
    name = ".".join(file.relative_to(SRC.parent).with_suffix("").parts)
    found = calls(file)
    if name not in (*COMMAND_LINE, "lowland.__main__"):
        assert "print" not in [called for called, _ in found]
    for called, node in found:
        if called == "torch.load":
            assert "weights_only=True" in ast.unparse(node)
        assert called not in ("pickle.load", "pickle.loads", "eval", "exec")


def test_no_exception_is_made_for_a_room():
    """A needed exception is a capability that the room declares."""
    for file in (ROOT / "tests" / "house").glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                words = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant)]
                assert not set(ROOMS) & {word for word in words if isinstance(word, str)}
