"""Draw a model's initial weights from a generator of one's own."""

from math import sqrt

import torch
from torch import Generator, nn

__all__ = ["initialize"]

GAINS = {"he": 2.0, "official": 1.0}  # variance of a weight times its fan-in


@torch.no_grad()
def initialize(model: nn.Module, init: str, generator: Generator) -> nn.Module:
    r"""Draw new weights for every linear and convolutional layer, and reset the normalizations.

    Weights are normal with mean 0 and variance :math:`g / n`, where the fan-in :math:`n` is the
    number of inputs that one output sees. Biases become 0; normalization layers get weight 1,
    bias 0 and fresh running statistics. Parameters of any other layer are left as they are.
    Weights are drawn on the CPU in the order of ``model.modules()``, so the same seed gives the
    same network on every device.

    Args:
        model: Changed in place.
        init: ``"he"``, gain :math:`g = 2`, which keeps the variance through ReLU layers, or
            ``"official"``, :math:`g = 1`, as in the code of Draxler et al.
        generator: Source of randomness, on the CPU.

    Returns:
        The model.

    Raises:
        ValueError: If ``init`` is unknown.

    Source:
        He et al., ICCV 2015, Eq. (10); Draxler et al., ICML 2018, official code.
    """
    if init not in GAINS:
        raise ValueError(f"init must be one of {', '.join(GAINS)}; got {init!r}.")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            weight = module.weight
            spread = sqrt(GAINS[init] / weight[0].numel())
            draw = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.copy_(draw * spread)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()
    return model
