"""Who knows whom, and what an import costs."""

import subprocess
import sys

import pytest
from rooms import LAYERS, PACKAGES, ROOT, SRC


def test_the_layers_hold(monkeypatch):
    """Rooms stand on the foundation and do not know each other."""
    importlinter = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert importlinter.lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_every_package_has_its_layer():
    """Nothing stands outside of the contract."""
    named = {name for layer in LAYERS for name in layer}
    files = [file.stem for file in SRC.glob("*.py") if not file.stem.startswith("__")]
    assert {f"lowland.{name}" for name in [*PACKAGES, *files]} <= named


LIGHT = ["lowland", "lowland.errors", "lowland.results", "lowland.report", "lowland.cli"]


def test_what_is_light_imports_no_torch():
    """``import lowland``, the command line's help and the report need no torch."""
    code = f"import sys\nimport {', '.join(LIGHT)}\nprint('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "False\n"
