"""Tiny data sets in every layout that people have them in."""

import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lowland.data import catalog


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No test finds the data sets, or writes to the cache, of whoever runs it."""
    for name in ("LOWLAND_DATA", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-home"))
    monkeypatch.setenv("LOWLAND_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny():
    """Arrays of a tiny data set: ``{split: (images, labels)}``."""

    def make(name, sizes=(20, 10), extra=0):
        source = catalog.SOURCES[name]
        draws = torch.Generator().manual_seed(sum(name.encode()))
        counts = {"train": sizes[0], "test": sizes[1]} | ({"extra": extra} if extra else {})
        splits = {}
        for split, n in counts.items():
            images = torch.randint(256, (n, *source.shape), generator=draws).to(torch.uint8)
            labels = torch.randint(len(source.classes), (n,), generator=draws)
            splits[split] = (images.numpy(), labels.numpy())
        return splits

    return make


@pytest.fixture
def publish(monkeypatch):
    """Make the sums of written files the published ones."""

    def apply(name, folder):
        files = (file for file in folder.rglob("*") if file.is_file())
        sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files}
        monkeypatch.setitem(
            catalog.SOURCES, name, replace(catalog.SOURCES[name], md5=sums, archive=archive(name))
        )

    def archive(name):
        return catalog.SOURCES[name].archive

    return apply


def coded(image, form="PNG"):
    from PIL import Image

    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, form)
    return stream.getvalue()


def parquet(
    folder,
    splits,
    *,
    image="image",
    label="label",
    shards=1,
    plain=False,
    form="PNG",
    classes=None,
):
    """Write the hub's parquet files, the rows spread over shards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        for number, rows in enumerate(np.array_split(np.arange(len(labels)), shards)):
            cells = [{"bytes": coded(images[row], form), "path": None} for row in rows]
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            columns = {image: pa.array(cells, kind), label: pa.array(labels[rows], pa.int64())}
            if label == "fine_label":
                columns["coarse_label"] = pa.array(labels[rows] // 5, pa.int64())
            table = pa.table(columns)
            if classes:
                features = {label: {"names": list(classes), "_type": "ClassLabel"}}
                text = json.dumps({"info": {"features": features}})
                table = table.replace_schema_metadata({"huggingface": text})
            name = f"{split}.parquet" if plain else f"{split}-{number:05}-of-{shards:05}.parquet"
            pq.write_table(table, folder / name)


def idx(folder, splits, *, zipped=True):
    """Write MNIST's four files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        stem = {"train": "train", "test": "t10k"}[split]
        n, _, height, width = images.shape
        for name, head, data in (
            ("images-idx3", struct.pack(">4i", 0x803, n, height, width), images),
            ("labels-idx1", struct.pack(">2i", 0x801, n), labels.astype(np.uint8)),
        ):
            content = head + data.tobytes()
            file = folder / f"{stem}-{name}-ubyte{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(content) if zipped else content)


def batches(splits, names, key="labels", keys=str):
    """Pickle CIFAR's batches as the publisher did (protocol 2): ``{file name: content}``."""
    contents = {}
    for split, (images, labels) in splits.items():
        parts = np.array_split(np.arange(len(labels)), len(names[split]))
        for name, rows in zip(names[split], parts, strict=True):
            entries = {"data": images[rows].reshape(len(rows), -1), key: labels[rows].tolist()}
            if keys is bytes:
                entries = {name.encode(): value for name, value in entries.items()}
            contents[name] = pickle.dumps(entries, protocol=2)
    return contents


def unpacked(folder, contents):
    """Write files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def packed(file, contents, inside):
    """Write files into a ``.tar.gz``, beside a readme."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as archive:
        for name, content in {"readme.html": b"hello", **contents}.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def mat(folder, splits):
    """Write SVHN's files: last axis counts images, digit 0 has label 10."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": y})


@pytest.fixture
def write():
    """Writers of all layouts."""
    return SimpleNamespace(
        parquet=parquet, idx=idx, batches=batches, unpacked=unpacked, packed=packed, mat=mat
    )
