"""The recipe draxler2018, shrunk to seconds: one record, whole, finite, resumable, drawable."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from lowland.connectivity import Cycle, PathResult
from lowland.report import write_report
from lowland.report.records import check_figure
from lowland.reproduce import RECIPES, draxler2018, draxler2018_landscape, draxler2018_norms
from lowland.reproduce.draxler2018 import Network, Training, run, settings
from lowland.reproduce.draxler2018_images import images_of, losses
from lowland.reproduce.draxler2018_landscape import find_minima
from lowland.reproduce.draxler2018_published import TABLE, published
from lowland.reproduce.draxler2018_xor import Xor
from lowland.results import Record, Status, plain, read_json
from lowland.training import open_progress, use_threads

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def tiny():
    """The smoke scale with two epochs, three minima, two cycles of a few steps."""
    smoke = settings("smoke")
    cycles = (Cycle(4, 0.1, insert="equal", count=1), Cycle(3, 0.1))
    schedule = replace(smoke.schedule, cycles=cycles, samples=2, examples=128, calibration=128)
    return replace(
        smoke,
        training=Training(2, 128),
        curve_steps=3,
        schedule=schedule,
        backend="loop",
        line_samples=3,
        plane=3,
        xor=Xor((2, 4), repetitions=1, pivots=9, steps=200),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run and its folder; tests only read it."""
    out = tmp_path_factory.mktemp("draxler2018") / "run"
    with use_threads(1):
        return run(tiny(), out=out, command="lowland run draxler2018"), out


def test_the_record(finished):
    """All claims in order, every pair, every value of the settings; the file says the same."""
    record, out = finished
    assert record.recipe in RECIPES
    assert [claim.id for claim in record.claims] == [f"C{number}" for number in range(1, 12)]
    assert record.settings == plain(tiny())
    assert record.settings["schedule"]["cycles"][0]["steps"] == 4
    assert (record.scale, record.seeds, len(record.runs)) == ("smoke", [0, 1, 2], 3 + 1 + 1)
    assert (record.command, record.paper["arxiv"]) == ("lowland run draxler2018", "1803.00885")
    assert record.status == plain(Status.FINISHED)
    assert record.seconds > 0
    assert Record.load(out / "record.json") == record


def test_no_nan_in_any_file(finished):
    for file in finished[1].rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


def test_numbers_of_a_pair(finished):
    """They are those of the results on disk."""
    record, out = finished
    pair = record.runs[0]
    a, b = pair["seeds"]
    path = PathResult.load(out / "landscapes" / "mlp-64-32-10" / "pairs" / f"{a}-{b}")
    line = PathResult.load(out / "lines" / f"mlp-64-32-10-{a}-{b}")
    assert pair["params"] == 64 * 32 + 32 + 32 * 10 + 10
    assert pair["path"] == path.record()
    assert pair["line"] == line.record()
    assert len(line.profile.t) == 3 + 2
    assert path.profile.train_loss[0] == pytest.approx(float(line.profile.train_loss[0]))
    for end, curve in zip((0, -1), pair["curves"], strict=True):
        assert curve[-1]["step"] == 2 * 12
        assert curve[-1]["train_loss"] == pytest.approx(
            float(path.profile.train_loss[end]), rel=1e-4
        )


def test_the_tree(finished):
    """Two of the three pairs of the first network are on it: those with the lowest saddles."""
    pairs = [pair for pair in finished[0].runs if pair["judged"]]
    by_saddle = sorted(pairs, key=lambda pair: pair["path"]["saddle"])
    assert [pair["on_tree"] for pair in by_saddle] == [True, True, False]
    claims = {claim.id: claim for claim in finished[0].claims}
    assert len(claims["C1"].values) == 2
    assert claims["C7"].verdict == "met"
    assert len(claims["C9"].values) == 2
    assert claims["C3"].verdict in ("met", "missed")


def test_losses_are_cross_entropies(rng):
    """Also of outputs whose exponentials overflow, and of many networks at once."""
    output = 200 * torch.randn(3, 40, 10, generator=rng, dtype=torch.float64)
    target = torch.randint(10, (40,), generator=rng)
    expected = torch.stack([cross_entropy(one, target, reduction="none") for one in output])
    torch.testing.assert_close(torch.vmap(losses, (0, None))(output, target), expected)
    torch.testing.assert_close(losses(output[0], target), expected[0])


def test_networks_that_learn_nothing_are_passed_over(tmp_path):
    """After no epoch at all every network still guesses."""
    slow = replace(tiny(), training=Training(1, 1024, learning_rate=1e-6))
    images = images_of(slow, device=torch.device("cpu"))
    with (
        use_threads(1),
        open_progress(False) as display,
        pytest.raises(ValueError, match="from 2 of 8 seeds; only 0 did"),
    ):
        find_minima(Network("mlp-64-8-10", 2), slow, images, tmp_path, display)


def test_the_papers_table():
    """All 28 rows; ratios and differences that the paper's text quotes."""
    assert len(TABLE) == len({row[:2] for row in TABLE}) == 28
    ratios = {row[:2]: row.saddles / row.minima for row in TABLE}
    assert ratios["cifar10", "resnet-20"] == pytest.approx(2.0, abs=0.05)
    assert ratios["cifar100", "densenet-40-12"] == pytest.approx(8.0, abs=0.05)
    assert max(row.error_saddles - row.error_minima for row in TABLE) == pytest.approx(3.3)
    assert published("cifar10", "cnn-12")["crossed"] == 78
    assert published("digits", "cnn-12") is None


def test_the_xor_network(finished):
    """Section 7.4: two units end at .478 and 25 %, four have no barrier; the line has 1.992."""
    record, out = finished
    two, four = read_json(out / "xor.json")["values"]
    assert two["saddle"] == pytest.approx(0.478, abs=0.02)
    assert (two["saddle_error"], four["saddle_error"]) == (25, 0)
    assert four["saddle"] == pytest.approx(four["end"], abs=1e-6)
    assert two["end"] == pytest.approx(0.0265, abs=1e-4)
    assert two["line_saddle"] == pytest.approx(1.992, abs=1e-3)
    assert record.claims[9].verdict == "met"


PLACES = {
    "lines": {"x_label", "y_label", "x_log", "y_log", "series", "marks"},
    "heatmap": {"x_label", "y_label", "x", "y", "values", "log", "value_label", "points", "paths"},
    "table": {"columns", "rows"},
    "text": {"text"},
}


def test_figures_fit_the_schema(finished):
    figures = finished[0].figures
    names = [figure["id"] for figure in figures]
    assert names[:3] == ["line-and-path", "plane", "disconnectivity-mlp-64-32-10"]
    assert {"exploration", "sizes", "architectures", "ways-mlp-64-32-10"} <= {*names}
    assert len({*names}) == len(names)
    for figure in figures:
        check_figure(figure)
        assert {"kind", "id", "title", "caption"} | PLACES[figure["kind"]] <= figure.keys()
        for series in figure.get("series", ()):
            assert len(series["x"]) == len(series["y"]) > 0
            assert series["style"] in ("line", "points", "dashed", "steps")
    heat = figures[1]
    assert len(heat["values"]) == len(heat["y"]) == 3
    assert [point["name"] for point in heat["points"]] == ["start", "end"]
    assert figures[names.index("pairs")]["rows"][0][2] == finished[0].runs[0]["line"]["saddle"]


def test_the_page(finished, tmp_path):
    """The report draws every figure."""
    finished[0].save(tmp_path / "record.json")
    page = write_report(tmp_path).read_text()
    for claim in finished[0].claims:
        assert claim.id in page
    assert all(
        (tmp_path / "figures" / f"draxler2018-{figure['id']}.csv").exists()
        for figure in finished[0].figures
        if figure["kind"] != "text"
    )


def files_of(out):
    """When files were written last; the summary of a landscape is written by every call."""
    summaries = {*out.glob("landscapes/*/result.json")}
    files = {f for f in out.rglob("*") if f.is_file() and "state" not in f.name} - summaries
    return {f: f.stat().st_mtime_ns for f in files}


def test_running_it_again_does_nothing_again(finished):
    """Same record, and of the files only the record is new."""
    record, out = finished
    before = files_of(out)
    with use_threads(1):
        again = run(tiny(), out=out, command="lowland run draxler2018")
    assert again == record
    changed = {file.name for file, time in files_of(out).items() if before[file] != time}
    assert changed <= {"record.json"}


def test_ctrl_c_and_on(finished, tmp_path, monkeypatch):
    """It passes through with what is finished saved; the same call ends with the same numbers."""

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    record, _ = finished
    with use_threads(1):
        for where, place in (
            (draxler2018_landscape, "connect_minima"),
            (draxler2018_landscape, "linear_path"),
            (draxler2018, "compare_paths"),
            (draxler2018, "measure_plane"),
            (draxler2018_norms, "find_path"),
            (draxler2018, "measure_xor"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(where, place, ctrl_c)
                with pytest.raises(KeyboardInterrupt):
                    run(tiny(), out=tmp_path)
        again = run(tiny(), out=tmp_path)
    assert timeless(plain(again.runs)) == timeless(record.runs)
    assert [claim.values for claim in again.claims] == [claim.values for claim in record.claims]


def timeless(value):
    """Plain values without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_a_folder_of_other_settings(finished):
    with pytest.raises(ValueError, match=r"training.epochs = 2, now training.epochs = 3"):
        run(replace(tiny(), training=Training(3, 128)), out=finished[1])


@pytest.mark.parametrize("scale", ["smoke", "laptop", "hour", "gpu", "paper"])
def test_scales(scale):
    """Plain frozen values, two minima or more; at least three pairs where claims are judged."""
    found = settings(scale)
    assert found.scale == scale
    assert json.loads(json.dumps(plain(found), allow_nan=False)) == plain(found)
    assert found.networks[0].judged
    assert found.networks[0].minima >= 3
    names = {network.name for network in found.networks}
    assert names >= {name for chain in found.sizes for name in chain}
    assert found.schedule.cycles[0].insert == "equal"


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="'smoke', 'laptop', 'hour', 'gpu', 'paper'; got 'big'"):
        settings("big")
    with pytest.raises(ValueError, match="at least 2 minima .--seeds.; got 1"):
        run(tiny(), seeds=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
