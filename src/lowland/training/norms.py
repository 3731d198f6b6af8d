"""Layers that keep running statistics of what they have seen."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["norm_layers"]


def norm_layers(model: nn.Module) -> dict[str, _NormBase]:
    """Name the layers that keep running statistics of what they have seen.

    Args:
        model: Any module.

    Returns:
        Batch (and instance) normalizations with running statistics, by name.
    """
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _NormBase) and layer.running_mean is not None
    }
