"""Every benchmark finds what it imports: a name that moves is noticed here."""

from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PEERS = ("numba", "onnxruntime", "curvlinops", "pyhessian", "hessian_eigenthings")


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.py")))
def test_it_is_imported(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in PEERS:
            raise
        pytest.skip(f"{error.name} is not installed")
    assert module.__doc__
