"""The recipe huang2018, shrunk to seconds: one record, whole, finite, resumable, drawable."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from lowland.data import load
from lowland.report import write_report
from lowland.report.records import check_figure
from lowland.reproduce import RECIPES
from lowland.reproduce.huang2018 import (
    Checks,
    Collapse,
    Growth,
    Noise,
    Settings,
    Table,
    Task,
    Variant,
    run,
    settings,
)
from lowland.reproduce.huang2018_growth import depths, images_of
from lowland.reproduce.huang2018_noise import wrong_labels
from lowland.results import Record, Status, plain
from lowland.settings import from_plain

TASK = Task("digits", "res-mlp-64-16-10x2", 50, "official", examples=100)
DIGITS = Growth(
    "digits", TASK, Variant(epochs=1), 2, epochs=2, refine_epochs=1, weak="res-mlp-64-16-10x1"
)
DEEP = replace(TASK, model="res-mlp-64-16-10x5")


def tiny():
    """Everything that a scale may hold, on 100 digits."""
    return Settings(
        "smoke",
        (DIGITS, Growth("depth", DEEP, Variant(epochs=1), 1)),
        Table(TASK, (Variant("plain head", 1), Variant("pairs", 1, module_size=2))),
        Checks("pad-resnet-8-4", images=2, fitted=1, timed=3, turns=1),
        Collapse(("res-mlp-64-8-10x2",), epochs=1),
        Noise(TASK, Variant(epochs=1), radii=(None, 1.0)),
        judged=False,
        threads=1,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run and its folder; tests only read it."""
    out = tmp_path_factory.mktemp("huang2018") / "run"
    return run(tiny(), out=out, command="lowland run huang2018"), out


def test_the_record(finished):
    """All claims in order, every value of the settings; the file says the same."""
    record, out = finished
    assert record.recipe in RECIPES
    assert [claim.id for claim in record.claims] == [f"C{number}" for number in range(1, 14)]
    assert record.settings == plain(tiny())
    assert (record.scale, record.seeds) == ("smoke", [0, 1])
    assert (record.command, record.paper["arxiv"]) == ("lowland run huang2018", "1706.04964")
    assert record.status == plain(Status.FINISHED)
    assert record.seconds > 0
    assert record.environment["threads"] == 1
    assert Record.load(out / "record.json") == record


def test_theorems_are_met_at_any_scale(finished):
    """The identity, the bounds and the plain model hold after any training; accuracies may not."""
    verdicts = {claim.id: claim.verdict for claim in finished[0].claims}
    assert verdicts["C1"] == verdicts["C2"] == verdicts["C11"] == "met"
    for name in ("C3", "C4", "C5", "C6", "C7", "C8", "C10", "C13"):
        assert verdicts[name] == "not judged at this scale"


def test_every_way_ran(finished):
    """Two seeds of four ways, the depth, two variants; updates are counted per part."""
    runs = finished[0].runs
    ways = [(run["growth"], run["way"], run["seed"]) for run in runs]
    four = ("boosted", "end to end", "refined", "AdaBoost.MM")
    assert ways == [
        *(("digits", way, seed) for seed in (0, 1) for way in four),
        ("depth", "boosted", 0),
        ("table", "plain head", 0),
        ("table", "pairs", 0),
    ]
    boosted, end_to_end, refined, adaboost = runs[:4]
    assert boosted["module_updates"] == 2 * 2  # two blocks, each two batches
    assert end_to_end["module_updates"] == 2 * 2 * 2  # two epochs
    assert refined["module_updates"] == 2 * 2
    assert adaboost["module_updates"] == 2 * len(adaboost["curve"])  # an edge of 0 ends it
    assert len(runs[-1]["rounds"]) == 1
    assert runs[-1]["module_updates"] == 2 * 2
    for one in runs[:4]:
        assert one["test_accuracy"] == pytest.approx(100 * (1 - one["test_error"]))
    assert boosted["test_error"] == pytest.approx(boosted["rounds"][-1]["test_error"])


def test_refinement_begins_with_the_grown_network(tmp_path, monkeypatch):
    """With steps of no size its weights stay, and with them the errors."""
    from lowland.reproduce import huang2018_baselines

    real = huang2018_baselines.refine
    still = {"optimizer": lambda params: torch.optim.SGD(params, 0.0)}
    monkeypatch.setattr(huang2018_baselines, "refine", lambda *a, **k: real(*a, **(k | still)))
    growth = replace(DIGITS, epochs=0, weak=None, seeds=1)
    only = replace(tiny(), growths=(growth,), table=None, checks=None, collapse=None, noise=None)
    boosted, refined = run(only, out=tmp_path / "run").runs
    assert refined["test_error"] == pytest.approx(boosted["test_error"])
    assert refined["train_error"] == pytest.approx(boosted["train_error"])


def timeless(value):
    """Drop everything that a clock decides."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key != "seconds"}
    if isinstance(value, list):
        return [timeless(part) for part in value]
    return value


def test_a_run_that_goes_on(finished, tmp_path):
    """Parts that are finished are read; those that are missing come out the same."""
    record, out = finished
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    for name in ("record.json", "growths/digits/1-boosted.json", "variants/pairs-0.json"):
        (copy / name).unlink()
    again = run(tiny(), out=copy, command="lowland run huang2018")
    assert timeless(again.runs) == timeless(record.runs)
    assert again.runs[1] == record.runs[1]


def test_a_kill_in_mid_block(tmp_path, monkeypatch):
    """A growth that keeps its state goes on to the same numbers."""
    from lowland.reproduce import huang2018_growth

    growth = replace(
        DIGITS, seeds=1, epochs=0, refine_epochs=0, weak=None, keep_state=True,
        variant=Variant(epochs=2),
    )  # fmt: skip
    only = replace(tiny(), growths=(growth,), table=None, checks=None, collapse=None, noise=None)
    whole = run(only, out=tmp_path / "whole")
    real = huang2018_growth.train_boosted
    with monkeypatch.context() as patch:
        patch.setattr(
            huang2018_growth, "train_boosted", lambda *a, **k: real(*a, max_steps_now=3, **k)
        )
        with pytest.raises(KeyboardInterrupt):
            run(only, out=tmp_path / "parts")
    assert timeless(run(only, out=tmp_path / "parts").runs) == timeless(whole.runs)


def test_figures_are_drawn(finished, tmp_path):
    """Every figure is one that the report knows, and the page is written."""
    record = finished[0]
    names = [figure["id"] for figure in record.figures]
    for figure in record.figures:
        check_figure(figure)
    assert len(set(names)) == len(names)
    for name in (
        "edges-digits", "bounds-digits", "depth-depth", "race-module-updates-digits",
        "race-seconds-digits", "memory", "collapse", "noise", "ways", "variants", "rounds",
        "fitted", "timing", "differences",
    ):  # fmt: skip
        assert name in names
    json.dumps(record.figures, allow_nan=False)
    record.save(tmp_path / "record.json")
    page = write_report(tmp_path).read_text()
    for claim in record.claims:
        assert claim.id in page


def test_a_folder_of_other_settings(finished):
    other = replace(tiny(), judged=True)
    with pytest.raises(ValueError, match="judged = False, now judged = True"):
        run(other, out=finished[1])


@pytest.mark.parametrize("scale", ["smoke", "laptop", "hour", "gpu", "paper"])
def test_scales(scale):
    """Plain frozen values, with names of their own for growths and variants."""
    found = settings(scale)
    assert found.scale == scale
    assert json.loads(json.dumps(plain(found), allow_nan=False)) == plain(found)
    assert from_plain(Settings, plain(found)) == found
    names = [growth.name for growth in found.growths]
    assert len(set(names)) == len(names)
    for growth in found.growths:
        if growth.refine_epochs:  # as many module updates, grown and refined or end to end
            times = 3.84 if growth.variant.head == "downstream-2" else 1
            spent = times * growth.variant.epochs + growth.refine_epochs
            assert spent <= growth.epochs < spent + 1
    if found.table:
        ways = [variant.name for variant in found.table.variants]
        assert len(set(ways)) == len(ways)


def test_the_published_hyperparameters():
    """Section 3.4 of the specification."""
    found = {growth.name: growth.variant for growth in settings("paper").growths}
    svhn, cifar = found["svhn"], found["cifar10"]
    assert (svhn.edge_start, svhn.gamma_threshold) == (0.75, 0.001)
    assert (svhn.learning_rate, svhn.decay) == (0.004, 9e-5)
    assert (cifar.edge_start, cifar.gamma_threshold) == (0.93, 0.007)
    assert (cifar.learning_rate, cifar.decay) == (0.014, 3.46e-5)


def test_seeds_are_those_asked_for(tmp_path):
    growth = replace(DIGITS, epochs=0, refine_epochs=0, weak=None)
    only = replace(tiny(), growths=(growth,), table=None, checks=None, collapse=None, noise=None)
    record = run(only, seeds=1, out=tmp_path / "run")
    assert [one["seed"] for one in record.runs] == [0]
    assert record.settings["growths"][0]["seeds"] == 1


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="'smoke', 'laptop', 'hour', 'gpu', 'paper'; got 'big'"):
        settings("big")
    task = replace(TASK, model="nothing")
    with pytest.raises(ValueError, match="name must be that of a network"):
        run(replace(tiny(), growths=(replace(DIGITS, task=task),)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_labels():
    """A share is drawn anew, a tenth of that stays right by chance; the rest is untouched."""
    labels = torch.arange(10000) % 10
    noisy = wrong_labels(labels, 10, 0.2, 0)
    changed = (noisy != labels).double().mean()
    assert changed == pytest.approx(0.18, abs=0.01)
    assert torch.equal(noisy, wrong_labels(labels, 10, 0.2, 0))
    assert torch.equal(labels, torch.arange(10000) % 10)
    assert torch.equal(wrong_labels(labels, 10, 0.0, 0), labels)


def test_the_identity_is_looked_at():
    """Another last head than the model's own shows in the sum of weak module classifiers."""
    from lowland.reproduce.huang2018_growth import boost, network

    images = images_of(TASK, device=torch.device("cpu"))
    result = boost(network(images, 0), images, Variant(epochs=4), 0)
    inputs = next(iter(images.reading))[0]
    for row in depths(result, inputs):
        assert max(row["error"], row["model"]) < {"float64": 1e-12, "float32": 1e-5}[row["dtype"]]
    with torch.no_grad():
        for weight in result.model[-1].parameters():
            weight.add_(0.1 * torch.arange(10.0).view(-1, *[1] * (weight.ndim - 1)))
    assert min(row["model"] for row in depths(result, inputs)) > 1e-3


def small(data):
    """The digits, in the place and the shape of another data set."""
    found = load("digits")
    shape = (1, 28) if data == "mnist" else (3, 32)

    def grown(images):
        wide = torch.nn.functional.interpolate(images[:, :1].float(), size=(shape[1], shape[1]))
        return wide.byte().expand(-1, shape[0], -1, -1).contiguous()

    return replace(
        found,
        images=grown(found.images[:60]),
        labels=found.labels[:60],
        test_images=grown(found.test_images[:30]),
        test_labels=found.test_labels[:30],
    )


@pytest.mark.parametrize(
    ("scale", "number"), [("hour", 0), ("gpu", 0), ("gpu", 1), ("paper", 1), ("paper", 2)]
)
def test_large_scales_on_tiny_data(scale, number, tmp_path, monkeypatch):
    """Their growths with narrow networks and one epoch; claims and figures know their names."""
    from lowland.reproduce import images

    monkeypatch.setattr(images, "load", lambda name, **_: small(name))
    whole = settings(scale)
    growth = whole.growths[number]
    model = "res-mlp-784-8-10x3" if growth.task.data == "mnist" else "pad-resnet-8-4"
    task = replace(growth.task, model=model, examples=None, evaluated=None, batch_size=20)
    weak = "pad-resnet-4x4" if growth.weak else None
    growth = replace(
        growth, task=task, weak=weak, epochs=min(3, growth.epochs), keep_state=False,
        refine_epochs=min(1, growth.refine_epochs), variant=replace(growth.variant, epochs=1),
    )  # fmt: skip
    only = replace(whole, growths=(growth,), table=None, checks=None, collapse=None, device="cpu")
    record = run(replace(only, threads=1), out=tmp_path / "run")
    for figure in record.figures:
        check_figure(figure)
    verdicts = {claim.id: claim.verdict for claim in record.claims}
    assert verdicts["C1"] == verdicts["C2"] == verdicts["C11"] == "met"
    if growth.name != "depth-mnist":
        assert verdicts["C6"] != "not judged at this scale"
        ways = {one["way"] for one in record.runs}
        assert ("AdaBoost.MM" in ways) is (growth.weak is not None)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(17))
def test_every_variant_of_the_table(number, tmp_path, monkeypatch):
    """Each way of section 9 grows a small network."""
    from lowland.reproduce import images

    monkeypatch.setattr(images, "load", lambda name, **_: small(name))
    table = settings("gpu").table
    task = replace(table.task, model="pad-resnet-14-4", examples=None, batch_size=20)
    few = Table(task, (replace(table.variants[number], epochs=1),))
    only = replace(tiny(), growths=(), table=few, checks=None, collapse=None, noise=None)
    (found,) = run(only, out=tmp_path / "run").runs
    assert found["status"] == "finished"
