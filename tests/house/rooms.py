"""The rooms of the house, read from the layers in ``pyproject.toml``, and an example of each."""

import importlib
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "lowland"

CONTRACT, *_ = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
LAYERS = [[name.strip() for name in layer.split("|")] for layer in CONTRACT["layers"]]
RECIPES = LAYERS.index(["lowland.reproduce"])

# The command line stands above the recipes, the rooms right below them.
COMMAND_LINE = [name for layer in LAYERS[:RECIPES] for name in layer]
ROOMS = [name.removeprefix("lowland.") for name in LAYERS[RECIPES + 1]]
PACKAGES = sorted(folder.parent.name for folder in SRC.glob("*/__init__.py"))


def example(room):
    """What ``drive_<room>.py`` says: what to call, and what it declares of itself."""
    return importlib.import_module(f"drive_{room}")


def driven():
    """Every driver of every room, with the call that tries it."""
    return [(driver, call) for room in ROOMS for driver, call in example(room).DRIVERS.items()]


def observing(*, repeatable=False):
    """Every call that must leave the user's model as it was; if asked, those that repeat."""
    calls = []
    for room in map(example, ROOMS):
        left_out = {*room.TRAINS, *(room.BY_THE_CLOCK if repeatable else ())}
        calls += [c for name, c in (room.DRIVERS | room.PIECES).items() if name not in left_out]
    return calls
