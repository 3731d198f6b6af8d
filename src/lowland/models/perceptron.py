"""Multilayer perceptrons."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

__all__ = ["mlp"]


def mlp(widths: Sequence[int], batch_norm: bool = False) -> nn.Sequential:
    """Build linear layers with ReLU between them; inputs of any shape are flattened first.

    Like every torch module it starts with torch's own initialization, from the global generator;
    :func:`lowland.models.build` and :func:`lowland.models.initialize` draw from a seed.

    Args:
        widths: Number of inputs, of units in each hidden layer, and of classes.
        batch_norm: Normalize each hidden layer over the batch, before its ReLU.

    Returns:
        The network, logits ``(batch, classes)``.

    Raises:
        ValueError: If there are fewer than two widths or one is not positive.

    Example:
        >>> sum(p.numel() for p in mlp([64, 32, 32, 10]).parameters())
        3466
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths must be two or more positive numbers; got {list(widths)}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    last = len(widths) - 1
    for number in range(1, len(widths)):
        layers[f"linear{number}"] = nn.Linear(widths[number - 1], widths[number])
        if number < last:
            if batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm1d(widths[number])
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(layers)
