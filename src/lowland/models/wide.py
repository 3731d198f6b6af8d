"""Wide residual networks WRN-(6n+4)-k with the layer normalization of Katharopoulos & Fleuret."""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import group_norm, relu

from lowland.models.shapes import GlobalAverage, add_stages, blocks_of, channels_and_size

__all__ = ["ImageNorm", "WideBlock", "wide_resnet"]

EPS = 1e-3  # added to the variance, inside the root, as in the official code


def wide_resnet(
    depth: int, widen: int = 1, classes: int = 10, in_shape: tuple[int, ...] = (3, 32, 32)
) -> nn.Sequential:
    """Build WRN-``depth``-``widen``: three stages of 16, 32 and 64 times ``widen`` channels.

    A 3x3 convolution to 16 channels; stages of ``(depth - 4) / 6`` blocks, the second and the third
    beginning with stride 2; normalization, ReLU, global average, linear layer. Normalization looks
    at one image at a time (:class:`ImageNorm`), so examples of a batch do not see each other.
    Convolutions have no bias.

    Args:
        depth: Number of weighted layers with the 1x1 shortcuts, ``6 n + 4``: 10, 16, 22, 28, 40.
        widen: Factor on the channels of the stages.
        classes: Number of classes.
        in_shape: Channels, height and width of an image.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization; the paper's is
        :func:`lowland.models.initialize` with ``"glorot"``.

    Raises:
        ValueError: If there is no such depth, or a number is not positive.

    Source:
        Zagoruyko & Komodakis, BMVC 2016, Table 1; Katharopoulos & Fleuret, ICML 2018, Section 4.2,
        and its official code.

    Example:
        >>> sum(p.numel() for p in wide_resnet(28, 2).parameters())
        1465827
    """
    blocks = blocks_of(depth, 6, 4)
    if min(widen, classes) < 1:
        raise ValueError(f"widen and classes must be positive; got {widen} and {classes}.")
    channels, _, _ = channels_and_size(in_shape, smallest=1)
    width = 64 * widen
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    )
    add_stages(layers, WideBlock, 16, (16 * widen, 32 * widen, width), blocks)
    layers["norm"] = ImageNorm(width)
    layers["relu"] = nn.ReLU()
    layers["average"] = GlobalAverage()
    layers["linear"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


class WideBlock(nn.Module):
    """Twice normalization, ReLU and a 3x3 convolution, added to the input.

    The shortcut takes the input as it is, before the normalization; where stride or width changes
    it is a 1x1 convolution of it.

    Args:
        channels: Channels of the input.
        width: Channels of the output.
        stride: Step of the first convolution and of the shortcut.
    """

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__()
        self.norm1 = ImageNorm(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm2 = ImageNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch wider lower narrower"]:
        """Apply the block.

        Args:
            x: Features.

        Returns:
            Features, of half the size if the stride is 2.
        """
        change = self.conv1(relu(self.norm1(x)))
        change = self.conv2(relu(self.norm2(change)))
        return self.shortcut(x) + change


class ImageNorm(nn.Module):
    r"""Layer normalization of an image: mean and variance over channels, rows and columns.

    .. math:: y_{chw} = g\,(x_{chw} - m) / \sqrt{v + 10^{-3}} + b_c

    with the mean :math:`m` and the variance :math:`v` (divided by the count) of one example, one
    gain :math:`g` for all channels and a bias :math:`b_c` for each. This is group normalization
    with one group, whose fused kernel is several times faster on a CPU than the formula.

    Args:
        channels: Channels of the images.

    Source:
        Ba et al., 2016, Eq. (3); the scalar gain is that of the official code of Katharopoulos &
        Fleuret.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        """Set the gain to 1 and the biases to 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Normalize each example.

        Args:
            x: Features.

        Returns:
            Features of the same shape.
        """
        return group_norm(x, 1, self.weight.expand(len(self.bias)), self.bias, EPS)
