"""Residual networks for small images: ResNet-(6n+2)."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from lowland.models.shapes import GlobalAverage, add_stages, blocks_of, channels_and_size

__all__ = ["ResidualBlock", "resnet"]


def resnet(depth: int, classes: int = 10, in_shape: tuple[int, ...] = (3, 32, 32)) -> nn.Sequential:
    """Build ResNet-``depth`` for CIFAR: three stages of 16, 32 and 64 channels.

    A stage has ``(depth - 2) / 6`` blocks; the second and the third begin with stride 2, where the
    shortcut is a 1x1 convolution with batch norm (option B). Global average, linear layer.

    Args:
        depth: Number of weighted layers on the longest way, ``6 n + 2``: 8, 20, 32, 44, 56.
        classes: Number of classes.
        in_shape: Channels, height and width of an image.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If there is no such depth.

    Source:
        He et al., CVPR 2016, Section 4.2; Draxler et al., ICML 2018, official code.

    Example:
        >>> sum(p.numel() for p in resnet(20).parameters())
        272474
    """
    blocks = blocks_of(depth, 6, 2)
    channels, _, _ = channels_and_size(in_shape, smallest=1)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(16),
        relu=nn.ReLU(),
    )
    add_stages(layers, ResidualBlock, 16, (16, 32, 64), blocks)
    layers["average"] = GlobalAverage()
    layers["linear"] = nn.Linear(64, classes)
    return nn.Sequential(layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input (or to its 1x1 convolution).

    Args:
        channels: Channels of the input.
        width: Channels of the output.
        stride: Step of the first convolution and of the shortcut.
    """

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(channels, width, 1, stride, bias=False),
                    norm=nn.BatchNorm2d(width),
                )
            )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch wider lower narrower"]:
        """Apply the block.

        Args:
            x: Features.

        Returns:
            Features, of half the size if the stride is 2.
        """
        change = relu(self.norm1(self.conv1(x)))
        change = self.norm2(self.conv2(change))
        return relu(self.shortcut(x) + change)
