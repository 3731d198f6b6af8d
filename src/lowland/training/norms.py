"""Layers that keep running statistics of what they have seen."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lowland.params import call
from lowland.training.batches import check_not_empty
from lowland.training.device import autocast
from lowland.training.evaluate import as_pair, device_of
from lowland.training.forwards import plain_attention
from lowland.training.nested import batch_count, to_device

__all__ = ["mode", "norm_layers", "recalibrate"]


def norm_layers(model: nn.Module) -> dict[str, _NormBase]:
    """Name the layers that keep running statistics of what they have seen.

    Args:
        model: Any module.

    Returns:
        Batch (and instance) normalizations with running statistics, by name.
    """
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _NormBase) and layer.running_mean is not None
    }


@contextmanager
def mode(model: nn.Module, *, norm_trains: bool, momentum: float | None = None) -> Iterator[None]:
    """Put a model in evaluation mode, its batch norms in training mode on request, and back.

    Dropout and stochastic depth are off either way: a path is relaxed on a function of the
    parameters, not on a random one. Recurrent layers are in training mode with their dropout at
    zero, as cuDNN refuses their backward pass otherwise. Products are in full float32, and
    attention takes no path that has no derivative.

    Args:
        model: Any module.
        norm_trains: Let batch norms use the statistics of the batch, and update their own.
        momentum: Of batch norms meanwhile; None leaves it.

    Yields:
        Nothing; modes, momenta and dropouts are put back afterwards.
    """
    was_training = {module: module.training for module in model.modules()}
    layers = norm_layers(model).values()
    momenta = {layer: layer.momentum for layer in layers}
    dropouts = {m: m.dropout for m in model.modules() if isinstance(m, nn.RNNBase)}
    try:
        model.eval()
        for module in dropouts:
            module.training, module.dropout = True, 0.0
        for layer in layers:
            layer.training = norm_trains
            layer.momentum = layer.momentum if momentum is None else momentum
        with autocast(device_of(model), "float32"), plain_attention():
            yield
    finally:
        for module, dropout in dropouts.items():
            module.dropout = dropout
        for module, training in was_training.items():
            module.training = training
        for layer, value in momenta.items():
            layer.momentum = value


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[tuple[Any, Any]], examples: int = 2000) -> None:
    """Recompute a model's batch-norm statistics, in place, as an average over some batches.

    Weights that jump need it, and networks from the middle of a path: the statistics of a network
    lag behind its weights.

    Args:
        model: The network; its modes, momenta and everything else stay as they are.
        batches: Training batches of (inputs, target).
        examples: Stop after the batch that brings the number of examples to this.

    Raises:
        ValueError: If there is no batch.
    """
    for layer in norm_layers(model).values():
        layer.reset_running_stats()
    seen = 0
    for batch in batches:
        inputs, target = to_device(as_pair(batch), device_of(model))
        count = batch_count(target)
        if seen and count == 1:  # the rest of a data set: one example alone has no variance
            continue
        seen += count
        with mode(model, norm_trains=True, momentum=count / seen):
            call(model, inputs)
        if seen >= examples:
            return
    check_not_empty(seen)
