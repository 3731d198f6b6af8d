"""What all recipes share does its part: a made-up recipe leaves the record that it asked for."""

from dataclasses import dataclass, replace

import pytest
import torch

from lowland.reproduce.frame import Measured, Recipe, pass_ctrl_c_on, unfinished
from lowland.reproduce.images import Images, Task, channels_last, percent
from lowland.reproduce.kept import Kept
from lowland.results import Claim, Record, Status, plain, read_json

TASK = Task("digits", "mlp-64-8-10", 32)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """As few as a recipe can have."""

    scale: str = "smoke"
    seeds: int = 2
    threads: int | None = 1
    device: str = "cpu"


def measure(settings, found, kept, display):
    """A square for every seed, and a pair of seeds."""
    runs = [
        kept(f"squares/{n}", lambda n=n: {"seed": n, "n2": n * n}) for n in range(settings.seeds)
    ]
    notes = ["twice", "twice"]
    pair = {"seeds": [7, 0], "n2": None}
    return Measured({"runs": runs}, [*runs, pair], notes, Status.NOT_FINITE)


def read(settings, **source):
    if settings.seeds > 9:
        raise ValueError("too many")
    assert source == {"device": CPU, "data": None, "download": False}
    return {"train": Images.of(TASK, **source)}


RECIPE = Recipe(
    "squares",
    {"title": "Squares"},
    lambda settings, seeds: replace(settings, seeds=seeds),
    read,
    measure,
    lambda settings, parts: [Claim("C1", "s", "p", "r", tuple(r["n2"] for r in parts["runs"]))],
    lambda settings, parts: [{"id": str(settings["seeds"])}],
    lambda settings, parts, claims, figures: {
        "measured": [str(len(parts["runs"]))],
        "told": [claims[0].id, figures[0]["id"]],
    },
)


def test_a_record_holds_what_the_recipe_gave(tmp_path):
    """Seeds of all kinds of runs, each once; notes, each once, the data's first."""
    record = RECIPE.run(Settings(), seeds=3, out=tmp_path / "run", command="c")
    assert record == Record.load(tmp_path / "run" / "record.json")
    assert (record.recipe, record.scale, record.command) == ("squares", "smoke", "c")
    assert record.seeds == [0, 1, 2, 7]
    assert record.claims[0].values == (0, 1, 4)
    assert record.figures == [{"id": "3"}]
    assert record.story == {"measured": ["3"], "told": ["C1", "3"]}
    assert record.notes[1:] == ["twice"]
    assert "digits" in record.notes[0]
    assert record.status == plain(Status.NOT_FINITE)
    assert record.settings == plain(Settings(seeds=3))
    assert record.environment["threads"] == 1


def test_what_cannot_run_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="too many"):
        RECIPE.run(Settings(), seeds=10, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_kept_parts_are_not_computed_again(tmp_path):
    """Seconds of earlier calls, which a part knows itself, count if they are more."""
    first = Kept(tmp_path)
    assert first("a/b", lambda: {"seconds": 1000.0, "x": 1}) == {"seconds": 1000.0, "x": 1}
    assert first("list", lambda: [1, 2]) == [1, 2]
    again = Kept(tmp_path)
    assert again("a/b", lambda: pytest.fail("computed again"))["x"] == 1
    assert again.seconds == read_json(tmp_path / "a/b.json")["seconds"] == 1000.0


def test_runs_that_broke_down_are_named():
    """By their message, or by their status; those that did all steps are not."""
    runs = [
        {"seed": 0, "status": "finished"},
        {"seed": 1, "status": "not_finite", "message": "the loss is nan"},
        {"seed": 2, "status": "not_finite"},
    ]
    words = unfinished(runs, "seed {seed}".format_map)
    assert words == ["seed 1: the loss is nan", f"seed 2: {Status.NOT_FINITE.value}."]
    pass_ctrl_c_on(Status.FINISHED)
    with pytest.raises(KeyboardInterrupt):
        pass_ctrl_c_on(Status.INTERRUPTED)


def test_images_are_read_in_every_way():
    """Pixels between 0 and 1, or channels of mean 0 and variance 1; classes counted anew."""
    plain_ones = Images.of(replace(TASK, evaluated=100), CPU)
    normal = Images.of(TASK, CPU, normalize=True)
    few, _ = next(iter(plain_ones.training(0, 7)))
    assert (len(few), float(few.min()), float(few.max())) == (7, 0.0, 1.0)
    assert sum(len(labels) for _, labels in plain_ones.reading) == 100
    whole = torch.cat([inputs for inputs, _ in normal.reading])
    assert len(whole) == len(normal.train[1])
    torch.testing.assert_close(whole.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.std(), torch.tensor(1.0), atol=1e-3, rtol=0)
    some = plain_ones.only(3, 5)
    assert (some.classes, some.train[1].unique().tolist()) == (2, [0, 1])
    assert some.network(0, "mlp-64-16-2")(few).shape == (7, 2)
    assert plain_ones.network(0)(few).shape == (7, 10)


def test_channels_last_changes_the_layout_only():
    model = torch.nn.Conv2d(3, 4, 3)
    before = model.weight.clone()
    assert channels_last(model) is model
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.weight, before)


def test_percent_is_of_right_answers():
    assert percent(None) is None
    assert percent(0.25) == 75.0
