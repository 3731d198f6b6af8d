"""The recipe baityjesi2018, shrunk to seconds: one record, whole, finite, resumable, drawable."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lowland.report import write_report
from lowland.report.records import check_figure
from lowland.reproduce import RECIPES
from lowland.reproduce.baityjesi2018 import (
    Course,
    Flat,
    Glass,
    Quench,
    Settings,
    Task,
    Widths,
    run,
    settings,
)
from lowland.reproduce.baityjesi2018_courses import kept_weights, network
from lowland.reproduce.baityjesi2018_published import COURSE, PARAMS
from lowland.reproduce.baityjesi2018_widths import Together, each, losses_of_all
from lowland.reproduce.images import Images
from lowland.results import Record, Status, plain
from lowland.settings import from_plain

TASK = Task("digits", "mlp-64-4-10", 50, examples=200)
OVER = Course(
    "digits", "over", TASK, steps=40, seeds=2, waits=8, lags=10, losses=20, noise_batches=3,
    replicas=2, cloned=(20,), cloned_lags=5, cloned_last=10, kept=(0, 20, 40),
)  # fmt: skip


def tiny():
    """Everything that a scale may hold, on 200 digits."""
    short = {"steps": 30, "seeds": 1, "replicas": 0, "cloned": (), "kept": ()}
    return Settings(
        "smoke",
        (
            OVER,
            replace(OVER, name="narrow", kind="under", **short),
            replace(
                OVER, name="toy", kind="toy", task=replace(TASK, model="bruna-4"), loss="mse",
                **short,
            ),
        ),
        Glass(until=4.0, waits=(0.5, 1.0, 2.0), size=8, samples=2, replicas=2, simulated_until=2.0),
        (Quench("digits", steps=3, line=3, cycles=(2,), pivots=1),),
        (Flat("digits", examples=50),),
        Widths(TASK, (1, 2), steps=5, seeds=2),
        judged=False,
        samples=2,
        threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run and its folder; tests only read it."""
    out = tmp_path_factory.mktemp("baityjesi2018") / "run"
    return run(tiny(), out=out, command="lowland run baityjesi2018"), out


def test_the_record(finished):
    """All claims in order, every value of the settings; the file says the same."""
    record, out = finished
    assert record.recipe in RECIPES
    assert [claim.id for claim in record.claims] == [f"C{number}" for number in range(1, 14)]
    assert {claim.verdict for claim in record.claims} == {"not judged at this scale"}
    assert record.settings == plain(tiny())
    assert (record.scale, record.seeds) == ("smoke", [0, 1])
    assert (record.command, record.paper["arxiv"]) == ("lowland run baityjesi2018", "1803.06969")
    assert record.status == plain(Status.FINISHED)
    assert record.seconds > 0
    assert Record.load(out / "record.json") == record


def test_what_a_course_records(finished):
    """Losses and noise from 0 to the end; the displacements of single updates; clones once."""
    first, second, *_ = finished[0].runs
    assert (first["course"], first["seed"], second["seed"]) == ("digits", 0, 1)
    assert first["params"] == 64 * 4 + 4 + 4 * 10 + 10
    for part in ("losses", "noise"):
        steps = [row["step"] for row in first[part]]
        assert (steps[0], steps[-1]) == (0, 40)
        assert steps == sorted(set(steps))
    assert [clone["wait"] for clone in first["clones"]] == [20]
    assert second["clones"] == []
    assert all(value > 0 for value in first["clones"][0]["displacement"])
    assert {1, 20} <= {curve["wait"] for curve in first["curves"]}


def test_displacements_are_those_of_the_kept_weights(finished):
    """The pair (0, 20) and (20, 20) by hand, from weights on disk."""
    record, out = finished
    states = kept_weights(out / "courses/digits/0")
    assert list(states) == [0, 20, 40]
    flat = {n: torch.cat([v.flatten() for v in s.values()]).double() for n, s in states.items()}
    for wait in (0, 20):
        curve = next(c for c in record.runs[0]["curves"] if c["wait"] == wait)
        found = curve["displacement"][curve["lag"].index(20)]
        assert found == pytest.approx((flat[wait + 20] - flat[wait]).square().mean().item())


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
    for name in ("record.json", "courses/digits/1.json", "quenches/digits/0.json", "widths.json"):
        (copy / name).unlink()
    again = run(tiny(), out=copy, command="lowland run baityjesi2018")
    assert timeless(again.runs) == timeless(record.runs)
    assert timeless(plain(again.claims)) == timeless(plain(record.claims))
    assert again.runs[0] == record.runs[0]


def test_a_kill_in_mid_course(tmp_path, monkeypatch):
    """A course that keeps its state goes on to the same bits, recorder and clones included."""
    from lowland.reproduce import baityjesi2018_courses

    course = replace(OVER, seeds=1, keep_state=True)
    only = Settings("smoke", (course,), judged=False, samples=2, threads=1)
    whole = run(only, out=tmp_path / "whole")
    real = baityjesi2018_courses.measure_dynamics
    with monkeypatch.context() as patch:
        patch.setattr(
            baityjesi2018_courses,
            "measure_dynamics",
            lambda *a, **k: real(*a, max_steps_now=25, **k),
        )
        with pytest.raises(KeyboardInterrupt):
            run(only, out=tmp_path / "parts")
    assert timeless(run(only, out=tmp_path / "parts").runs) == timeless(whole.runs)
    first, second = (
        kept_weights(tmp_path / name / "courses/digits/0") for name in ("whole", "parts")
    )
    for step, state in first.items():
        assert all(torch.equal(value, second[step][name]) for name, value in state.items())


def test_figures_are_drawn(finished, tmp_path):
    """Every figure is one that the report knows, and the page is written."""
    record = finished[0]
    names = [figure["id"] for figure in record.figures]
    for figure in record.figures:
        check_figure(figure)
    assert len(set(names)) == len(names)
    for name in (
        "loss-digits", "displacement-digits", "collapse-digits", "clones-digits", "loss-toy",
        "glass-energy", "glass-displacement-1", "glass-simulation", "glass-negative", "flat",
        "quench-digits-0", "widths", "phases", "clone-exponents", "quenches", "flat-directions",
        "differences",
    ):  # fmt: skip
        assert name in names
    json.dumps(record.figures, allow_nan=False)
    few = [f for f in record.figures if f["id"] in ("collapse-digits", "glass-energy", "phases")]
    replace(record, figures=few, story=None).save(tmp_path / "record.json")
    page = write_report(tmp_path).read_text()
    for claim in record.claims:
        assert claim.id in page


def test_a_folder_of_other_settings(finished):
    with pytest.raises(ValueError, match="judged = False, now judged = True"):
        run(replace(tiny(), judged=True), out=finished[1])


@pytest.mark.parametrize("scale", ["smoke", "laptop", "hour", "gpu", "paper"])
def test_scales(scale):
    """Plain frozen values, with names of their own, that name existing courses."""
    found = settings(scale)
    assert found.scale == scale
    assert json.loads(json.dumps(plain(found), allow_nan=False)) == plain(found)
    assert from_plain(Settings, plain(found)) == found
    names = [course.name for course in found.courses]
    assert len(set(names)) == len(names)
    for wanted in (*found.quenches, *found.flat):
        (course,) = (one for one in found.courses if one.name == wanted.course)
        assert max(course.kept) <= course.steps
    for course in found.courses:
        assert max((*course.kept, *(c + course.cloned_last for c in course.cloned)), default=0) <= (
            course.steps
        )
        assert course.replicas != 1


def test_the_published_course_is_the_published_network():
    """Section 5 of the specification: 56,890 weights, and a first loss near ln 10."""
    images = Images(
        COURSE.task, (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4)),
        (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4)), 10, "",
        torch.device("cpu"),
    )  # fmt: skip
    model = network(images, 0)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMS
    x = torch.randn(50, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = cross_entropy(model(x), torch.arange(50) % 10).item()
    assert loss == pytest.approx(2.3092, abs=0.03)
    again = network(images, 0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))  # noqa: B905


def test_networks_together_are_networks_alone(rng):
    """Outputs, losses and gradients of each; weights that a narrow one lacks stay zero."""
    together = Together(6, [2, 3], 4, [5, 6])
    x = torch.randn(7, 1, 2, 3, generator=rng)
    target = torch.randint(4, (7,), generator=rng)
    losses_of_all(together(x), target).mean().backward()
    for number, (width, seed) in enumerate(((2, 5), (3, 6))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            alone = nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))
        output = alone(x)
        torch.testing.assert_close(together(x)[:, number], output)
        loss = cross_entropy(output, target)
        torch.testing.assert_close(each(together(x), target)[:, number].mean(), loss)
        loss.backward()
        gradient = together.first.grad[number]
        torch.testing.assert_close(gradient[:-1, :width], alone[1].weight.grad.T)
        torch.testing.assert_close(together.second.grad[number, -1], alone[3].bias.grad)
    assert not together.first.grad[0, :, 2].any()
    assert not together.second.grad[0, 2].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, courses=(replace(OVER, loss="hinge"),)), "ce, mse; got 'hinge'"),
        (lambda s: replace(s, quenches=(Quench("nowhere"),)), "digits, narrow, toy; got 'nowhere'"),
        (lambda s: replace(s, flat=(Flat("toy"),)), "course toy must keep weights"),
        (
            lambda s: replace(s, courses=(replace(OVER, task=replace(TASK, model="bruna")),)),
            "Did you mean bruna-10",
        ),
    ],
)
def test_wrong_settings_are_told_before_anything_is_written(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(change(tiny()), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_scale():
    with pytest.raises(ValueError, match="'paper'; got 'pocket'"):
        settings("pocket")


def test_a_network_with_batch_norm_at_toy_size(tmp_path):
    """What the scale ``gpu`` does with ResNet-18: record, quench, count by quadrature."""
    task = replace(TASK, model="mlp-bn-64-4-10")
    course = replace(OVER, task=task, seeds=1, replicas=0, cloned=(), kept=(20, 40))
    only = Settings(
        "gpu", (course,), None, (Quench("digits", steps=2, line=2, cycles=(2,), pivots=1),),
        (Flat("digits", exact=False, probes=2, steps=10, examples=50),), judged=False, samples=2,
        threads=1,
    )  # fmt: skip
    record = run(only, out=tmp_path / "run")
    assert record.status == plain(Status.FINISHED)
    names = [figure["id"] for figure in record.figures]
    assert {"quench-digits-0", "flat", "flat-directions"} <= set(names)
