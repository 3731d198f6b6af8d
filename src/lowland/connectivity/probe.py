"""How much memory one pivot takes."""

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.stack import Stack, losses_and_grads
from lowland.training import isolated_rng, mode, tensors_in
from lowland.training.memory import saved_bytes

__all__ = ["pass_bytes"]


def pass_bytes(stack: Stack, vector: Float[Tensor, " params"], batch: tuple[Any, Any]) -> int:
    """Measure what one network keeps on its way forward for the way back.

    Neither its parameters count, nor what all networks share, like the batch.

    Args:
        stack: What the networks have in common.
        vector: One of them, on the device of the network.
        batch: Inputs and target of one step.

    Returns:
        Bytes of all storages that autograd saved in one pass.

    Raises:
        torch.OutOfMemoryError: If the pass does not fit.
    """
    row = vector.unsqueeze(0).clone()
    shared = [row, *tensors_in(batch), *stack.fixed.values()]
    with isolated_rng(0, "memory"), mode(stack.model, norm_trains=True):
        run = partial(losses_and_grads, stack.with_backend("loop"), row, *batch)
        return saved_bytes(run, shared=shared)
