"""``lowland.results``: what is written is plain, finite and whole, and comes back as it was."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lowland import leftovers
from lowland.results import (
    Claim,
    Record,
    Status,
    environment,
    open_folder,
    plain,
    read_json,
    read_tensors,
    write_bytes,
    write_json,
    write_tensors,
)


@dataclass(frozen=True)
class Pair:
    left: object
    right: object = None


VALUES = [
    (None, None),
    (True, True),
    (3, 3),
    (0.5, 0.5),
    (nan, None),
    (-inf, None),
    ("word", "word"),
    (Path("a/b"), "a/b"),
    (Status.MAX_STEPS, "max_steps"),
    (torch.tensor([[1.0, nan], [inf, 2.0]]), [[1.0, None], [None, 2.0]]),
    (torch.tensor(3), 3),
    (torch.ones(2, dtype=torch.bfloat16, requires_grad=True), [1.0, 1.0]),
    (np.array([1, 2]), [1, 2]),
    (np.float64(nan), None),
    (np.float32(0.5), 0.5),
    ((1, {2.5}), [1, [2.5]]),
    ({1: Status.FINISHED, "b": [nan]}, {"1": "finished", "b": [None]}),
    (Pair(Pair(nan), (np.int64(1),)), {"left": {"left": None, "right": None}, "right": [1]}),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda value: type(value).__name__)
def test_plain(value, expected):
    """Everything a result holds becomes what JSON can hold."""
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


NUMBERS = st.floats() | st.integers() | st.none() | st.booleans() | st.text(max_size=3)
NESTED = st.recursive(
    NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)


@given(NESTED)
def test_never_a_nan(value):
    """JSON in the strict sense, and plain values stay as they are."""
    once = plain(value)
    assert json.loads(json.dumps(once, allow_nan=False)) == once
    assert plain(once) == once


@pytest.mark.parametrize("value", [object(), 1j, torch.ones(2, dtype=torch.complex64), Pair, b"a"])
def test_plain_refuses_the_rest(value):
    with pytest.raises(TypeError, match="a record holds plain values; got "):
        plain({"value": [value]})


def a_claim(**changes):
    return replace(
        Claim("C1", "Paths stay low.", "1.0", "saddle <= 3 x end", (1.0, 2.0, 4.5), "x", "met"),
        **changes,
    )


def test_summary_of_a_claim():
    assert (a_claim().n, a_claim().mean) == (3, 2.5)
    assert a_claim().std == pytest.approx(np.std([1.0, 2.0, 4.5], ddof=1))
    assert (a_claim(values=(1.0,)).mean, a_claim(values=(1.0,)).std) == (1.0, None)
    assert (a_claim(values=()).mean, a_claim(values=()).n) == (None, 0)
    assert plain(a_claim())["mean"] == 2.5
    assert Claim("C3", "", "", "").verdict == "not judged at this scale"


def a_record():
    return Record(
        recipe="draxler2018",
        paper={"title": "Essentially No Barriers", "year": 2018},
        scale="smoke",
        settings={"cycles": [{"steps": 3}]},
        seeds=[0, 1],
        runs=[{"saddle": 0.5, "t": [0.0, None]}],
        claims=[a_claim(), Claim("C3", "s", "p", "r")],
        figures=[{"kind": "text", "id": "a", "title": "b", "text": "c"}],
        environment={"torch": "2"},
        seconds=1.5,
        command="lowland run draxler2018",
        notes=["A sentence."],
    )


def test_a_record_comes_back(tmp_path):
    """Loaded, it equals what was saved, and saves to the same bytes."""
    file = a_record().save(tmp_path / "new" / "record.json")
    assert Record.load(file) == a_record()
    again = Record.load(file).save(tmp_path / "again.json")
    assert again.read_bytes() == file.read_bytes()
    assert read_json(file)["claims"][0]["std"] == pytest.approx(a_claim().std)


def test_what_is_not_finite_is_a_hole_in_a_record(tmp_path):
    broken = replace(a_record(), runs=[{"saddle": inf}], claims=[a_claim(values=(nan, 1.0))])
    file = broken.save(tmp_path / "record.json")
    assert "NaN" not in file.read_text()
    assert "Infinity" not in file.read_text()
    loaded = Record.load(file)
    assert loaded.runs == [{"saddle": None}]
    assert loaded.claims[0].values == (None, 1.0)
    assert (loaded.claims[0].mean, loaded.claims[0].std) == (None, None)
    assert loaded.save(tmp_path / "again.json").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_death_while_writing(tmp_path, monkeypatch, place):
    """Until the file is renamed, a reader finds the old content."""
    file = write_json(tmp_path / "a.json", {"old": 1})

    def die(*_):
        raise KeyboardInterrupt

    if place == "write":  # half of it is there
        monkeypatch.setattr(os, "fsync", lambda number: os.truncate(number, 3) or die())
    else:
        monkeypatch.setattr(os, place, die)
    with pytest.raises(KeyboardInterrupt):
        write_json(file, {"new": 2})
    assert read_json(file) == {"old": 1}
    monkeypatch.undo()
    write_json(file, {"new": 2})
    assert read_json(file) == {"new": 2}
    assert list(tmp_path.iterdir()) == [file]


def test_order_of_writing(tmp_path, monkeypatch):
    """The content is on the disk before the name: fsync comes before the renaming."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, real=real: calls.append(name) or real(*args)
        )
    write_bytes(tmp_path / "a", b"1")
    assert calls == ["fsync", "replace"]


def test_tensors_come_back(tmp_path):
    """Bit for bit, also views, shared memory, scalars and several types."""
    whole = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    tensors = {
        "whole": whole,
        "row": whole[1],
        "transposed": whole.T,
        "again": whole,
        "scalar": torch.tensor(2.5, dtype=torch.float64, requires_grad=True),
        "count": torch.tensor([1, -1]),
        "half": whole.bfloat16(),
        "nothing": torch.zeros(0, 3),
    }
    file = write_tensors(tmp_path / "a" / "t.safetensors", tensors, {"format": "1"})
    read, metadata = read_tensors(file)
    assert metadata == {"format": "1"}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert read_tensors(write_tensors(tmp_path / "b.safetensors", {"a": whole}))[1] == {}


SETTINGS = {"seed": 0, "schedule": {"cycles": [{"steps": 3}, {"steps": 4}]}, "limit": None}


def test_a_folder_belongs_to_its_settings(tmp_path):
    out = open_folder(tmp_path / "a" / "run", SETTINGS)
    (out / "cycle-01.json").write_text("1")
    assert open_folder(str(out), {**SETTINGS, "schedule": plain(SETTINGS["schedule"])}) == out
    assert (out / "cycle-01.json").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed = 0, now seed = 1"),
        ({"schedule": {"cycles": [{"steps": 3}, {"steps": 5}]}}, r"schedule.cycles.1.steps = 4"),
        ({"schedule": {"cycles": [{"steps": 3}]}}, r"schedule.cycles = \["),
        ({"limit": 7}, "limit = None, now limit = 7"),
        ({"new": 1}, "new = None, now new = 1"),
    ],
)
def test_other_settings_are_named(tmp_path, changes, named):
    """The first difference, with both values, and what to do."""
    open_folder(tmp_path, SETTINGS)
    (tmp_path / "cycle-01.json").write_text("1")
    with pytest.raises(ValueError, match=named + r".*Choose another folder, or restart"):
        open_folder(tmp_path, SETTINGS | changes)


def test_a_folder_without_results_takes_other_settings(tmp_path):
    """A command that failed at once must not lock its folder for the corrected one."""
    open_folder(tmp_path, SETTINGS)
    other = SETTINGS | {"seed": 1}
    open_folder(tmp_path, other)
    assert read_json(tmp_path / "lowland.json") == other


def test_restart_begins_anew_and_deletes_nothing(tmp_path, caplog):
    """The old folder lies beside the new one, under the next free name, and that is said."""
    out = open_folder(tmp_path / "run", SETTINGS)
    write_json(out / "pairs" / "cycle-01.json", 1)
    other = SETTINGS | {"seed": 1}
    assert open_folder(out, other, restart=True) == out
    assert [file.name for file in out.iterdir()] == ["lowland.json"]
    assert read_json(out / "lowland.json") == other
    assert read_json(tmp_path / "run.old-1" / "lowland.json") == plain(SETTINGS)
    assert read_json(tmp_path / "run.old-1" / "pairs" / "cycle-01.json") == 1
    assert f"now lies in {tmp_path / 'run.old-1'}" in caplog.text
    write_json(out / "result.json", 2)
    open_folder(out, SETTINGS, restart=True)
    assert read_json(tmp_path / "run.old-2" / "result.json") == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run", "run.old-1", "run.old-2"]


def test_restart_of_an_empty_run_leaves_nothing_behind(tmp_path):
    out = open_folder(tmp_path / "run", SETTINGS)
    open_folder(out, SETTINGS | {"seed": 1}, restart=True)
    assert read_json(out / "lowland.json")["seed"] == 1
    assert list(tmp_path.iterdir()) == [out]


def test_restart_loses_nothing_that_looks_like_ours(tmp_path):
    """Another run inside, a copied model, and neighbors that bear the name of an old folder."""
    out = open_folder(tmp_path / "run", SETTINGS)
    open_folder(out / "b", SETTINGS | {"seed": 7})
    files = {"backup/model.safetensors": "precious", "b/result.json": "1\n"}
    for name, text in files.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text)
    for name in (".run.old", "run.old-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    open_folder(out, SETTINGS | {"seed": 1}, restart=True)
    assert {name: (tmp_path / "run.old-2" / name).read_text() for name in files} == files
    assert read_json(tmp_path / "run.old-2" / "b" / "lowland.json")["seed"] == 7
    for name in (".run.old", "run.old-1"):
        assert (tmp_path / name / "thesis.txt").read_text() == "mine"


def test_restart_keeps_a_link_to_another_disk(tmp_path):
    """The folder that it leads to is moved, beside itself; the link leads to the new one."""
    disk = tmp_path / "scratch" / "disk"
    disk.mkdir(parents=True)
    out = tmp_path / "run"
    out.symlink_to(disk)
    open_folder(out, SETTINGS)
    for seed in (1, 2):
        write_json(out / "result.json", seed)
        open_folder(out, SETTINGS | {"seed": seed}, restart=True)
        assert out.is_symlink()
        assert out.resolve() == disk
        assert [file.name for file in disk.iterdir()] == ["lowland.json"]
        assert read_json(tmp_path / "scratch" / f"disk.old-{seed}" / "result.json") == seed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run", "scratch"]


@pytest.mark.parametrize("here", [".", "pairs"])
def test_restart_does_not_move_the_working_directory(tmp_path, monkeypatch, here):
    out = open_folder(tmp_path / "run", SETTINGS)
    write_json(out / "pairs" / "cycle-01.json", 1)
    monkeypatch.chdir(out / here)
    with pytest.raises(ValueError, match="must not be the working directory.*Go to another"):
        open_folder("." if here == "." else "..", SETTINGS, restart=True)
    assert (out / "pairs" / "cycle-01.json").exists()


USERS = ["notes.txt", "pairs/best.pt", "mine.safetensors", "figure.png", "settings.json"]


@pytest.mark.parametrize("name", USERS)
def test_restart_refuses_what_is_not_ours(tmp_path, name):
    """Whatever else lies there is named, and nothing at all is moved."""
    out = open_folder(tmp_path / "run", SETTINGS)
    ours = [write_json(out / "pairs" / "cycle-01.json", {"steps": [1, 0.5], "loss": nan})]
    ours += [write_tensors(out / "cycle-01.safetensors", {"a": torch.ones(2)})]
    ours += [write_bytes(out / "figures" / "a.png", b"1"), write_bytes(out / "state.pt", b"1")]
    file = out / name
    file.write_text('{"mine": 1}')
    sentence = f"must hold only what lowland wrote; .* also holds {name}. Move that away"
    with pytest.raises(ValueError, match=sentence):
        open_folder(out, SETTINGS | {"seed": 1}, restart=True)
    assert all(other.exists() for other in (*ours, file))
    assert read_json(out / "lowland.json") == plain(SETTINGS)
    file.unlink()
    open_folder(out, SETTINGS | {"seed": 1}, restart=True)
    assert [other.name for other in out.iterdir()] == ["lowland.json"]


def test_restart_follows_no_link(tmp_path):
    out = open_folder(tmp_path / "run", SETTINGS)
    (tmp_path / "state.pt").write_text("x")
    (out / "state.pt").symlink_to(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="also holds state.pt"):
        open_folder(out, SETTINGS, restart=True)


def test_half_written_files_of_the_dead_go(tmp_path, monkeypatch):
    """Of dead processes of this machine at once, of others after a day; nothing else goes.

    Only names that we write; in folders below, their own runs look after them.
    """
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    monkeypatch.setattr(leftovers, "node", lambda: "here.example.org")
    out = open_folder(tmp_path / "run", SETTINGS)
    dead = f"here-{child.pid}.tmp"
    gone = [f".a.json.{dead}", f".state.pt.{dead}", ".path.safetensors.there-1.tmp"]
    kept = [f".a.json.here-{os.getpid()}.tmp", f".a.json.there-{child.pid}.tmp", ".a.tmp", "a.tmp"]
    kept += [f".data.{child.pid}.tmp", f".data.{dead}", f".a.json.{child.pid}.tmp"]
    kept += [f"pairs/.a.json.{dead}", f".b.json.{dead}/mine", f".thesis.txt.{dead}"]
    for name in (*gone, *kept):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("half")
    os.utime(out / gone[-1], (0, 0))
    open_folder(out, SETTINGS)
    assert [name for name in (*gone, *kept) if (out / name).exists()] == kept


def test_a_killed_write_leaves_what_is_recognized(tmp_path, monkeypatch):
    """The name of a temporary file tells the process that wrote it."""
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(tmp_path.iterdir()))
    write_json(tmp_path / "a.json", 1)
    (temporary,) = seen
    found = leftovers.TEMPORARY.fullmatch(temporary.name)
    assert (found["host"], int(found["process"])) == (leftovers.host(), os.getpid())


def test_restart_does_not_delete_a_folder_of_somebody_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    open_folder(tmp_path, SETTINGS, restart=True)
    assert (tmp_path / "thesis.tex").exists()


def test_death_while_restarting(tmp_path, monkeypatch):
    """Nothing of the old run is ever taken for part of the new one."""
    out = open_folder(tmp_path / "run", SETTINGS)
    write_json(out / "cycle-01.json", 1)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)  # the old one is moved, the new one not yet written
    with pytest.raises(KeyboardInterrupt):
        open_folder(out, SETTINGS | {"seed": 1}, restart=True)
    monkeypatch.undo()
    out = open_folder(out, SETTINGS | {"seed": 1}, restart=True)
    assert [file.name for file in out.iterdir()] == ["lowland.json"]
    assert read_json(tmp_path / "run.old-1" / "cycle-01.json") == 1


def test_environment_is_plain():
    found = environment()
    assert plain(found) == found
    assert found["torch"] == str(torch.__version__)
    assert found["threads"] == torch.get_num_threads()
