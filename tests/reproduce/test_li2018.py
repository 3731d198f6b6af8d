"""The recipe li2018, shrunk to seconds: one record, whole, finite, resumable, drawable."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from lowland.data import load
from lowland.report import write_report
from lowland.report.records import check_figure
from lowland.reproduce import RECIPES, li2018
from lowland.reproduce.li2018 import Arm, Checks, Search, Settings, Task, all_runs, run, settings
from lowland.reproduce.li2018_settings import TERNARY
from lowland.reproduce.li2018_training import images_of
from lowland.results import Record, Status, plain, read_json
from lowland.settings import from_plain
from lowland.training import use_threads

TINY = Task(
    "digits",
    "digits",
    "bn-mlp-64-8-10",
    2,
    (
        Arm("binary", seeds=2),
        Arm("ternary", values=TERNARY, lam=1e-5),
        Arm("ternary, 2 % asked for", values=TERNARY, target_nonzero=0.1),
        Arm("float", "adam"),
        Arm("BinaryConnect", "binaryconnect"),
        Arm("Bop", "bop"),
        Arm("TWN", "twn"),
        *(Arm(f"lambda {price:g}", values=TERNARY, lam=price) for price in (1e-7, 1e-5, 1e-4)),
    ),
    batch_size=50,
    examples=200,
)


def tiny():
    """Every arm on 200 digits for two epochs, and the smallest searches."""
    return replace(
        settings("smoke"),
        tasks=(TINY,),
        checks=Checks(steps=3, sweeps=4, plain_sweeps=3),
        search=Search(problems=2, sweeps=3, images=50, descent=3, looks=(0, 1)),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run and its folder; tests only read it."""
    out = tmp_path_factory.mktemp("li2018") / "run"
    return run(tiny(), out=out, command="lowland run li2018"), out


def test_the_record(finished):
    """All claims in order, every value of the settings; the file says the same."""
    record, out = finished
    assert record.recipe in RECIPES
    ids = [claim.id for claim in record.claims]
    assert ids == ["C1", "C2", "C3", "C4", "C5", "C6", "C6b", "C7", "C8", "C9"]
    assert record.settings == plain(tiny())
    assert (record.scale, record.seeds) == ("smoke", [0, 1])
    assert (record.command, record.paper["arxiv"]) == ("lowland run li2018", "1803.01299")
    assert record.status == plain(Status.FINISHED)
    assert record.seconds > 0
    assert record.environment["threads"] == 1
    assert Record.load(out / "record.json") == record


def test_identities_are_met_at_any_scale(finished):
    """C1 and C2 hold after any number of steps; accuracies of two epochs are not judged."""
    verdicts = {claim.id: claim.verdict for claim in finished[0].claims}
    assert verdicts["C1"] == verdicts["C2"] == verdicts["C3"] == "met"
    for name in ("C5", "C6", "C6b", "C7", "C8", "C9"):
        assert verdicts[name] == "not judged at this scale"


def test_no_nan_in_any_file(finished):
    for file in finished[1].rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


def runs_of(record, **wanted):
    return [r for r in record.runs if all(r[name] == value for name, value in wanted.items())]


def test_runs(finished):
    """Every arm with its seeds, a curve row per epoch, the last number of nonzero weights."""
    record, out = finished
    assert len(record.runs) == len(TINY.arms) + 1
    for one in record.runs:
        assert [row["epoch"] for row in one["curve"]] == [1, 2]
        assert one["steps"] == 2 * 4
        assert one["weights"] == 64 * 8 + 8 * 10
        assert 0 <= one["test_accuracy"] <= 100
        assert one["best_epoch"] is None
    (dial,) = runs_of(record, arm="ternary, 2 % asked for")
    assert dial["nonzero"] == pytest.approx(0.1, abs=0.01)
    for arm in ("binary", "float", "BinaryConnect", "Bop"):
        assert all(one["nonzero"] == 1 for one in runs_of(record, arm=arm))
    assert 0.3 < runs_of(record, arm="TWN")[0]["nonzero"] < 0.9
    saved = read_json(out / "digits" / "binary-1" / "run.json")
    assert saved["values"] == runs_of(record, arm="binary", seed=1)[0]


def test_figures_fit_the_schema(finished):
    figures = finished[0].figures
    names = [figure["id"] for figure in figures]
    assert len({*names}) == len(names)
    assert {
        "test-accuracy-digits", "nonzero-digits", "lambda", "descent", "sweeps", "remainder",
        "methods", "candidates", "residual", "estimate", "identities", "bytes", "differences",
    } < {*names}  # fmt: skip
    for figure in figures:
        check_figure(figure)
        for series in figure.get("series", ()):
            assert len(series["x"]) == len(series["y"]) > 0


def test_the_page(finished, tmp_path):
    """The report draws every figure."""
    finished[0].save(tmp_path / "record.json")
    page = write_report(tmp_path).read_text()
    for claim in finished[0].claims:
        assert claim.id in page
    assert all(
        (tmp_path / "figures" / f"li2018-{figure['id']}.csv").exists()
        for figure in finished[0].figures
        if figure["kind"] != "text"
    )


def test_running_it_again_does_nothing_again(finished):
    record, out = finished
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.json")}
    assert run(tiny(), out=out, command="lowland run li2018") == record
    changed = {file.name for file, time in before.items() if file.stat().st_mtime_ns != time}
    assert changed <= {"record.json"}


CLOCKED = ("seconds",)


def timeless(value):
    """Plain values without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name not in CLOCKED}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_what_is_lost_comes_back_the_same(finished, tmp_path):
    """A deleted training, one that lost only its numbers, and a deleted search: the same."""
    record, out = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    shutil.rmtree(copy / "digits" / "ternary-0")
    for name in ("digits/binary-1/run.json", "digits/TWN-0/run.json", "search.json", "record.json"):
        (copy / name).unlink()
    again = run(tiny(), out=copy)
    assert timeless(again.runs) == timeless(record.runs)
    assert timeless(read_json(copy / "search.json")) == timeless(read_json(out / "search.json"))


def test_ctrl_c_and_on(finished, tmp_path, monkeypatch):
    """It passes through with what is finished saved; the same call goes on."""

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    one = replace(tiny(), tasks=(replace(TINY, arms=TINY.arms[:2]),))
    with monkeypatch.context() as patch:
        patch.setattr(li2018, "train_arm", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            run(one, out=tmp_path)
    assert (tmp_path / "search.json").exists()
    again = run(one, out=tmp_path)
    whole = [r for r in finished[0].runs if r["arm"] in ("binary", "ternary")]
    assert timeless(again.runs) == timeless(whole)


def test_interrupted_in_mid_epoch(tmp_path, monkeypatch):
    """A training that stops is reported as Ctrl-C, and goes on with the same bits."""
    from lowland.reproduce import li2018_training

    task = replace(TINY, arms=(TINY.arms[0],), seeds=1)
    one = replace(tiny(), tasks=(task,), checks=None, search=None)
    whole = run(one, out=tmp_path / "whole")
    real = li2018_training.train_msa
    with monkeypatch.context() as patch:
        patch.setattr(li2018_training, "train_msa", lambda *a, **k: real(*a, max_steps_now=5, **k))
        with pytest.raises(KeyboardInterrupt):
            run(one, out=tmp_path / "parts")
    assert timeless(run(one, out=tmp_path / "parts").runs) == timeless(whole.runs)


def test_a_folder_of_other_settings(finished):
    other = replace(tiny(), tasks=(replace(TINY, epochs=3),))
    with pytest.raises(ValueError, match=r"tasks.0.epochs = 2, now tasks.0.epochs = 3"):
        run(other, out=finished[1])


@pytest.mark.parametrize("scale", ["smoke", "laptop", "hour", "gpu", "paper"])
def test_scales(scale):
    """Plain frozen values; every arm runs, and the published settings are as published."""
    found = settings(scale)
    assert found.scale == scale
    assert json.loads(json.dumps(plain(found), allow_nan=False)) == plain(found)
    assert from_plain(Settings, plain(found)) == found
    for task in found.tasks:
        assert {arm.name for arm, _ in all_runs(task)} == {arm.name for arm in task.arms}
        if task.paper_exact:
            assert (task.batch_size, task.held_out) == (100, 5000)
            for arm in task.arms:
                assert arm.alpha == 0.999
                assert arm.decay == (0.98 if task.data == "cifar10" else 0.95)
                assert arm.lam == (1e-7 if arm.name == "ternary" else 0)


def test_seeds_are_those_asked_for():
    asked = li2018.with_seeds(settings("laptop"), 5)
    counts = {arm.name: 0 for arm in asked.tasks[0].arms}
    for arm, _ in all_runs(asked.tasks[0]):
        counts[arm.name] += 1
    assert set(counts.values()) == {5}


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="'smoke', 'laptop', 'hour', 'gpu', 'paper'; got 'big'"):
        settings("big")
    for change, words in (
        ({"arms": (Arm("x", "magic"),)}, "a method must be one of msa, .*got 'magic'"),
        ({"arms": (Arm("x", loss="l1"),)}, "a loss must be one of .*got 'l1'"),
        ({"model": "nothing"}, "name must be that of a network"),
        ({"held_out": 1430}, "must keep a batch of 50 images"),
    ):
        with pytest.raises(ValueError, match=words):
            run(replace(tiny(), tasks=(replace(TINY, **change),)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def small(data):
    """The digits, in the place and the shape of another data set."""
    found = load("digits")
    shape = {"mnist": (1, 28), "cifar10": (3, 32), "svhn": (3, 32)}[data]

    def grown(images):
        size = shape[1]
        wide = torch.nn.functional.interpolate(images[:, :1].float(), size=(size, size))
        return wide.byte().expand(-1, shape[0], -1, -1).contiguous()

    return replace(
        found,
        images=grown(found.images[:150]),
        labels=found.labels[:150],
        test_images=grown(found.test_images[:50]),
        test_labels=found.test_labels[:50],
    )


@pytest.mark.parametrize(
    ("scale", "number"), [("gpu", 0), ("gpu", 1), ("paper", 2), ("hour", 0), ("hour", 1)]
)
def test_large_scales_on_tiny_data(scale, number, tmp_path, monkeypatch):
    """Published settings with narrow networks: validation, drop of the last batch, the logs."""
    from lowland.reproduce import images

    monkeypatch.setattr(images, "load", lambda name, **_: small(name))
    whole = settings(scale)
    task = whole.tasks[number]
    model = "bn-mlp-784-16-10" if "mlp" in task.model else "bn-cnn-4-8"
    task = replace(task, model=model, epochs=2, held_out=25, batch_size=50, measured=None)
    record = run(replace(whole, tasks=(task,), device="cpu", threads=1), out=tmp_path / "run")
    for one in record.runs:
        assert one["status"] == "finished"
        assert one["steps"] == 2 * (2 if task.paper_exact else 3)
        assert one["best_epoch"] in (1, 2)
        assert one["best_test_accuracy"] == one["curve"][one["best_epoch"] - 1]["test_accuracy"]
    names = [figure["id"] for figure in record.figures]
    assert f"log-{task.name}" in names
    for figure in record.figures:
        check_figure(figure)
    judged = {claim.id: claim.verdict for claim in record.claims}
    assert judged["C1"] == "not judged at this scale"
    if task.name == "cifar10-quarter":
        assert judged["C5"] in ("met", "missed")
    else:
        assert judged["C5"] == judged["C7"] == "not judged at this scale"


def test_the_incomplete_last_batch_is_left_out():
    """Only with the published settings."""
    for paper_exact, batches in ((True, 4), (False, 5)):
        task = replace(TINY, examples=230, paper_exact=paper_exact)
        images = images_of(task, device=torch.device("cpu"))
        assert len(images.training(0)) == batches


@pytest.mark.gpu
def test_on_an_accelerator(tmp_path):
    """Everything runs there, too."""
    with use_threads(1):
        found = run(replace(tiny(), device="cuda", checks=None, search=None), out=tmp_path)
    assert found.environment["device"] == torch.cuda.get_device_name()
