"""Draw a model's initial weights from a generator of one's own."""

from math import sqrt

import torch
from torch import Generator, Tensor, nn

from lowland.models.wide import ImageNorm

__all__ = ["INITS", "initialize"]

INITS = ("he", "official", "glorot")
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, ImageNorm)


@torch.no_grad()
def initialize(model: nn.Module, init: str, generator: Generator) -> nn.Module:
    r"""Draw new weights for every linear, convolutional and recurrent layer, and reset the norms.

    Weights of linear and convolutional layers have mean 0; their variance depends on the fan-in
    :math:`n`, the number of inputs that one output sees, and the fan-out :math:`m`, the number of
    outputs that one input reaches (both at stride 1 and far from the border). Biases become 0;
    normalization layers get weight 1, bias 0 and fresh running statistics. Recurrent layers keep
    torch's own distribution whatever ``init`` is: weights and biases uniform in
    :math:`\pm 1 / \sqrt h` for a hidden size :math:`h`. Parameters of any other layer are left as
    they are. Weights are drawn on the CPU in the order of ``model.modules()``, so the same seed
    gives the same network on every device.

    Args:
        model: Changed in place.
        init: ``"he"``, normal with variance :math:`2 / n`, which keeps the variance through ReLU
            layers; ``"official"``, normal with :math:`1 / n`, as in the code of Draxler et al.;
            ``"glorot"``, uniform with :math:`2 / (n + m)`, as Katharopoulos & Fleuret have it.
        generator: Source of randomness, on the CPU.

    Returns:
        The model.

    Raises:
        ValueError: If ``init`` is unknown.

    Source:
        He et al., ICCV 2015, Eq. (10); Draxler et al., ICML 2018, official code; Glorot & Bengio,
        AISTATS 2010, Eq. (16).
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}; got {init!r}.")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            module.weight.copy_(draw(module.weight, init, generator))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.RNNBase):
            for parameter in module.parameters(recurse=False):
                parameter.copy_(uniform(parameter, 1 / sqrt(module.hidden_size), generator))
        elif isinstance(module, NORMS):
            module.reset_parameters()
    return model


def draw(weight: Tensor, init: str, generator: Generator) -> Tensor:
    """Draw the weights of a linear or convolutional layer."""
    fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
    if init == "glorot":
        return uniform(weight, sqrt(6 / (fan_in + fan_out)), generator)
    variance = (2 if init == "he" else 1) / fan_in
    return torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * sqrt(variance)


def uniform(like: Tensor, limit: float, generator: Generator) -> Tensor:
    """Draw uniformly between minus and plus the limit."""
    return torch.empty(like.shape, dtype=like.dtype).uniform_(-limit, limit, generator=generator)
