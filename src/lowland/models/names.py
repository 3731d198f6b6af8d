"""Build a network by name, from a seed."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Generator, nn

from lowland.errors import MissingExtraError
from lowland.models.boostable import padded_resnet, residual_mlp
from lowland.models.convolutional import cnn
from lowland.models.dense import densenet
from lowland.models.glassy import alex6464, bruna, conv1020
from lowland.models.normalized import normalized_cnn, normalized_mlp
from lowland.models.perceptron import mlp
from lowland.models.recurrent import lstm
from lowland.models.residual import resnet
from lowland.models.weights import INITS, initialize
from lowland.models.wide import wide_resnet

__all__ = ["build"]

# one name of each kind, and all of the papers', for suggestions
EXAMPLES = (
    *("mlp-64-32-32-10", "mlp-bn-64-32-32-10"),
    *("cnn-12", "cnn-24", "cnn-36", "cnn-48", "cnn-96", "cnn-48x2", "cnn-48x3"),
    *("resnet-8", "resnet-20", "resnet-32", "resnet-44", "resnet-56"),
    *("pad-resnet-50", "pad-resnet-50-8", "pad-resnet-26", "pad-resnet-52x15"),
    *("res-mlp-64-128-10x8", "res-mlp-784-1024-10x25"),
    *("densenet-40-12", "densenet-100-12-bc"),
    *("wrn-10-1", "wrn-16-1", "wrn-28-2"),
    *("lstm-rows-32", "lstm-pixels-128", "lstm-permuted-128"),
    *("bn-mlp-784-2048-2048-2048-10", "bn-mlp-64-256-256-10"),
    *("bn-cnn-128", "bn-cnn-64", "bn-cnn-32-256"),
    *("bruna-10", "bruna-10000", "conv1020-relu", "conv1020-tanh", "alex6464"),
)


def build(
    name: str,
    *,
    classes: int | None = None,
    in_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    init: str = "he",
) -> nn.Module:
    """Build a network by name, with weights that only the seed decides.

    ========================  ==================================================================
    ``mlp-64-32-32-10``       perceptron: flattened inputs, hidden units, classes
    ``mlp-bn-64-32-32-10``    the same with batch norm
    ``cnn-48``, ``cnn-48x2``  CNN-WxD: W channels, D convolutions
    ``resnet-20``             ResNet-(6n+2) for small images
    ``pad-resnet-50``         the same with shortcuts that pad with zeros; ``pad-resnet-50-8``
                              begins with 8 channels instead of 16; ``pad-resnet-52x15`` has 15
                              channels in a single stage
    ``res-mlp-64-128-10x8``   residual perceptron: inputs, hidden units of a block, classes, blocks
    ``densenet-40-12``        DenseNet-L-k; ``densenet-100-12-bc`` with bottlenecks
    ``wrn-28-2``              WRN-(6n+4)-k, normalized image by image instead of over the batch
    ``lstm-rows-32``          LSTM over an image's rows: size of the hidden state; also
                              ``lstm-pixels-128``, and ``lstm-permuted-128``, whose pixels come in
                              an order that is the same for all seeds
    ``bn-mlp-64-256-256-10``  perceptron without biases, batch norm after every layer, the last too
    ``bn-cnn-128``            six such convolutions and three such linear layers; W channels at
                              first; ``bn-cnn-W-H`` with H instead of 1024 hidden units
    ``bruna-100``             toy model: one hidden layer of ReLU, sigmoid outputs
    ``conv1020-relu``         two convolutions and two linear layers; also ``conv1020-tanh``
    ``alex6464``              small AlexNet with batch norm and dropout
    ``timm:NAME``             any network of timm, without pretrained weights
    ``torchvision:NAME``      any network of torchvision, likewise
    ========================  ==================================================================

    The global generators are left as they are.

    Args:
        name: One of the above; upper case is accepted.
        classes: Number of classes, by default 10; an mlp's name says it.
        in_shape: Shape of one input, by default ``(3, 32, 32)``; an mlp's name says its size.
        seed: Seed of the weights.
        init: ``"he"``, ``"official"`` or ``"glorot"``, see :func:`initialize`; a network of timm or
            torchvision keeps its own initialization, drawn from the seed.

    Returns:
        The network, on the CPU, in train mode.

    Raises:
        ValueError: If there is no such network, or the name contradicts the arguments.

    Example:
        >>> model = build("mlp-64-32-32-10", in_shape=(1, 8, 8), seed=1)
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}; got {init!r}.")
    if classes is not None and classes < 1:
        raise ValueError(f"classes must be positive; got {classes}.")
    generator = Generator().manual_seed(seed)
    shape = (3, 32, 32) if in_shape is None else tuple(in_shape)
    library, colon, rest = name.partition(":")
    if colon:
        return from_library(library, rest, classes or 10, shape, seed)
    with torch.random.fork_rng(devices=[]):  # torch's own draws are overwritten below
        model = from_zoo(name.lower(), classes, in_shape, shape)
    if model is None:
        raise ValueError(unknown(name))
    return initialize(model, init, generator)


def from_zoo(
    name: str, classes: int | None, in_shape: tuple[int, ...] | None, shape: tuple[int, ...]
) -> nn.Module | None:
    """Build one of our own networks, None if the name fits no pattern."""
    if match := re.fullmatch(r"mlp(-bn)?((?:-\d+){2,})", name):
        widths = [int(width) for width in match[2][1:].split("-")]
        check_widths(name, widths, classes, in_shape)
        return mlp(widths, batch_norm=match[1] is not None)
    if match := re.fullmatch(r"bn-mlp((?:-\d+){2,})", name):
        widths = [int(width) for width in match[1][1:].split("-")]
        check_widths(name, widths, classes, in_shape)
        return normalized_mlp(widths)
    if match := re.fullmatch(r"(res-mlp-(\d+)-(\d+)-(\d+))x(\d+)", name):
        check_widths(match[1], [int(match[i]) for i in (2, 3, 4)], classes, in_shape, match[5])
        return residual_mlp(*(int(match[i]) for i in (2, 3, 4, 5)))
    count = classes or 10
    if match := re.fullmatch(r"cnn-(\d+)(?:x(\d+))?", name):
        return cnn(int(match[1]), int(match[2] or 1), count, shape)
    if match := re.fullmatch(r"bn-cnn-(\d+)(?:-(\d+))?", name):
        return normalized_cnn(int(match[1]), int(match[2] or 1024), count, shape)
    if match := re.fullmatch(r"resnet-(\d+)", name):
        return resnet(int(match[1]), count, shape)
    if match := re.fullmatch(r"pad-resnet-(\d+)(?:-(\d+))?", name):
        return padded_resnet(int(match[1]), int(match[2] or 16), count, shape)
    if match := re.fullmatch(r"pad-resnet-(\d+)x(\d+)", name):
        return padded_resnet(int(match[1]), int(match[2]), count, shape, stages=1)
    if match := re.fullmatch(r"densenet-(\d+)-(\d+)(-bc)?", name):
        bottleneck = match[3] is not None
        return densenet(int(match[1]), int(match[2]), count, shape, bottleneck=bottleneck)
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        return wide_resnet(int(match[1]), int(match[2]), count, shape)
    if match := re.fullmatch(r"lstm-(rows|pixels|permuted)-(\d+)", name):
        steps = "rows" if match[1] == "rows" else "pixels"
        order = 0 if match[1] == "permuted" else None
        return lstm(steps, int(match[2]), count, shape, permutation_seed=order)
    if match := re.fullmatch(r"bruna-(\d+)", name):
        return bruna(int(match[1]), count, shape)
    if match := re.fullmatch(r"conv1020-(relu|tanh)", name):
        return conv1020(match[1], count, shape)
    return alex6464(count, shape) if name == "alex6464" else None


def check_widths(
    name: str,
    widths: list[int],
    classes: int | None,
    in_shape: tuple[int, ...] | None,
    blocks: str = "",
) -> None:
    """Compare the ends of an mlp's name, without its blocks, with what else is known."""
    inputs = widths[0] if in_shape is None else prod(in_shape)
    outputs = widths[-1] if classes is None else classes
    if (inputs, outputs) != (widths[0], widths[-1]):
        middle = "-".join(str(width) for width in widths[1:-1])
        kind = re.split(r"-\d", name)[0]
        right = "-".join(part for part in (kind, str(inputs), middle, str(outputs)) if part)
        right, name = (f"{text}x{blocks}" if blocks else text for text in (right, name))
        raise ValueError(
            f"an mlp's name must begin with its {inputs} inputs and end with its {outputs} "
            f"classes; got {name!r}. Take {right!r}."
        )


def from_library(
    library: str, name: str, classes: int, shape: tuple[int, ...], seed: int
) -> nn.Module:
    """Build a network of timm or torchvision, importing it only now."""
    makers: dict[str, Callable[[Any], nn.Module]] = {
        "timm": lambda timm: timm.create_model(name, num_classes=classes, in_chans=shape[0]),
        "torchvision": lambda vision: vision.models.get_model(
            name, weights=None, num_classes=classes
        ),
    }
    if library not in makers:
        raise ValueError(f"a library must be {' or '.join(makers)}; got {library!r}.")
    if library == "torchvision" and shape[0] != 3:
        raise ValueError(
            f"torchvision's networks must have inputs of 3 channels; got in_shape {shape}. "
            "Take a network of timm or one of ours."
        )
    module = imported(library, name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU only, and put back by fork_rng
        try:
            return makers[library](module)
        except Exception as error:
            raise ValueError(
                f"{library} must know the network and its arguments; got {name!r}: {error}"
            ) from error


def imported(library: str, name: str) -> Any:
    """Import timm or torchvision, or say that it is missing or broken."""
    try:
        module = import_module(library)
        if library == "torchvision":
            import_module("torchvision.models")
    except Exception as error:  # a torchvision that does not fit torch raises RuntimeError
        raise MissingExtraError(
            f"{library}:{name} needs {library}, which cannot be imported ({error}). "
            f"Run pip install {library}, in a version that fits torch {torch.__version__}."
        ) from error
    return module


def unknown(name: str) -> str:
    """Say which names there are, nearest first."""
    near = get_close_matches(name.lower(), EXAMPLES, n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return (
        f"name must be that of a network; got {name!r}. {hint}There are mlp-64-32-10, "
        "mlp-bn-64-32-10, cnn-48, cnn-48x2, resnet-20, pad-resnet-50, pad-resnet-50-8, "
        "pad-resnet-52x15, res-mlp-64-128-10x8, densenet-40-12, densenet-100-12-bc, wrn-28-2, "
        "lstm-rows-32, lstm-pixels-128, lstm-permuted-128, bn-mlp-64-32-10, bn-cnn-128, "
        "bn-cnn-32-256, bruna-10, conv1020-relu, conv1020-tanh, alex6464, timm:NAME and "
        "torchvision:NAME, with other numbers too."
    )
