"""What all tests share: seeded randomness, and one place for settings of the tools."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture
def rng() -> torch.Generator:
    """Seeded source of randomness."""
    return torch.Generator().manual_seed(0)
