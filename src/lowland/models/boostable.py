"""Residual networks whose shortcuts have no weights, made to be grown block by block."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from lowland.models.residual import ResidualBlock
from lowland.models.shapes import GlobalAverage, add_stages, blocks_of, channels_and_size

__all__ = ["PaddedBlock", "ResidualPerceptron", "padded_resnet", "residual_mlp"]


def residual_mlp(inputs: int, hidden: int, classes: int, blocks: int) -> nn.Sequential:
    """Build a residual perceptron: equal blocks on the flattened inputs, then a linear layer.

    There is no layer before the first block, so features have the size of the inputs everywhere.

    Args:
        inputs: Numbers in one input.
        hidden: Hidden units of each block.
        classes: Number of classes.
        blocks: Number of blocks.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If a number is not positive.

    Source:
        Huang et al., ICML 2018, Section 5 (the MLP-ResNet of MNIST).

    Example:
        >>> sum(p.numel() for p in residual_mlp(64, 128, 10, blocks=8).parameters())
        133258
    """
    if min(inputs, hidden, classes, blocks) < 1:
        raise ValueError(
            "inputs, hidden, classes and blocks must be positive; "
            f"got {inputs}, {hidden}, {classes} and {blocks}."
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number in range(1, blocks + 1):
        layers[f"block{number}"] = ResidualPerceptron(inputs, hidden)
    layers["linear"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)


class ResidualPerceptron(nn.Module):
    """A perceptron with one hidden layer, added to its input.

    Args:
        width: Numbers in and out.
        hidden: Hidden units.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Apply the block.

        Args:
            x: Features.

        Returns:
            Features of the same size.
        """
        return x + self.linear2(relu(self.linear1(x)))


def padded_resnet(
    depth: int,
    width: int = 16,
    classes: int = 10,
    in_shape: tuple[int, ...] = (3, 32, 32),
    *,
    stages: int = 3,
) -> nn.Sequential:
    """Build the CIFAR ResNet whose shortcuts pad with zeros (option A).

    Each stage has ``(depth - 2) / (2 stages)`` blocks of two 3x3 convolutions. All stages but the
    first begin with stride 2 and twice the channels: the shortcut keeps every second pixel and
    fills the new channels with zeros. No ReLU works in place.

    Args:
        depth: Weighted layers on the longest way: ``6 n + 2`` for three stages.
        width: Channels of the first stage.
        classes: Number of classes.
        in_shape: Channels, height and width of an image.
        stages: Number of stages; 1 keeps width and size.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If there is no such depth, or a number is not positive.

    Source:
        He et al., CVPR 2016, Section 4.2; fb.resnet.torch, which the released code of Huang et
        al., ICML 2018, follows; their text has one stage of 15 filters.

    Example:
        >>> sum(p.numel() for p in padded_resnet(50).parameters())
        755802
    """
    if min(width, classes, stages) < 1:
        raise ValueError(
            f"width, classes and stages must be positive; got {width}, {classes} and {stages}."
        )
    blocks = blocks_of(depth, 2 * stages, 2)
    channels, _, _ = channels_and_size(in_shape, smallest=1)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, width, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
    )
    widths = [width << stage for stage in range(stages)]
    add_stages(layers, PaddedBlock, width, widths, blocks)
    layers["average"] = GlobalAverage()
    layers["linear"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(layers)


class PaddedBlock(ResidualBlock):
    """Two 3x3 convolutions with batch norm, added to the input, which is padded with zeros.

    Args:
        channels: Channels of the input.
        width: Channels of the output, no fewer.
        stride: Step of the first convolution and of the shortcut.
    """

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__(channels, width, stride)
        self.shortcut = PaddedShortcut(width - channels, stride)


class PaddedShortcut(nn.Module):
    """Every ``stride``-th pixel, then channels of zeros; nothing to learn.

    Args:
        extra: Channels of zeros.
        stride: Step between the pixels that are kept.
    """

    def __init__(self, extra: int, stride: int = 1):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch wider lower narrower"]:
        """Apply the shortcut.

        Args:
            x: Features.

        Returns:
            Features with more channels and fewer pixels.
        """
        return pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Say the numbers in the module's print-out."""
        return f"extra={self.extra}, stride={self.stride}"
