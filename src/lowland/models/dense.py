"""Densely connected networks for small images: DenseNet-L-k and DenseNet-L-k-BC."""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.models.shapes import GlobalAverage, blocks_of, channels_and_size

__all__ = ["DenseLayer", "densenet"]


def densenet(
    depth: int,
    growth: int = 12,
    classes: int = 10,
    in_shape: tuple[int, ...] = (3, 32, 32),
    *,
    bottleneck: bool = False,
) -> nn.Sequential:
    """Build DenseNet-``depth``-``growth``: three blocks whose layers see all earlier ones.

    The first convolution has ``2 * growth`` channels. Between the blocks come batch norm, ReLU, a
    1x1 convolution and a 2x2 average; there is no dropout.

    Args:
        depth: Number of weighted layers: ``3 n + 4``, or ``6 n + 4`` with bottlenecks.
        growth: Channels that each layer adds.
        classes: Number of classes.
        in_shape: Channels, height and width of an image.
        bottleneck: The BC variant: a 1x1 convolution to ``4 * growth`` channels inside each layer,
            and half of the channels (rounded down) after each block.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If there is no such depth.

    Source:
        Huang et al., CVPR 2017, Section 3; Draxler et al., ICML 2018, official code.

    Example:
        >>> sum(p.numel() for p in densenet(100, 12, bottleneck=True).parameters())
        769162
    """
    count = blocks_of(depth, 6 if bottleneck else 3, 4)
    if growth < 1:
        raise ValueError(f"growth must be positive; got {growth}.")
    channels, _, _ = channels_and_size(in_shape, smallest=4)
    width = 2 * growth
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, width, 3, padding=1, bias=False)
    )
    for block in (1, 2, 3):
        for number in range(1, count + 1):
            layers[f"block{block}_layer{number}"] = DenseLayer(width, growth, bottleneck)
            width += growth
        if block < 3:
            narrower = width // 2 if bottleneck else width
            layers[f"transition{block}"] = transition(width, narrower)
            width = narrower
    layers["norm"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    layers["average"] = GlobalAverage()
    layers["linear"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


def transition(channels: int, narrower: int) -> nn.Sequential:
    """Build what lies between two blocks."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, narrower, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, whose result is put beside the input.

    Args:
        channels: Channels of the input.
        growth: Channels added.
        bottleneck: Go through a 1x1 convolution to ``4 * growth`` channels first.
    """

    def __init__(self, channels: int, growth: int, bottleneck: bool):
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if bottleneck:
            inner = 4 * growth
            layers["norm_wide"] = nn.BatchNorm2d(channels)
            layers["relu_wide"] = nn.ReLU()
            layers["reduce"] = nn.Conv2d(channels, inner, 1, bias=False)
            channels = inner
        layers["norm"] = nn.BatchNorm2d(channels)
        layers["relu"] = nn.ReLU()
        layers["conv"] = nn.Conv2d(channels, growth, 3, padding=1, bias=False)
        self.new = nn.Sequential(layers)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch more height width"]:
        """Apply the layer.

        Args:
            x: Features of all earlier layers of the block.

        Returns:
            The same features and the new ones.
        """
        return torch.cat((x, self.new(x)), 1)
