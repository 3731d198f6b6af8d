"""Weights come back bit for bit from every kind of file, and misfits are told in words."""

import json
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lowland.errors import CheckpointError
from lowland.results import read_tensors
from lowland.training import match_state, read_state, save_state


def network(width=4):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


class Wrapped(nn.Module):
    """A model whose names really begin with ``model.``."""

    def __init__(self):
        super().__init__()
        self.model = network()


def assert_equal(got, want):
    assert list(got) == list(want)
    assert all(torch.equal(got[name], want[name]) for name in want)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def sharded_folder(folder, state):
    """A Hugging Face folder with two shards and their index."""
    folder.mkdir()
    names = list(state)
    parts = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def sources(tmp_path, state):
    yield "state dict", state
    yield "module", network()
    for suffix in ("pt", "pth", "bin"):
        torch.save(state, tmp_path / f"plain.{suffix}")
        yield suffix, tmp_path / f"plain.{suffix}"
    torch.save({"epoch": 3, "model": state, "args": {"lr": 0.1}}, tmp_path / "wrapped.pt")
    yield "wrapped", str(tmp_path / "wrapped.pt")
    lightning = {"state_dict": prefixed(state, "model."), "epoch": 1}
    torch.save(lightning, tmp_path / "last.ckpt")
    yield "lightning", tmp_path / "last.ckpt"
    torch.save(prefixed(state, "module._orig_mod."), tmp_path / "compiled.pt")
    yield "compiled and parallel", tmp_path / "compiled.pt"
    torch.save(AveragedModel(network()).state_dict(), tmp_path / "averaged.pt")
    yield "averaged", tmp_path / "averaged.pt"
    yield "safetensors", save_state(tmp_path / "model.safetensors", state, {"note": "mine"})
    yield "module as safetensors", save_state(tmp_path / "module.safetensors", network())
    yield "folder", tmp_path
    yield "sharded folder", sharded_folder(tmp_path / "sharded", state)


def test_every_kind_of_source_gives_the_same_bits(tmp_path):
    model = network()
    state = model.state_dict()
    for kind, source in sources(tmp_path, state):
        found = read_state(source)
        counter = {"n_averaged"} if kind == "averaged" else set()
        assert set(found) == set(state) | counter, kind
        assert_equal(match_state(network(width=4), found), state)
    assert read_tensors(tmp_path / "model.safetensors")[1]["note"] == "mine"


def test_what_is_read_does_not_move_with_the_model():
    model = network()
    for source in (model, model.state_dict()):
        found = read_state(source)
        before = found["0.bias"].clone()
        model[0].bias.data += 1
        assert torch.equal(found["0.bias"], before)


def test_own_prefix_is_found_again():
    model = Wrapped()
    matched = match_state(model, read_state(model))
    assert_equal(matched, model.state_dict())
    model.load_state_dict(matched)


class Lightning(nn.Module):
    """A network under a name of its own, perhaps with something else beside it."""

    def __init__(self, net, **others):
        super().__init__()
        self.net = net
        for name, module in others.items():
            setattr(self, name, module)


def ckpt(folder, module):
    torch.save({"state_dict": module.state_dict(), "epoch": 1}, folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.mark.parametrize("make", [network, Tied, Wrapped, lambda: nn.Linear(3, 2)])
def test_a_network_under_any_one_name_fits_the_bare_one(make, tmp_path):
    """And the bare one fits a module that holds it, however deep."""
    torch.manual_seed(0)
    model = make()
    deep = Lightning(Lightning(model))
    for holder in (Lightning(model), deep):
        state = read_state(ckpt(tmp_path, holder))
        assert_equal(match_state(make(), state), model.state_dict())
        assert_equal(match_state(Lightning(make()), state), Lightning(model).state_dict())
        assert_equal(match_state(deep, read_state(model)), deep.state_dict())


def test_a_network_beside_others_is_refused_with_the_line_that_takes_it(tmp_path):
    both = Lightning(network(), ema=network())
    for holder, where in ((both, "ema. and net."), (Lightning(network(), loss=Tied()), "net.")):
        file = ckpt(tmp_path, holder)
        with pytest.raises(CheckpointError, match=f"under {where} beside others: pass") as caught:
            match_state(network(), read_state(file))
        line = str(caught.value).partition("pass ")[2].rstrip(".")
        taken = eval(line, {"read_state": read_state, "file": file})
        name = where.partition(" ")[0].rstrip(".")
        assert_equal(match_state(network(), taken), getattr(holder, name).state_dict())


def test_a_prefix_is_not_taken_off_for_another_network():
    with pytest.raises(CheckpointError, match=r"missing: 0\.weight .*unexpected: net\.embed"):
        match_state(network(), prefixed(Tied().state_dict(), "net."))


def test_match_follows_order_and_type_of_the_model():
    model = network().double()
    state = dict(reversed(network().state_dict().items()))
    matched = match_state(model, state)
    assert list(matched) == list(model.state_dict())
    assert matched["0.weight"].dtype == torch.float64
    assert matched["1.num_batches_tracked"].dtype == torch.int64


def test_tied_weights_are_stored_once_and_come_back(tmp_path):
    model = Tied()
    file = save_state(tmp_path / "tied.safetensors", model)
    assert set(read_tensors(file)[0]) == {"embed.weight"}
    assert_equal(match_state(Tied(), read_state(file)), model.state_dict())


@pytest.mark.parametrize("kept", ["embed.weight", "head.weight"])
def test_tied_weights_may_come_under_one_name(kept):
    weight = torch.rand(5, 3)
    matched = match_state(Tied(), {kept: weight})
    assert_equal(matched, {"embed.weight": weight, "head.weight": weight})


def test_tied_weights_that_differ_are_refused():
    state = {"embed.weight": torch.zeros(5, 3), "head.weight": torch.ones(5, 3)}
    with pytest.raises(CheckpointError, match=r"head\.weight and embed\.weight are tied"):
        match_state(Tied(), state)


def test_views_of_one_vector_and_transposed_tensors_can_be_saved(tmp_path):
    vector = torch.arange(12.0)
    state = {"a": vector[:6].view(2, 3).T, "b": vector[6:], "empty": torch.zeros(0)}
    assert_equal(read_state(save_state(tmp_path / "views.safetensors", state)), state)


def test_misfit_is_told_in_words():
    state = network(width=5).state_dict()
    state["0.weigth"] = state.pop("0.weight")
    with pytest.raises(CheckpointError) as caught:
        match_state(network(), state, what="end")
    text = str(caught.value)
    assert text.startswith("end must fit the model; missing: 0.weight (near 0.weigth); ")
    assert "unexpected: 0.weigth (near 0.weight); " in text
    assert "of another shape: 0.bias: (5,) for (4,), 1.weight: (5,) for (4,), " in text
    assert text.count(" for (") == 5
    assert text.endswith(" and 1 more.")


def test_at_most_five_names_are_listed():
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(6)])
    with pytest.raises(CheckpointError, match=r"1\.bias, 2\.weight and 7 more; .* and 3 more\.$"):
        match_state(model, {str(number): torch.ones(1) for number in range(22, 30)})


def test_integers_do_not_pass_for_weights():
    state = network().state_dict() | {"0.bias": torch.ones(4, dtype=torch.int64)}
    with pytest.raises(CheckpointError, match=r"0\.bias: \(4,\) of integers for \(4,\)"):
        match_state(network(), state)


class Counted(nn.Module):
    """A user's own model with a buffer of the name that ``AveragedModel`` counts under."""

    def __init__(self, count=(0.0, 0.0)):
        super().__init__()
        self.module = nn.Linear(3, 2)
        self.register_buffer("n_averaged", torch.tensor(count))


def test_a_buffer_of_ones_own_is_no_counter():
    for count in ((3.0, 4.0), 5):
        state = Counted(count).state_dict()
        blank = Counted((0.0, 0.0) if count != 5 else 0)
        for given_state in (state, read_state(state), {**read_state(state)}):
            assert_equal(match_state(blank, given_state), state)
    with pytest.raises(CheckpointError, match="missing: n_averaged"):
        match_state(Counted(), Counted().module.state_dict())
    with pytest.raises(CheckpointError, match="unexpected: n_averaged"):
        match_state(nn.Linear(3, 2), Counted((3.0, 4.0)).state_dict())


@pytest.mark.parametrize("inner", [network, Counted, lambda: Lightning(network())])
def test_an_average_goes_on_from_its_count(inner):
    """And takes weights without a count; the count is no weight of the bare model's."""
    average = AveragedModel(inner())
    for _ in range(2):
        average.update_parameters(inner())
    state = average.state_dict()
    assert state["n_averaged"] == 2
    for given_state in (state, read_state(state)):
        assert_equal(match_state(AveragedModel(inner()), given_state), state)
    if inner is not Counted:
        bare = average.module.state_dict()
        assert_equal(match_state(inner(), read_state(state)), bare)
        taken = match_state(AveragedModel(inner()), bare)
        assert_equal(
            {n: v for n, v in taken.items() if n != "n_averaged"}, prefixed(bare, "module.")
        )
        assert taken["n_averaged"] == 0


class Holding(nn.Module):
    def __init__(self, value, dtype):
        super().__init__()
        self.register_buffer("value", torch.zeros(len(value), dtype=dtype))


@pytest.mark.parametrize(
    ("value", "kept", "dtype", "words"),
    [
        ([1 + 2j], torch.complex64, torch.float32, r"\(1,\) of complex numbers for \(1,\)"),
        ([1.0], torch.float32, torch.complex64, r"\(1,\) for \(1,\) of complex numbers"),
        ([2], torch.int64, torch.bool, "of integers for .* of booleans"),
        ([True], torch.bool, torch.int64, "of booleans for .* of integers"),
        ([True], torch.bool, torch.float32, "of booleans for"),
        ([0, 300], torch.int64, torch.uint8, "value: 0 to 300 for torch.uint8"),
        ([-1, 3], torch.int8, torch.uint8, "value: -1 to 3 for torch.uint8"),
        ([200], torch.uint8, torch.int8, "value: 200 to 200 for torch.int8"),
        ([1.0, -1e6], torch.float32, torch.float16, "value: 1e.06 for torch.float16"),
        ([1e39], torch.float64, torch.float32, r"value: 1e\+39 for torch.float32"),
        ([1e39j], torch.complex128, torch.complex64, r"value: 1e\+39 for torch.complex64"),
    ],
)
def test_no_value_is_lost_in_a_cast(value, kept, dtype, words):
    state = {"value": torch.tensor(value, dtype=kept)}
    with pytest.raises(CheckpointError, match=f"must fit the model; .*{words}"):
        match_state(Holding(value, dtype), state)


def test_floats_within_the_range_are_rounded():
    """65519 is the largest integer that rounds to a finite float16; infinity stays what it is."""
    value = torch.tensor([65519.0, 1e-9, torch.inf, torch.nan])
    found = match_state(Holding(value, torch.float16), {"value": value})["value"]
    assert_equal({"value": found[:3]}, {"value": torch.tensor([65504.0, 0, torch.inf]).half()})
    assert found[3].isnan()


def test_integers_that_fit_are_cast():
    for value, kept, dtype in (
        ([0, 255], torch.int64, torch.uint8),
        ([7], torch.uint8, torch.int32),
    ):
        found = match_state(Holding(value, dtype), {"value": torch.tensor(value, dtype=kept)})
        assert found["value"].tolist() == value
        assert found["value"].dtype == dtype
    empty = match_state(Holding([], torch.uint8), {"value": torch.zeros(0, dtype=torch.int64)})
    assert empty["value"].dtype == torch.uint8


@pytest.mark.parametrize("kept", ["embed.weight", "head.weight"])
def test_a_fully_tied_network_under_a_prefix_may_come_under_one_name(kept):
    weight = torch.rand(5, 3)
    matched = match_state(Tied(), {f"net.{kept}": weight})
    assert_equal(matched, {"embed.weight": weight, "head.weight": weight})


def broken_files(folder):
    state = network().state_dict()
    torch.save(state, folder / "whole.pt")
    save_state(folder / "whole.safetensors", state)
    for suffix in ("pt", "safetensors"):
        data = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"half.{suffix}").write_bytes(data[: len(data) // 2])
        (folder / f"empty.{suffix}").write_bytes(b"")
        (folder / f"words.{suffix}").write_bytes(b"this is not a checkpoint\n" * 9)
        for kind in ("half", "empty", "words"):
            yield folder / f"{kind}.{suffix}"


def test_torn_files_are_told_in_words(tmp_path):
    for file in broken_files(tmp_path):
        with pytest.raises(CheckpointError, match=f"{file.name} must be a whole .* truncated"):
            read_state(file)


def test_pickled_code_is_never_run(tmp_path):
    torch.save({"state_dict": network().state_dict(), "args": Namespace(a=1)}, tmp_path / "a.ckpt")
    torch.save(network(), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace.*weights_only=True refuses"):
        read_state(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"Save model\.state_dict\(\) alone"):
        read_state(tmp_path / "module.pt")


def test_other_sources_are_refused(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r'one of \.safetensors.* got "weights\.npz"'):
        read_state(tmp_path / "weights.npz")
    with pytest.raises(CheckpointError, match="must exist"):
        read_state(tmp_path / "nothing.pt")
    with pytest.raises(CheckpointError, match=r"must hold one of model\.safetensors"):
        read_state(tmp_path)
    with pytest.raises(CheckpointError, match="got a int"):
        read_state(3)
    with pytest.raises(CheckpointError, match="the state dict holds also epoch"):
        read_state({"weight": torch.ones(2), "epoch": 3})
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt holds a list"):
        read_state(tmp_path / "list.pt")
