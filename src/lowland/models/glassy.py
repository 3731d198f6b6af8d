"""The networks of Baity-Jesi et al.: a toy model, a small convolutional one, a small AlexNet."""

from collections import OrderedDict
from math import prod

from jaxtyping import Float, Int
from torch import Tensor, nn

from lowland.models.shapes import channels_and_size

__all__ = ["alex6464", "bruna", "conv1020", "one_hot_losses"]

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
FEW_CLASSES = 10  # with more, the published small network is wider


def bruna(hidden: int, classes: int = 10, in_shape: tuple[int, ...] = (3, 32, 32)) -> nn.Sequential:
    """Build the toy model: one hidden layer of ReLU, and a sigmoid for every class.

    It is trained with :func:`one_hot_losses`; with many hidden units it has no bad minima.

    Args:
        hidden: Number of hidden units h.
        classes: Number of classes.
        in_shape: Shape of one input; it is flattened.

    Returns:
        The network, outputs ``(batch, classes)`` between 0 and 1, with torch's own initialization.

    Raises:
        ValueError: If a number is not positive.

    Source:
        Freeman and Bruna, ICLR 2017; Baity-Jesi et al., ICML 2018, official code.

    Example:
        >>> sum(p.numel() for p in bruna(10, in_shape=(1, 28, 28)).parameters())
        7960
    """
    inputs = prod(in_shape)
    if min(hidden, classes, inputs) < 1:
        raise ValueError(
            f"hidden, classes and in_shape must be positive; got {hidden}, {classes} and "
            f"{tuple(in_shape)}."
        )
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            linear1=nn.Linear(inputs, hidden),
            relu=nn.ReLU(),
            linear2=nn.Linear(hidden, classes),
            sigmoid=nn.Sigmoid(),
        )
    )


def one_hot_losses(
    output: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    r"""Give the loss of the toy model for each example: mean squared distance from one-hot.

    In the published form, :math:`\frac1c (|o|^2 + 1 - 2 o_y)`.

    Args:
        output: Of the network.
        target: Classes.

    Returns:
        One loss per example.

    Source:
        Baity-Jesi et al., ICML 2018, official code.

    Example:
        >>> import torch
        >>> one_hot_losses(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([0, 0]))
        tensor([0.0000, 0.2500])
    """
    right = output.gather(1, target.unsqueeze(1)).squeeze(1)
    return (output.square().sum(1) + 1 - 2 * right) / output.shape[1]


def conv1020(
    activation: str = "relu", classes: int = 10, in_shape: tuple[int, ...] = (3, 32, 32)
) -> nn.Sequential:
    """Build the small network: two 5x5 convolutions that halve the image, two linear layers.

    With up to 10 classes it has 10 and 20 channels and 100 hidden units, 80 for gray images; with
    more classes 10 and 32 channels and 400 hidden units.

    Args:
        activation: ``"relu"`` or ``"tanh"``.
        classes: Number of classes.
        in_shape: Channels, height and width of an image.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If the activation is unknown or the image is too small.

    Source:
        Baity-Jesi et al., ICML 2018, official code.

    Example:
        >>> sum(p.numel() for p in conv1020(in_shape=(1, 28, 28)).parameters())
        31770
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}.")
    if classes < 1:
        raise ValueError(f"classes must be positive; got {classes}.")
    channels, height, wide = channels_and_size(in_shape, smallest=16)
    many = classes > FEW_CLASSES
    second = 32 if many else 20
    hidden = 400 if many else 80 if channels == 1 else 100
    curve = ACTIVATIONS[activation]
    pixels = prod(((side - 4) // 2 - 4) // 2 for side in (height, wide))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 10, 5),
            pool1=nn.MaxPool2d(2),
            curve1=curve(),
            conv2=nn.Conv2d(10, second, 5),
            pool2=nn.MaxPool2d(2),
            curve2=curve(),
            flatten=nn.Flatten(),
            linear1=nn.Linear(second * pixels, hidden),
            curve3=curve(),
            linear2=nn.Linear(hidden, classes),
        )
    )


def alex6464(classes: int = 10, in_shape: tuple[int, ...] = (3, 32, 32)) -> nn.Sequential:
    """Build the small AlexNet with batch norm and dropout.

    Args:
        classes: Number of classes.
        in_shape: Channels, height and width of an image.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If the image is too small, or there is no class.

    Source:
        Baity-Jesi et al., ICML 2018, official code.

    Example:
        >>> sum(p.numel() for p in alex6464().parameters())
        1327498
    """
    if classes < 1:
        raise ValueError(f"classes must be positive; got {classes}.")
    channels, height, wide = channels_and_size(in_shape, smallest=15)
    pixels = prod(((side - 5) // 2 + 1 - 2 - 1) // 2 + 1 - 2 for side in (height, wide))
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 64, 5, stride=2),
        norm1=nn.BatchNorm2d(64),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(3, stride=1),
        conv2=nn.Conv2d(64, 128, 5, stride=2, padding=2),
        norm2=nn.BatchNorm2d(128),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(3, stride=1),
        flatten=nn.Flatten(),
    )
    width = 128 * pixels
    for number, hidden in ((3, 512), (4, 128)):
        layers[f"linear{number}"] = nn.Linear(width, hidden)
        layers[f"norm{number}"] = nn.BatchNorm1d(hidden)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"dropout{number}"] = nn.Dropout()
        width = hidden
    layers["linear5"] = nn.Linear(width, classes)
    return nn.Sequential(layers)
