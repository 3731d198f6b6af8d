"""The rooms of the house, read from the layers in ``pyproject.toml``, and an example of each."""

import importlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parent
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


@dataclass(frozen=True)
class Together:
    """How two processes work on one thing: what each reads, and what it only says of itself.

    Of ``"the same batches"`` and of ``"half of every batch"`` they make what one process makes;
    with ``"batches of its own"`` they agree on what they decide.
    """

    call: Callable[..., Any]
    share: str
    options: dict[str, Any] = field(default_factory=dict)
    of_itself: tuple[str, ...] = ()


def example(room):
    """What ``drive_<room>.py`` says: what to call, and what it declares of itself."""
    return importlib.import_module(f"drive_{room}")


def driven():
    """Every driver of every room, with the call that tries it."""
    return [(driver, call) for room in ROOMS for driver, call in example(room).DRIVERS.items()]


def pieces():
    """Every piece of every room by a name of its own, with the call that tries it."""
    return {
        f"{room}, {piece if isinstance(piece, str) else piece.__name__}": call
        for room in ROOMS
        for piece, call in example(room).PIECES.items()
    }


def observing(*, repeatable=False):
    """Every call that must leave the user's model as it was; if asked, those that repeat."""
    calls = []
    for room in map(example, ROOMS):
        left_out = {*room.TRAINS, *(room.BY_THE_CLOCK if repeatable else ())}
        calls += [c for name, c in (room.DRIVERS | room.PIECES).items() if name not in left_out]
    return calls
