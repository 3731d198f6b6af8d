"""Networks for discrete weights: no biases, and a batch norm after every layer with weights."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from lowland.models.shapes import channels_and_size

__all__ = ["normalized_cnn", "normalized_mlp"]

STAGES = 3  # each of two convolutions and one halving of the image; widths W, 2 W, 4 W


def normalized_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Build linear layers without bias, each with batch norm, and ReLU between them.

    The output layer is normalized too: with weights of ±1 its sums are of the size of the square
    root of their number, and only the norm brings them back to the scale of a loss. Inputs of any
    shape are flattened first.

    Args:
        widths: Number of inputs, of units in each hidden layer, and of classes.

    Returns:
        The network, outputs ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If there are fewer than two widths or one is not positive.

    Source:
        Courbariaux et al., NeurIPS 2015, Section 3.1; Li & Hao, ICML 2018, official code.

    Example:
        >>> sum(p.numel() for p in normalized_mlp([784, 2048, 2048, 2048, 10]).parameters())
        10027028
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths must be two or more positive numbers; got {list(widths)}.")
    return nn.Sequential(OrderedDict(flatten=nn.Flatten()) | dense(widths))


def normalized_cnn(
    width: int, hidden: int = 1024, classes: int = 10, in_shape: tuple[int, ...] = (3, 32, 32)
) -> nn.Sequential:
    """Build six 3x3 convolutions and three linear layers, all normalized and without biases.

    The convolutions have ``width`` channels, twice ``2 * width``, then ``4 * width``, two of each;
    every second one halves the image by 2x2 maxima. A layer is convolution, maximum if any, batch
    norm, ReLU, in this order: where a norm's scale is negative, maximum and norm do not commute.

    Args:
        width: Channels of the first two convolutions: 128 in the papers' network for CIFAR-10, 64
            in the one for SVHN.
        hidden: Units of each of the two hidden linear layers.
        classes: Number of classes.
        in_shape: Channels, height and width of an image, at least 8x8.

    Returns:
        The network, outputs ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If the image is too small, or a number is not positive.

    Source:
        Courbariaux et al., NeurIPS 2015, Section 3.2; Li & Hao, ICML 2018, official code.

    Example:
        >>> sum(p.numel() for p in normalized_cnn(128).parameters())
        14029716
    """
    if min(width, hidden, classes) < 1:
        raise ValueError(
            f"width, hidden and classes must be positive; got {width}, {hidden} and {classes}."
        )
    channels, height, wide = channels_and_size(in_shape, smallest=2**STAGES)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, 2 * STAGES + 1):
        wider = width << ((number - 1) // 2)
        layers[f"conv{number}"] = nn.Conv2d(channels, wider, 3, padding=1, bias=False)
        if number % 2 == 0:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers[f"conv_norm{number}"] = nn.BatchNorm2d(wider)
        layers[f"conv_relu{number}"] = nn.ReLU()
        channels = wider
    layers["flatten"] = nn.Flatten()
    features = channels * (height >> STAGES) * (wide >> STAGES)
    return nn.Sequential(layers | dense([features, hidden, hidden, classes]))


def dense(widths: Sequence[int]) -> OrderedDict[str, nn.Module]:
    """Build normalized linear layers with ReLU between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, len(widths)):
        layers[f"linear{number}"] = nn.Linear(widths[number - 1], widths[number], bias=False)
        layers[f"norm{number}"] = nn.BatchNorm1d(widths[number])
        if number < len(widths) - 1:
            layers[f"relu{number}"] = nn.ReLU()
    return layers
