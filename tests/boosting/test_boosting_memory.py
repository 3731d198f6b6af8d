"""Saved bytes are those that can be counted by hand, and those of the specification (O12)."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lowland.boosting.memory import (
    free_bytes,
    free_disk,
    free_host,
    free_in_group,
    saved_bytes,
)
from lowland.models import padded_resnet

MIB = 2**20


def test_a_chain_of_products_by_hand():
    """Two linear layers and a rectifier: the input, its image and what the rectifier lets pass."""
    x = torch.randn(10, 4)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    assert saved_bytes(lambda: model(x).sum(), model) == 4 * (10 * 4 + 10 * 6)
    weights = 4 * (6 * 2)  # of the second layer: the first one's is not needed for x
    assert saved_bytes(lambda: model(x).sum()) == 4 * (10 * 4 + 10 * 6) + weights
    assert saved_bytes(lambda: torch.no_grad()(model)(x), model) == 0


def test_a_view_counts_with_all_that_it_keeps_alive_and_once():
    x = torch.randn(8, 8, requires_grad=True)
    assert saved_bytes(lambda: (x[0] * x[1]).sum()) == 8 * 8 * 4
    assert saved_bytes(lambda: (x * 2).exp().sum()) == 8 * 8 * 4


def test_what_was_let_go_meanwhile_counts_too():
    model = nn.Linear(4, 4, bias=False)

    def run():
        for _ in range(3):
            model(torch.randn(10, 4)).sum().backward()

    assert saved_bytes(run, model) == 3 * 10 * 4 * 4


def test_free_memory_is_what_the_system_says(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  9 kB\nMemAvailable:     5 kB\n")
    assert free_host(info) == 5 * 1024
    assert free_host(tmp_path / "none") > 2**20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("3\n")
    assert free_in_group(tmp_path) > 2**60
    (tmp_path / "memory.max").write_text("10\n")
    assert free_in_group(tmp_path) == 7
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50
    assert free_disk(tmp_path / "not" / "there") == free_disk(tmp_path) > 0
    assert free_disk() > 0


class Pooled(nn.Module):
    """Global average and a linear layer."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, 10)

    def forward(self, x):
        return self.linear(x.mean((-2, -1)))


@pytest.mark.slow
def test_activation_memory_of_the_25_block_network():
    """O12, batch 100 of 3x32x32 in float32; the numbers of the specification hold the weights."""
    model = padded_resnet(50)
    layers = list(model)
    parts, head = [nn.Sequential(*layers[:3]), *layers[3:-2]], nn.Sequential(*layers[-2:])
    x, y = torch.randn(100, 3, 32, 32), torch.arange(100) % 10
    whole = saved_bytes(lambda: cross_entropy(model(x), y))
    assert whole / MIB == pytest.approx(366.6, rel=0.002)
    weights = 4 * 755802 / MIB
    without = saved_bytes(lambda: cross_entropy(model(x), y), model) / MIB
    assert without == pytest.approx(whole / MIB - weights, rel=0.002)

    def checkpointed():
        value = x
        for part in parts:
            value = checkpoint(part, value, use_reentrant=False)
        return cross_entropy(head(value), y)

    assert saved_bytes(checkpointed, model) / MIB == pytest.approx(93.4, rel=0.002)
    found, value = [], x
    for part, width in zip(parts, [16] * 9 + [32] * 8 + [64] * 8, strict=True):
        step = nn.Sequential(part, Pooled(width))
        found.append(saved_bytes(lambda: cross_entropy(step(value), y)) / MIB)  # noqa: B023
        with torch.no_grad():
            value = part(value)
    expected = [13.7] + [31.3] * 8 + [18.8] + [15.7] * 7 + [9.6] + [8.1] * 7
    assert found == pytest.approx(expected, rel=0.01)
    assert max(found) <= 32
