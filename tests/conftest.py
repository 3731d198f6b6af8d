"""What all tests share: seeded randomness, and one place for settings of the tools."""

import gc
import signal

import pytest
import torch
from hypothesis import settings

# A job started in the background ignores Ctrl-C, and so would all its children; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tensors are small here, and beside another busy process two threads mostly wait for each other.
torch.set_num_threads(1)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_configure(config):
    """Know a marker for tests that a type checker would end before they begin."""
    config.addinivalue_line("markers", "untyped: passes arguments of a wrong type on purpose")


def pytest_collection_modifyitems(config, items):
    """Leave them out where annotations are checked (``--jaxtyping-packages``)."""
    if config.getoption("--jaxtyping-packages", default=None):
        for item in items:
            if item.get_closest_marker("untyped"):
                item.add_marker(pytest.mark.skip(reason="annotations are checked"))


def pytest_collection_finish():
    """Look for garbage less often, and only in what tests make: half a million objects stay."""
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture
def rng() -> torch.Generator:
    """Seeded source of randomness."""
    return torch.Generator().manual_seed(0)
