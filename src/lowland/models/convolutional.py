"""The small convolutional networks CNN-WxD of Draxler et al."""

from collections import OrderedDict

from torch import nn

from lowland.models.shapes import channels_and_size

__all__ = ["cnn"]

HIDDEN = 256  # units of the one hidden linear layer


def cnn(
    width: int, depth: int = 1, classes: int = 10, in_shape: tuple[int, ...] = (3, 32, 32)
) -> nn.Sequential:
    """Build CNN-``width`` x ``depth``: 5x5 convolutions that halve the image, one hidden layer.

    Each of the ``depth`` stages is convolution, 2x2 maximum, batch norm, ReLU, in this order; then
    come a linear layer to 256 units with batch norm and ReLU, and one to the classes. Convolutions
    and linear layers have biases, also those before a batch norm, as in the official code.

    Args:
        width: Channels of every convolution.
        depth: Number of convolutions.
        classes: Number of classes.
        in_shape: Channels, height and width of an image; small images such as the 8x8 digits work
            as long as one pixel is left after ``depth`` halvings.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If the image is too small, or a number is not positive.

    Source:
        Draxler et al., ICML 2018, Appendix B and official code.
    """
    if min(width, depth, classes) < 1:
        raise ValueError(
            f"width, depth and classes must be positive; got {width}, {depth} and {classes}."
        )
    channels, height, wide = channels_and_size(in_shape, smallest=2**depth)
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, depth + 1):
        stages[f"conv{number}"] = nn.Conv2d(channels, width, 5, padding=2)
        stages[f"pool{number}"] = nn.MaxPool2d(2)
        stages[f"norm{number}"] = nn.BatchNorm2d(width)
        stages[f"relu{number}"] = nn.ReLU()
        channels = width
    pixels = (height >> depth) * (wide >> depth)
    return nn.Sequential(
        stages
        | OrderedDict(
            flatten=nn.Flatten(),
            hidden=nn.Linear(width * pixels, HIDDEN),
            hidden_norm=nn.BatchNorm1d(HIDDEN),
            hidden_relu=nn.ReLU(),
            linear=nn.Linear(HIDDEN, classes),
        )
    )
