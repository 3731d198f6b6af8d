"""A packed file gives back what was written or is refused in words, whatever is done to it."""

import json
import os
import pickle
import re
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_networks import network, signs_for
from safetensors.torch import load, save
from torch import tensor
from torch.testing import assert_close

from lowland.control.packing.file import opened, packed_tensors, read_packed, write_packed
from lowland.control.packing.formats import FORMATS, decode, encode
from lowland.errors import CheckpointError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
NUMBERS = st.lists(st.integers(-2, 5) | st.sampled_from([2**31, 2**32, 2**63, 2**64]), max_size=4)
TYPES = st.sampled_from(["F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "C64", "F8_E4M3"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a file with every format."""
    return write_packed(
        tmp_path_factory.mktemp("packed") / "n.safetensors", *network()
    ).read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where damaged files go."""
    return tmp_path_factory.mktemp("damaged") / "n.safetensors"


def read_bytes(place, raw):
    place.write_bytes(raw)
    return read_packed(place)


def forged(header, tensors=None, text=None):
    """A file with any header, under a seal that holds."""
    text = text or json.dumps({"sha256": "0" * 64, **header})
    return sealed(save(tensors or {"a": torch.zeros(1)}, {"lowland": text}))


def sealed(raw):
    return raw.replace(b"0" * 64, sha256(raw).hexdigest().encode(), 1)


def test_round_trip(tmp_path):
    header, tensors = network()
    file = write_packed(tmp_path / "folder" / "n.safetensors", header, tensors)
    found, read = read_packed(file)
    assert found == {"format": "lowland-packed", "version": 1, **header}
    assert {n: t.dtype for n, t in read.items()} == {n: t.dtype for n, t in tensors.items()}
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    for name, layer in header["layers"].items():
        held = packed_tensors(read, name, name)
        assert_close(decode(held, name, layer["rows"], layer["columns"]), signs_for(name))


def test_the_seal_is_the_digest_of_the_file_with_zeros_in_its_place(whole):
    """Worked out here from the bytes alone."""
    digest = re.search(rb'sha256\\": ?\\"([0-9a-f]{64})', whole)
    assert digest is not None
    zeros = whole[: digest.start(1)] + b"0" * 64 + whole[digest.end(1) :]
    assert sha256(zeros).hexdigest().encode() == digest[1]


def test_a_network_that_is_one_layer(tmp_path):
    """Its path is empty."""
    held = encode(signs_for("gaps"), "gaps")
    layer = {"kind": "linear", "format": "gaps", "rows": 3, "columns": 70}
    tensors = {f"packed.{name}": value for name, value in held.items()}
    header, read = read_packed(write_packed(tmp_path / "n", {"layers": {"": layer}}, tensors))
    assert header["program"] is None
    assert set(packed_tensors(read, "", "gaps")) == set(held)


def test_views_and_shared_memory(tmp_path):
    """Tied tensors and views are written one by one."""
    table = torch.arange(12.0).view(3, 4)
    tensors = {"a": table, "b": table, "c": table.T, "d": table[1:, ::2], "e": torch.zeros(0, 3)}
    _, read = read_packed(write_packed(tmp_path / "n", {"layers": {}}, tensors))
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float64, torch.bool, torch.uint16]
)
def test_types(tmp_path, dtype):
    tensors = {"a": tensor([1, 0, 3]).to(dtype)}
    _, read = read_packed(write_packed(tmp_path / "n", {"layers": {}}, tensors))
    assert torch.equal(read["a"], tensors["a"])
    assert read["a"].dtype == dtype


def test_the_same_bytes_every_time(tmp_path, whole):
    assert write_packed(tmp_path / "n", *network()).read_bytes() == whole


def test_written_whole_or_not_at_all(tmp_path, monkeypatch, whole):
    """A writer that dies before the end leaves the old file, and nothing beside it."""
    file = tmp_path / "n.safetensors"
    file.write_bytes(whole)

    def die(*_):
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        monkeypatch.setattr(os, step, die)
        with pytest.raises(KeyboardInterrupt):
            write_packed(file, {"layers": {}}, {"a": torch.ones(1)})
        assert [f.name for f in tmp_path.iterdir()] == [file.name]
        assert file.read_bytes() == whole


def test_every_flipped_bit_is_found(place):
    """All of them, one by one, in a small file."""
    write_packed(place, *network(("gaps",), 2, 9))
    raw = place.read_bytes()
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="must"):  # which read_packed says with the file's name
            opened(bytes(changed))


def test_every_truncation_is_found(place, whole):
    """To every length."""
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="must"):
            opened(whole[:length])
    for length in range(0, len(whole), 100):
        with pytest.raises(CheckpointError, match="must be a whole file of a packed network"):
            read_bytes(place, whole[:length])


def test_a_longer_file_is_found(place, whole):
    with pytest.raises(CheckpointError, match="sha256"):
        read_bytes(place, whole + b"\0")


@given(st.data())
def test_altered_anywhere(place, whole, data):
    """Some bytes replaced, taken out or put in."""
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, min(first + 40, len(whole))))
    changed = whole[:first] + data.draw(st.binary(max_size=40)) + whole[last:]
    if changed != whole:
        with pytest.raises(CheckpointError, match="must"):
            read_bytes(place, changed)


@given(st.sampled_from(["dtype", "shape", "data_offsets", "more"]), JSON | NUMBERS | TYPES)
def test_any_json_in_the_table(place, key, value):
    """Types, shapes and places of a tensor."""
    decoded_or_refused(place, lying_table(**{key: value}))


@settings(max_examples=1000)
@given(st.data())
def test_altered_under_a_seal_that_holds(place, whole, data):
    """What an enemy writes is refused in words, or is a network that can be decoded."""
    found = re.search(rb'sha256\\": ?\\"([0-9a-f]{64})', whole)
    assert found is not None
    raw = bytearray(whole[: found.start(1)] + b"0" * 64 + whole[found.end(1) :])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(8, len(raw) - 1))
        raw[at] = data.draw(st.sampled_from(b'0129{}[],:"-.eE') | st.integers(0, 255))
    decoded_or_refused(place, sealed(bytes(raw)))


def decoded_or_refused(place, raw):
    """Whether a file was read; then all its layers decode."""
    try:
        header, tensors = read_bytes(place, raw)
    except CheckpointError as error:
        refused = str(error)
    else:
        for path, layer in header["layers"].items():
            held = packed_tensors(tensors, path, layer["format"])
            decode(held, layer["format"], layer["rows"], layer["columns"])
        return True
    assert "must" in refused
    return False


@given(st.sampled_from(["layers", "format", "version", "program", "sha256"]), JSON)
def test_any_json_in_the_header(place, key, value):
    header, tensors = network(("bit1",))
    whole = {"format": "lowland-packed", "version": 1, **header, key: value}
    decoded_or_refused(place, forged(whole, tensors))


@given(st.sampled_from(["kind", "format", "rows", "columns", "more"]), JSON)
def test_any_json_in_a_layer(place, key, value):
    header, tensors = network(("sparse16",))
    header["layers"]["sparse16"][key] = value
    was_read = decoded_or_refused(
        place, forged({"format": "lowland-packed", "version": 1, **header}, tensors)
    )
    assert (
        was_read or key != "more" or "NaN" in json.dumps(value) or "Infinity" in json.dumps(value)
    )


def layer(**changes):
    """A file whose one layer tells a lie."""
    header, tensors = network(("bit1",))
    header["layers"]["bit1"] |= changes
    return forged({"format": "lowland-packed", "version": 1, **header}, tensors)


def around(table, data=b"\0" * 4):
    """A safetensors file with any table."""
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def lying_table(**changes):
    """A sealed file of one tensor with a lie in its entry."""
    text = json.dumps({"sha256": "0" * 64, "format": "lowland-packed", "version": 1, "layers": {}})
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}
    return sealed(around({"__metadata__": {"lowland": text}, "a": entry}))


HOSTILE = {
    "empty": (b"", "header"),
    "short": (b"\1\0\0", "header"),
    "endless header": (b"\xff" * 8 + b"{}", "header"),
    "no json": (around(b"{"), "header must be JSON"),
    "no text": (around(b'{"\xff": 1}'), "header must be JSON"),
    "a list": (around([1]), "must be a JSON object; it is a list"),
    "no metadata": (around({}), 'must hold a text "lowland"'),
    "metadata is a list": (around({"__metadata__": ["lowland"]}), 'a text "lowland"'),
    "another file": (save({"a": torch.zeros(1)}), 'a text "lowland"'),
    "a number": (around({"__metadata__": {"lowland": 3}}), 'a text "lowland"'),
    "deep outside": (around(b"[" * 200_000), "header must be JSON"),
    "deep inside": (around({"__metadata__": {"lowland": '{"a":' * 200_000}}), "must be JSON"),
    "long number": (around({"__metadata__": {"lowland": "9" * 5000}}), "header must be JSON"),
    "no seal": (around({"__metadata__": {"lowland": "{}"}}), "must hold a sha256"),
    "NaN": (forged({}, text='{"sha256": "' + "0" * 64 + '", "layers": NaN}'), "NaN is not a"),
    "another kind": (forged({"format": "onnx"}), 'must be "lowland-packed"; it is \'onnx\''),
    "later": (forged({"format": "lowland-packed", "version": 2}), "version must be 1; it is 2"),
    "true": (forged({"format": "lowland-packed", "version": True}), "must be 1; it is True"),
    "no layers": (forged({"format": "lowland-packed", "version": 1}), "mapping of layers"),
    "program": (forged({"format": "lowland-packed", "version": 1, "program": 3}), "program must"),
    "huge rows": (layer(rows=2**62), r"product at most 2\^32; got 4611686018427387904"),
    "no rows": (layer(rows=0), "at least 1"),
    "negative": (layer(rows=-3, columns=-70), "at least 1"),
    "float rows": (layer(rows=3.0), "rows must be int; got 3.0"),
    "true rows": (layer(rows=True), "rows must be int; got True"),
    "other rows": (layer(rows=4), r"bits of bit1 must be torch.int32 of shape \(4, 4\)"),
    "other columns": (layer(columns=129), r"of shape \(6, 3\)"),
    "fewer columns": (layer(columns=65), "beyond column 64 must be 0"),
    "unknown format": (layer(format="int4"), 'must be one of .* got "int4"'),
    "other format": (layer(format="gaps"), "gaps must hold quotients"),
    "no kind": (layer(kind=None), "kind must be str; got None"),
    "wrong type": (lying_table(dtype="I64"), "must be a safetensors file"),
    "unknown type": (lying_table(dtype="F5"), "must be a safetensors file"),
    "rare type": (lying_table(dtype="F8_E8M0", shape=[4]), "must be a safetensors file"),
    "half bytes": (lying_table(dtype="F4", shape=[8]), "must be a safetensors file"),
    "huge shape": (lying_table(shape=[2**60]), "must be a safetensors file"),
    "overflow": (lying_table(shape=[2**62, 2**62]), "must be a safetensors file"),
    "zero times huge": (lying_table(shape=[0, 2**63], data_offsets=[0, 0]), "must be a safe"),
    "negative shape": (lying_table(shape=[-1]), "must be a safetensors file"),
    "float shape": (lying_table(shape=[1.0]), "must be a safetensors file"),
    "late offsets": (lying_table(data_offsets=[4, 8]), "must be a safetensors file"),
    "swapped offsets": (lying_table(data_offsets=[4, 0]), "must be a safetensors file"),
    "huge offsets": (lying_table(data_offsets=[0, 2**63]), "must be a safetensors file"),
    "no offsets": (lying_table(data_offsets=None), "must be a safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(place, name):
    raw, words = HOSTILE[name]
    with pytest.raises(CheckpointError, match=words):
        read_bytes(place, raw)


@pytest.mark.parametrize("missing", ["kind", "format", "rows", "columns"])
def test_missing_keys(place, missing):
    header, tensors = network(("bit1",))
    del header["layers"]["bit1"][missing]
    with pytest.raises(CheckpointError, match=f'in layer "bit1", {missing} must be .*; got None'):
        read_bytes(place, forged({"format": "lowland-packed", "version": 1, **header}, tensors))


@pytest.mark.parametrize("name", FORMATS)
def test_missing_tensors(place, name):
    header, tensors = network((name,))
    for gone in [n for n in tensors if n.startswith(name)]:
        rest = {n: t for n, t in tensors.items() if n != gone}
        with pytest.raises(CheckpointError, match=f"{name} must hold"):
            read_bytes(place, forged({"format": "lowland-packed", "version": 1, **header}, rest))


class Malice:
    """What pickle would run."""

    def __reduce__(self):
        return (os.mkdir, ("malice",))


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    """Neither a pickle nor a checkpoint of torch is opened."""
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_bytes(pickle.dumps(Malice()))
    torch.save({"a": Malice()}, "b.safetensors")
    for file in ("a.safetensors", "b.safetensors"):
        with pytest.raises(CheckpointError, match="must"):
            read_packed(file)
    assert not Path("malice").exists()


def test_files_that_are_not_there(tmp_path):
    for file in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match="must be a file that can be read"):
            read_packed(file)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({}, "mapping of layers"),
        ({"layers": {}, "lr": float("nan")}, "plain JSON values"),
        ({"layers": {}, "model": object()}, "plain JSON values"),
        ({"layers": {"a": {"kind": "linear"}}}, 'in layer "a", format must be str; got None'),
    ],
    ids=["none", "nan", "object", "layer"],
)
def test_what_is_not_written(tmp_path, header, words):
    with pytest.raises(ValueError, match=words):
        write_packed(tmp_path / "n", header, {})
    assert not list(tmp_path.iterdir())


def test_a_type_that_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="safetensors must know every tensor's type"):
        write_packed(tmp_path / "n", {"layers": {}}, {"a": torch.ones(2, dtype=torch.complex128)})


def test_torch_reads_it_as_any_safetensors(whole):
    """Other tools find plain tensors."""
    assert load(whole)["gaps.packed.gap_bits"].dtype == torch.int32
