"""The recipe katharopoulos2018, shrunk to seconds: a record, whole, finite, resumable, drawable."""

import json
from dataclasses import replace

import pytest
import torch

from lowland.report import write_report
from lowland.report.records import check_figure
from lowland.reproduce import RECIPES, katharopoulos2018
from lowland.reproduce.katharopoulos2018 import FineTuning, Noise, run, settings
from lowland.reproduce.katharopoulos2018_noise import all_digits, describe_optimum, find_optimum
from lowland.reproduce.katharopoulos2018_races import flushed_denormals
from lowland.reproduce.katharopoulos2018_switch import changed_lines, first_active
from lowland.results import Record, Status, plain, read_json
from lowland.training import use_threads


def tiny():
    """The smoke scale with a dozen steps of everything."""
    smoke = settings("smoke")
    images, fine_tuning, sequences = smoke.races
    images = replace(
        images,
        steps=24,
        grid=("uniform", "replacement", "paper", "default", "larger"),
        tuned=("subset",),
        clocked=("uniform", "paper"),
        rates=(0.1, 0.2),
        threshold=1.05,
        evaluations=2,
    )
    fine_tuning = replace(
        fine_tuning, steps=12, evaluations=2, pretrained=FineTuning("digits", 5, 4), threshold=1.05
    )
    return replace(
        smoke,
        races=(images, fine_tuning, replace(sequences, steps=6, evaluations=2)),
        variance=replace(smoke.variance, looks=(0, 4), pool=24, size=8, draws=2, timed=4),
        noise=Noise(2, 16, order=("iid", "epochs"), every=4),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run and its folder; tests only read it."""
    out = tmp_path_factory.mktemp("katharopoulos2018") / "run"
    return run(tiny(), out=out, command="lowland run katharopoulos2018"), out


def test_the_record(finished):
    """All claims in order, every value of the settings; the file says the same."""
    record, out = finished
    assert record.recipe in RECIPES
    assert [claim.id for claim in record.claims] == [f"C{number}" for number in range(1, 14)]
    assert record.settings == plain(tiny())
    assert (record.scale, record.seeds) == ("smoke", [0, 1])
    assert (record.command, record.paper["arxiv"]) == (
        "lowland run katharopoulos2018",
        "1803.00942",
    )
    assert record.status == plain(Status.FINISHED)
    assert record.seconds > 0
    assert record.environment["threads"] == 1
    assert Record.load(out / "record.json") == record


def test_no_nan_in_any_file(finished):
    for file in finished[1].rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


def runs_of(record, **wanted):
    return [r for r in record.runs if all(r[name] == value for name, value in wanted.items())]


def test_every_arm_under_every_budget(finished):
    """Equal steps are equal, costs and seconds are spent and not more than a step overspent."""
    record, _ = finished
    assert {r["clock"] for r in runs_of(record, race="images")} == {"steps", "cost", "seconds"}
    for one in runs_of(record, race="images", clock="steps"):
        assert one["steps"] == 24
    dearest = 96 + 3 * 64
    for one in runs_of(record, clock="cost"):
        full = 3 * (24 * 32 if one["race"] == "images" else 12 * 16)
        if one["race"] != "sequences" and one["arm"] not in ("uniform", "replacement", "subset"):
            assert full <= one["cost"] < full + dearest
    for race in ("images", "fine-tuning"):
        uniform = runs_of(record, race=race, clock="cost", arm="uniform", seed=0)[0]
        for one in runs_of(record, race=race, clock="seconds", seed=0):
            assert one["seconds"] >= 0.99 * uniform["seconds"]
    paper = runs_of(record, race="images", clock="cost", arm="paper", seed=0)[0]
    assert 0 < paper["active_share"] < 1
    assert paper["steps"] < 24


def test_the_same_start_for_every_arm(finished):
    """Arms of one seed begin with the same weights; another seed has others."""
    record, _ = finished
    first = {
        seed: {r["curve"][0]["train_loss"] for r in runs_of(record, race="images", seed=seed)}
        for seed in (0, 1)
    }
    assert [len(losses) for losses in first.values()] == [1, 1]
    assert first[0] != first[1]


def test_tuned_on_the_other_seed(finished):
    """With two seeds, the rate of one is the better rate of the other."""
    record, _ = finished
    for seed in (0, 1):
        other = runs_of(record, race="images", clock="cost", arm="paper", seed=1 - seed)
        best = min(other, key=lambda r: r["train_loss"])["rate"]
        mine = runs_of(record, race="images", clock="cost", arm="paper", seed=seed, is_tuned=True)
        assert [r["rate"] for r in mine] == [best]


def test_the_counter_result_is_told(finished):
    """Its own table, the specification's numbers beside ours, both uniform arms."""
    (found,) = (figure for figure in finished[0].figures if figure["id"] == "counter-result")
    rows = {(row[0], row[1]): row for row in found["rows"]}
    assert rows["uniform, shuffled epochs", 0.1][2] == 1.1e-2
    assert rows["importance, paper's rule, equal cost", 0.2][2] == 1.2e-2
    assert rows["uniform, with replacement", 0.2][3] > 0
    assert any(str(name).startswith("best against best") for name, _ in rows)


def test_figures_fit_the_schema(finished):
    figures = finished[0].figures
    names = [figure["id"] for figure in figures]
    assert len({*names}) == len(names)
    assert {"images-seconds", "images-steps", "distances", "switch", "decisions", "arms"} < {*names}
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
        (tmp_path / "figures" / f"katharopoulos2018-{figure['id']}.csv").exists()
        for figure in finished[0].figures
        if figure["kind"] != "text"
    )


def test_running_it_again_does_nothing_again(finished):
    record, out = finished
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.json")}
    assert run(tiny(), out=out, command="lowland run katharopoulos2018") == record
    changed = {f.name for f, time in before.items() if f.stat().st_mtime_ns != time}
    assert changed <= {"record.json"}


def test_what_is_lost_comes_back_the_same(finished, tmp_path):
    """Some finished parts deleted: the same numbers, except where a clock decides."""
    import shutil

    record, out = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for name in ("noise.json", "variance/0.json", "races/images/1-cost.json", "record.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "races" / "fine-tuning" / "backbone")
    (copy / "races" / "fine-tuning" / "0-cost.json").unlink()
    with use_threads(1):
        again = run(tiny(), out=copy)
    assert timeless(again.runs) == timeless(record.runs)
    for name in ("noise.json", "variance/0.json"):
        assert timeless(read_json(copy / name)) == timeless(read_json(out / name))


CLOCKED = ("seconds", "trace", "milliseconds")


def timeless(value):
    """Plain values without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name not in CLOCKED}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_ctrl_c_and_on(finished, tmp_path, monkeypatch):
    """It passes through with what is finished saved; the same call goes on."""

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    one = replace(tiny(), races=tiny().races[1:2])
    for place in ("measure_switch", "measure_variance", "measure_noise"):
        with monkeypatch.context() as patch:
            patch.setattr(katharopoulos2018, place, ctrl_c)
            with pytest.raises(KeyboardInterrupt):
                run(one, out=tmp_path)
    again = run(one, out=tmp_path)
    whole = runs_of(finished[0], race="fine-tuning", clock="cost")
    assert timeless(runs_of(again, clock="cost")) == timeless(whole)


def test_a_folder_of_other_settings(finished):
    other = replace(tiny(), races=(replace(tiny().races[0], steps=25), *tiny().races[1:]))
    with pytest.raises(ValueError, match=r"races.0.steps = 24, now races.0.steps = 25"):
        run(other, out=finished[1])


@pytest.mark.parametrize("scale", ["smoke", "laptop", "hour", "gpu", "paper"])
def test_scales(scale):
    """Plain frozen values; enough seeds where claims are judged."""
    found = settings(scale)
    assert found.scale == scale
    assert json.loads(json.dumps(plain(found), allow_nan=False)) == plain(found)
    assert all(race.seeds >= 3 for race in found.races) or scale == "smoke"
    assert all("uniform" in race.clocked for race in found.races)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="'smoke', 'laptop', 'hour', 'gpu', 'paper'; got 'big'"):
        settings("big")
    races = (replace(tiny().races[0], grid=("uniform", "magic")),)
    with pytest.raises(ValueError, match="an arm must be one of uniform.*got 'magic'"):
        run(replace(tiny(), races=races), out=tmp_path / "run")
    races = (replace(tiny().races[0], task=replace(tiny().races[0].task, model="nothing")),)
    with pytest.raises(ValueError, match="name must be that of a network"):
        run(replace(tiny(), races=races), out=tmp_path / "other")
    assert not any((tmp_path / name).exists() for name in ("run", "other"))


def test_denormals_are_flushed_for_the_pixel_lstm_only():
    """Half of the smallest normal number is zero in the block, and is there again after it."""
    assert [race.name for race in settings("paper").races if race.flush_denormals] == ["sequences"]
    assert not any(race.flush_denormals for race in settings("laptop").races)
    smallest = torch.full((64,), torch.finfo(torch.float32).tiny)

    def is_kept():
        return bool((smallest / 2).any())

    with flushed_denormals(is_on=False):
        assert is_kept()
    with flushed_denormals(is_on=True):
        assert not is_kept()
    assert is_kept()


def test_the_optimum_of_the_noise_floor():
    """Oracle O10."""
    with use_threads(1):
        problem = all_digits(1e-3)
        found = describe_optimum(problem, find_optimum(problem))
    assert found["loss"] == pytest.approx(0.26392582, abs=2e-8)
    assert found["cross_entropy"] == pytest.approx(0.14300591, abs=1e-5)
    assert found["accuracy"] == pytest.approx(0.979410, abs=1e-6)
    assert found["tau_exact"] == pytest.approx(3.040858, abs=1e-3)
    assert found["tau_bound"] == pytest.approx(3.023347, abs=1e-3)
    assert found["tau_loss"] == pytest.approx(4.857266, abs=1e-3)
    assert found["second_moment_exact"] == pytest.approx(0.328854, abs=1e-4)
    assert found["second_moment_bound"] == pytest.approx(0.330850, abs=1e-4)
    assert found["second_moment_loss"] == pytest.approx(0.351644, abs=1e-4)


def test_first_active_step():
    """Oracle O4: on after 11 and after 27 updates; never where tau stays below."""
    assert first_active(3.0, 2.0) == 12
    assert first_active(1.6, 1.5) == 28
    assert first_active(1.5, 1.5) is None
    assert 3.0 * (1 - 0.9**11) > 2.0 > 3.0 * (1 - 0.9**10)


def test_changed_lines():
    """New and changed lines count, imports, comments and blank lines do not."""
    plain_loop = "for x in loader:\n    loss = f(x)\n    loss.backward()"
    same = "import a\n\nfor x in loader:  # every batch\n    loss = f(x)\n    loss.backward()"
    assert changed_lines((plain_loop, same)) == 0
    new = "s = S()\nfor x in s(loader):\n    loss = s.loss(x)\n    loss.backward()"
    assert changed_lines((plain_loop, new)) == 3


@pytest.mark.gpu
def test_on_an_accelerator(tmp_path):
    """Everything runs there, too."""
    found = run(replace(tiny(), device="cuda", variance=None, noise=None), out=tmp_path)
    assert found.environment["device"] == torch.cuda.get_device_name()
