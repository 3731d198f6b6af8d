"""``lowland.data.load``: every layout of a data set gives the same arrays, bit by bit."""

import hashlib
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lowland.data import catalog, channel_statistics, load
from lowland.data.pickles import read_cifar_batch
from lowland.errors import DataNotFoundError, LowlandError, MissingExtraError

COLUMNS = {
    "cifar10": {"image": "img"},
    "cifar100": {"image": "img", "label": "fine_label"},
    "mnist": {},
    "fashion_mnist": {},
    "svhn": {},
}


def assert_same(dataset, splits):
    images, labels = splits["train"]
    if "extra" in splits:
        images = np.concatenate([images, splits["extra"][0]])
        labels = np.concatenate([labels, splits["extra"][1]])
    for tensor, array in (
        (dataset.images, images),
        (dataset.labels, labels),
        (dataset.test_images, splits["test"][0]),
        (dataset.test_labels, splits["test"][1]),
    ):
        assert tensor.shape == array.shape
        assert (tensor.numpy() == array).all()
    assert dataset.images.dtype == dataset.test_images.dtype == torch.uint8
    assert dataset.labels.dtype == dataset.test_labels.dtype == torch.int64
    assert dataset.in_shape == images.shape[1:]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("nesting", ["", "{name}", "{config}", "{name}/{config}", "{repo}"])
def test_parquet_in_every_nesting(name, nesting, tmp_path, tiny, write):
    splits, source = tiny(name), catalog.SOURCES[name]
    inner = nesting.format(name=name, config=source.config, repo=source.repo)
    write.parquet(tmp_path / "d" / inner, splits, **COLUMNS[name])
    dataset = load(name, data=tmp_path / "d")
    assert_same(dataset, splits)
    assert dataset.folder == tmp_path / "d" / inner
    assert dataset.classes == source.classes
    assert dataset.note == "parquet files, images stored as PNG"


@pytest.mark.parametrize("name", COLUMNS)
def test_parquet_in_shards_and_plain(name, tmp_path, tiny, write):
    splits = tiny(name)
    write.parquet(tmp_path / "shards", splits, shards=3, **COLUMNS[name])
    write.parquet(tmp_path / "plain", splits, plain=True, **COLUMNS[name])
    assert_same(load(name, data=tmp_path / "shards"), splits)
    assert_same(load(name, data=tmp_path / "plain"), splits)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nesting", ["", "{name}", "{folder}"])
def test_idx(name, zipped, nesting, tmp_path, tiny, write, publish):
    splits = tiny(name)
    folder = tmp_path / "d" / nesting.format(name=name, folder=catalog.SOURCES[name].folders[0])
    write.idx(folder, splits, zipped=zipped)
    publish(name, folder)
    dataset = load(name, data=tmp_path / "d")
    assert_same(dataset, splits)
    dataset.test_images.add_(1)  # not a read-only view of the file


@pytest.mark.parametrize("keys", [str, bytes])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_archive_and_folder(name, keys, tmp_path, tiny, write, publish):
    splits, source = tiny(name), catalog.SOURCES[name]
    key = "labels" if name == "cifar10" else "fine_labels"
    contents = write.batches(splits, source.classic, key, keys)
    write.packed(tmp_path / "a" / source.archive, contents, source.folders[0])
    write.unpacked(tmp_path / "b" / source.folders[0], contents)
    publish(name, tmp_path)
    assert_same(load(name, data=tmp_path / "a"), splits)
    assert_same(load(name, data=tmp_path / "b"), splits)
    assert_same(load(name, data=tmp_path / "b" / source.folders[0]), splits)


def test_svhn_mat_with_label_10_for_digit_0(tmp_path, tiny, write, publish):
    splits = tiny("svhn", extra=15)
    assert (splits["train"][1] == 0).any()
    write.mat(tmp_path, splits)
    publish("svhn", tmp_path)
    assert_same(load("svhn", data=tmp_path, extra=True), splits)
    del splits["extra"]
    assert_same(load("svhn", data=tmp_path), splits)


def test_svhn_extra_parquet(tmp_path, tiny, write):
    splits = tiny("svhn", extra=15)
    write.parquet(tmp_path, splits, shards=2)
    assert_same(load("svhn", data=tmp_path, extra=True), splits)


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_hugging_face_cache(variable, tmp_path, tiny, write, monkeypatch):
    """The revision that refs/main names is taken, whatever else lies there."""
    inner = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    monkeypatch.delenv("HF_HUB_CACHE")
    if variable == "XDG_CACHE_HOME":
        monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "hf"))
    home = tmp_path / "hf" / inner[variable] / "datasets--uoft-cs--cifar10"
    right, wrong = tiny("cifar10"), tiny("cifar10", sizes=(5, 5))
    write.parquet(home / "snapshots" / "abc" / "plain_text", right, image="img")
    write.parquet(home / "snapshots" / "def" / "plain_text", wrong, image="img")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    assert_same(load("cifar10"), right)
    if variable != "HF_HUB_CACHE":
        return
    monkeypatch.setenv(variable, str(tmp_path / "no-hub"))
    assert_same(load("cifar10", data=tmp_path / "hf"), right)


def test_order_of_the_search(tmp_path, tiny, write, monkeypatch):
    given, variable, hub = (tiny("mnist", sizes=(n, 4)) for n in (6, 7, 8))
    write.parquet(tmp_path / "hub" / "datasets--ylecun--mnist" / "snapshots" / "x" / "mnist", hub)
    write.parquet(tmp_path / "variable" / "mnist", variable)
    write.parquet(tmp_path / "given", given)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert_same(load("mnist"), hub)
    monkeypatch.setenv("LOWLAND_DATA", str(tmp_path / "variable"))
    assert_same(load("mnist"), variable)
    assert_same(load("mnist", data=str(tmp_path / "given")), given)


def test_jpeg_is_called_lossy(tmp_path, tiny, write):
    write.parquet(tmp_path, tiny("cifar10"), image="img", form="JPEG")
    assert "JPEG, which is lossy" in load("cifar10", data=tmp_path).note
    assert "JPEG, which is lossy" in load("cifar10", data=tmp_path).note  # from the cache too


def test_nowhere_says_where_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWLAND_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataNotFoundError) as caught:
        load("cifar10", data=tmp_path)
    text = str(caught.value)
    for part in (
        f"{tmp_path} (data)",
        f"{tmp_path / 'gone'} ($LOWLAND_DATA, no such folder)",
        "no-hub (the Hugging Face cache, no such folder)",
        "download=True",
        "train-00000-of-00001.parquet",
        "cifar-10-python.tar.gz",
        "DIR/cifar10/",
        "'digits' needs no file",
    ):
        assert part in text
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, LowlandError)
    monkeypatch.delenv("LOWLAND_DATA")
    with pytest.raises(DataNotFoundError, match=r"\$LOWLAND_DATA is not set"):
        load("cifar10")
    with pytest.raises(DataNotFoundError, match="data must be a folder that exists"):
        load("cifar10", data=tmp_path / "typo")


def test_incomplete_files_are_named(tmp_path, tiny, write):
    write.parquet(tmp_path, tiny("mnist"), shards=3)
    (tmp_path / "test-00001-of-00003.parquet").unlink()
    with pytest.raises(DataNotFoundError, match="has parquet files, but not all of test"):
        load("mnist", data=tmp_path)


def test_no_download_unasked_and_failures_explained(tmp_path, tiny, write, monkeypatch):
    import huggingface_hub

    calls = []

    def snapshot_download(repo, *, repo_type, allow_patterns, cache_dir):
        calls.append((repo, repo_type, allow_patterns))
        if len(calls) == 1:
            raise OSError("no route")
        folder = Path(cache_dir) / "snapshot"
        write.parquet(folder / "mnist", splits)
        return str(folder)

    splits = tiny("mnist")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(DataNotFoundError):
        load("mnist")
    assert not calls
    with pytest.raises(DataNotFoundError, match=r"could not be downloaded.*no route.*Put train-"):
        load("mnist", download=True)
    assert_same(load("mnist", download=True), splits)
    patterns = ["mnist/train-*.parquet", "mnist/test-*.parquet"]
    assert calls[1] == ("ylecun/mnist", "dataset", patterns)


@pytest.mark.parametrize("missing", ["pyarrow.parquet", "PIL"])
def test_missing_reader_names_the_extra(missing, tmp_path, tiny, write, monkeypatch):
    write.parquet(tmp_path, tiny("mnist"))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lowland\[data\]'"):
        load("mnist", data=tmp_path)


def test_missing_downloader_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lowland\[data\]'"):
        load("mnist", download=True)


def test_damaged_classic_file(tmp_path, tiny, write, publish):
    write.idx(tmp_path, tiny("mnist"))
    publish("mnist", tmp_path)
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.gz must be the published file"):
        load("mnist", data=tmp_path)


def test_truncated_idx_without_published_sum(tmp_path, tiny, write):
    write.idx(tmp_path, tiny("fashion_mnist"), zipped=False)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="must be a complete idx file"):
        load("fashion_mnist", data=tmp_path)


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path, tiny, write, publish):
    """Both have files of the same names; those of MNIST are known by their sums."""
    write.idx(tmp_path, tiny("mnist"), zipped=False)
    publish("mnist", tmp_path)
    with pytest.raises(ValueError, match="must be the published file of fashion_mnist"):
        load("fashion_mnist", data=tmp_path)


def test_another_data_set_in_the_folder(tmp_path, tiny, write):
    """By the shape of the images, by the class names in the file, by the labels."""
    write.parquet(tmp_path / "m", tiny("mnist"))
    with pytest.raises(ValueError, match=r"shape \(3, 32, 32\); got uint8 of shape \(3, 28, 28\)"):
        load("svhn", data=tmp_path / "m")
    write.parquet(tmp_path / "c", tiny("cifar10"), classes=catalog.SOURCES["cifar10"].classes)
    assert load("cifar10", data=tmp_path / "c").images.shape == (20, 3, 32, 32)
    with pytest.raises(ValueError, match="must hold svhn.*it says airplane"):
        load("svhn", data=tmp_path / "c")
    write.parquet(tmp_path / "h", tiny("cifar100"), label="fine_label")
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.9"):
        load("cifar10", data=tmp_path / "h")
    write.parquet(tmp_path / "x", tiny("mnist"), image="picture")
    with pytest.raises(ValueError, match="must have a column img or image"):
        load("mnist", data=tmp_path / "x")


def test_spelling_of_class_names_may_differ(tmp_path, tiny, write):
    names = ["T - shirt / top", *catalog.SOURCES["fashion_mnist"].classes[1:]]
    write.parquet(tmp_path, tiny("fashion_mnist"), classes=names)
    assert len(load("fashion_mnist", data=tmp_path).labels) == 20


def test_names(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'cifar10'"):
        load("CIFAR-10")
    with pytest.raises(ValueError, match="extra must be False except for svhn"):
        load("mnist", extra=True)
    assert catalog.names()[0] == "digits"
    for source in catalog.SOURCES.values():
        assert len(set(source.classes)) == len(source.classes) in (10, 100)
    hundred = catalog.SOURCES["cifar100"].classes
    assert list(hundred) == sorted(hundred)


# --- pickles


class Evil:
    """Writes a file if it is ever unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_pickle_that_calls_something_is_refused_before_the_call(tmp_path):
    for protocol in (0, 2, 4):
        data = pickle.dumps({"data": Evil(tmp_path / "hit"), "labels": [0]}, protocol)
        with pytest.raises(ValueError, match=r"it asks for (io|_io)\.open"):
            read_cifar_batch(data, "data_batch_1")
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize("name", [b"cnumpy\nload\n", b"cnumpy\nfromfile\n", b"cbuiltins\neval\n"])
def test_other_names_of_numpy_are_refused_too(name):
    with pytest.raises(ValueError, match="it asks for"):
        read_cifar_batch(name + b"(S'x'\ntR.", "data_batch_1")


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((2, 3072), np.float64),
        np.zeros((2, 3071), np.uint8),
        np.zeros(3072, np.uint8),
        np.array([None, "x"], dtype=object),
    ],
)
def test_arrays_of_anything_but_rows_of_bytes_are_refused(data):
    with pytest.raises(ValueError, match="must be a CIFAR batch"):
        read_cifar_batch(pickle.dumps({"data": data, "labels": [0, 1]}, 2), "data_batch_1")


def test_pickle_as_python_2_wrote_it():
    """Bytes written out by hand: str for text and for pixels, numpy.core, a Fortran-ordered array.

    The published files were written by Python 2, which cannot run here.
    """
    pixels = np.arange(2 * 3072).reshape(2, 3072) % 256
    for by_column in (False, True):
        raw = pixels.astype(np.uint8).tobytes("F" if by_column else "C")
        text = (
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
            b"K\x00\x85U\x01b\x87R(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + (b"\x88" if by_column else b"\x89")
            + b"T"
            + len(raw).to_bytes(4, "little")
            + raw
            + b"tbU\x06labels](K\x07K\x02eu."
        )
        found, labels = read_cifar_batch(text, "data_batch_1")
        assert (found == pixels).all()
        assert labels.tolist() == [7, 2]


def test_archive_without_its_members(tmp_path, write, publish):
    write.packed(tmp_path / "cifar-10-python.tar.gz", {"other": b""}, "../..")
    publish("cifar10", tmp_path)
    with pytest.raises(ValueError, match="it lacks data_batch_1"):
        load("cifar10", data=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


# --- cache


def forbid_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded although it was cached")

    monkeypatch.setattr("lowland.data.readers.decode", fail)


def test_second_load_comes_from_the_cache(tmp_path, tiny, write, monkeypatch):
    splits = tiny("mnist")
    write.parquet(tmp_path / "d", splits)
    first = load("mnist", data=tmp_path / "d")
    (file,) = (tmp_path / "cache").iterdir()
    assert file.suffix == ".npz"
    forbid_decoding(monkeypatch)
    second = load("mnist", data=tmp_path / "d")
    assert_same(second, splits)
    assert second.note == first.note


def test_changed_files_are_decoded_anew(tmp_path, tiny, write):
    write.parquet(tmp_path / "d", tiny("mnist"))
    load("mnist", data=tmp_path / "d")
    other = tiny("mnist", sizes=(9, 3))
    write.parquet(tmp_path / "d", other)
    assert_same(load("mnist", data=tmp_path / "d"), other)


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_damaged_cache_is_made_anew(damage, tmp_path, tiny, write, monkeypatch):
    splits = tiny("mnist")
    write.parquet(tmp_path / "d", splits)
    load("mnist", data=tmp_path / "d")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert_same(load("mnist", data=tmp_path / "d"), splits)
    forbid_decoding(monkeypatch)
    assert_same(load("mnist", data=tmp_path / "d"), splits)


def test_cache_that_cannot_be_written_is_done_without(tmp_path, tiny, write, monkeypatch):
    splits = tiny("mnist")
    write.parquet(tmp_path / "d", splits)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LOWLAND_CACHE", str(tmp_path / "file" / "cache"))
    assert_same(load("mnist", data=tmp_path / "d"), splits)


def test_full_disk_leaves_no_part_behind(tmp_path, tiny, write, monkeypatch):
    splits = tiny("mnist")
    write.parquet(tmp_path / "d", splits)

    def savez(stream, **_):
        stream.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    assert_same(load("mnist", data=tmp_path / "d"), splits)
    assert not list((tmp_path / "cache").iterdir())


# --- the real thing

REAL = os.environ.get("LOWLAND_DATA")  # read before the fixture hides it


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


def real(name, cache, monkeypatch):
    if not REAL:
        pytest.skip("LOWLAND_DATA is not set")
    monkeypatch.setenv("LOWLAND_CACHE", str(cache))
    try:
        return load(name, data=REAL)
    except DataNotFoundError:
        pytest.skip(f"$LOWLAND_DATA has no {name}")


def test_real_mnist_is_bit_identical_to_the_original_files(real_cache, monkeypatch):
    mnist = real("mnist", real_cache, monkeypatch)
    sums = {}
    for stem, images, labels in (
        ("train", mnist.images, mnist.labels),
        ("t10k", mnist.test_images, mnist.test_labels),
    ):
        n = len(labels)
        heads = np.array([0x803, n, 28, 28], ">i4"), np.array([0x801, n], ">i4")
        contents = images.numpy().tobytes(), labels.numpy().astype(np.uint8).tobytes()
        names = f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"
        for name, head, content in zip(names, heads, contents, strict=True):
            sums[name] = hashlib.md5(head.tobytes() + content).hexdigest()
    published = catalog.SOURCES["mnist"].md5
    assert len(sums) == 4
    assert sums == {name: published[name] for name in sums}


@pytest.mark.slow
def test_real_cifar10_has_the_published_statistics(real_cache, monkeypatch):
    """A lossy copy moves the means by 2e-4 and the deviations by 3e-4 at most."""
    cifar = real("cifar10", real_cache, monkeypatch)
    mean, std = channel_statistics(cifar.images)
    assert mean == pytest.approx((0.49140, 0.48216, 0.44653), abs=2e-4)
    assert std == pytest.approx((0.24703, 0.24348, 0.26159), abs=3e-4)
    assert cifar.labels.bincount().tolist() == [5000] * 10
    assert cifar.test_labels.bincount().tolist() == [1000] * 10
    assert cifar.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
