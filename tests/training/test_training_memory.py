"""Saved bytes are those that can be counted by hand; free ones are what the system says."""

import torch
from torch import nn

from lowland.training.memory import (
    free_bytes,
    free_disk,
    free_host,
    free_in_group,
    saved_bytes,
)


def test_a_chain_of_products_by_hand():
    """Two linear layers and a rectifier: the input, its image and what the rectifier lets pass."""
    x = torch.randn(10, 4)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    assert saved_bytes(lambda: model(x).sum(), model) == 4 * (10 * 4 + 10 * 6)
    weights = 4 * (6 * 2)  # of the second layer: the first one's is not needed for x
    assert saved_bytes(lambda: model(x).sum()) == 4 * (10 * 4 + 10 * 6) + weights
    assert saved_bytes(lambda: torch.no_grad()(model)(x), model) == 0
    assert saved_bytes(lambda: model(x).sum(), model, shared=[x]) == 4 * (10 * 6)


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
    (tmp_path / "older" / "memory").mkdir(parents=True)
    (tmp_path / "older" / "memory" / "memory.limit_in_bytes").write_text("90\n")
    (tmp_path / "older" / "memory" / "memory.usage_in_bytes").write_text("20\n")
    assert free_in_group(tmp_path / "older") == 70
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50
    assert free_disk(tmp_path / "not" / "there") == free_disk(tmp_path) > 0
    assert free_disk() > 0
