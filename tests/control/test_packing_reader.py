"""The reader that the README shows needs numpy alone, and gives back the signs that were packed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_networks import network, signs_for

from lowland.control import packing
from lowland.control.packing.file import write_packed
from lowland.control.packing.formats import FORMATS, encode

README = Path(packing.__file__).with_name("README.md")
READER = "# Read a packed network with numpy alone."


def reader():
    """The functions that the README shows."""
    shown = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    (block,) = [block for block in shown if block.startswith(READER)]
    assert len(block.splitlines()) <= 40
    assert set(re.findall(r"^import (\w+)", block, flags=re.MULTILINE)) == {
        "hashlib",
        "json",
        "numpy",
    }
    namespace = {}
    exec(compile(block, str(README), "exec"), namespace)
    return namespace["read"], namespace["signs"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("columns", [1, 7, 8, 31, 64, 65, 200])
def test_the_reader_of_the_readme(tmp_path, name, columns):
    """It needs numpy alone, and reads what we wrote."""
    read, signs = reader()
    header, tensors = network((name,), 5, columns)
    found, arrays = read(write_packed(tmp_path / "n", header, tensors))
    assert found["layers"] == header["layers"]
    assert found["program"] == header["program"]
    assert np.array_equal(arrays["norm.weight"], np.array([0.5, -2], np.float32))
    assert arrays["norm.count"] == 3
    decoded = signs(found, arrays, name)
    assert decoded.dtype == np.int8
    assert np.array_equal(decoded, signs_for(name, 5, columns).numpy())


def test_the_reader_meets_zeros_and_long_gaps(tmp_path):
    """An empty layer, whose path is empty too, and one whose gaps need many bits."""
    read, signs = reader()
    for matrix in (torch.zeros(4, 9), torch.eye(60), torch.eye(300, 301).flip(0)):
        rows, columns = matrix.shape
        for name in ("bit2planes", "sparse16", "gaps"):
            held = encode(matrix.to(torch.int8), name)
            told = {"kind": "linear", "format": name, "rows": rows, "columns": columns}
            tensors = {f"packed.{part}": value for part, value in held.items()}
            file = write_packed(tmp_path / "n", {"layers": {"": told}}, tensors)
            assert np.array_equal(signs(*read(file), ""), matrix.numpy())


def test_the_reader_finds_damage(tmp_path):
    read, _ = reader()
    whole = write_packed(tmp_path / "n", *network()).read_bytes()
    (tmp_path / "n").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(AssertionError, match="damaged or altered"):
        read(tmp_path / "n")
