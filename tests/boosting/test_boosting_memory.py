"""An update of a block keeps as many bytes as the specification says (O12)."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lowland.boosting import saved_bytes
from lowland.models import padded_resnet

MIB = 2**20


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
