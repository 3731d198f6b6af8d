"""Begin a block where the one before it ended: as the identity, or as its copy."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lowland.boosting.part import Part, unharmed

__all__ = ["copy_previous", "make_identity", "zero_start"]


def make_identity(part: Part, values: Sequence[Tensor]) -> bool:
    """Set all weights of a part to zero, if it then returns what it is given.

    A residual block is the identity when its branch is zero. With a ReLU after the sum it still
    is on non-negative values, as another such block returns; a block that changes the shape never
    is. So what is asked for is tried out on the given values, in evaluation mode.

    Args:
        part: A block; changed in place.
        values: Hidden values and sides, each ``(batch, ...)``.

    Returns:
        Whether the part is the identity now, bit by bit; if not, its weights are as they were.

    Source:
        Ours; specification section 3.8.
    """
    before = [(weight, weight.detach().clone()) for weight in part.parameters()]
    with torch.no_grad():
        for weight, _ in before:
            weight.zero_()
    if is_identity(part, values):
        return True
    restore(before)
    return False


def zero_start(part: Part, values: Sequence[Tensor]) -> bool:
    """Make a part the identity with few zeros, so that it can learn.

    First all weights are zero; then one layer after the other gets its own back where the part
    stays the identity. What remains zero is the last norm, scale or linear layer of each residual
    branch: all gradients but that of the last layer are zero at first, and none after one step.

    Args:
        part: A block; changed in place.
        values: Hidden values and sides, each ``(batch, ...)``.

    Returns:
        Whether the part is the identity now; if not, its weights are as they were.

    Source:
        Ours; specification section 3.3, "zero-initialised f_t".
    """
    before = {
        module: [(weight, weight.detach().clone()) for weight in module.parameters(recurse=False)]
        for module in part.modules()
    }
    if not make_identity(part, values):
        return False
    for own in before.values():
        restore(own)
        if own and not is_identity(part, values):
            with torch.no_grad():
                for weight, _ in own:
                    weight.zero_()
    return True


def copy_previous(part: Part, previous: Part) -> bool:
    """Copy the weights and buffers of the part before, if the two are built alike ("stacking").

    Args:
        part: A block; changed in place.
        previous: The block before it.

    Returns:
        Whether they were alike: modules of the same classes, tensors of the same shapes in the same
        order. If not, nothing was changed.

    Source:
        Agarwal et al., 2024 (gradual stacking).
    """
    kinds = [[type(module) for module in one.modules()] for one in (part, previous)]
    tensors = [[*one.parameters(), *one.buffers()] for one in (part, previous)]
    shapes = [[(tensor.shape, tensor.dtype) for tensor in one] for one in tensors]
    if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
        return False
    with torch.no_grad():
        for own, other in zip(*tensors, strict=True):
            own.copy_(other)
    return True


def restore(before: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    """Give weights their values back."""
    with torch.no_grad():
        for weight, value in before:
            weight.copy_(value)


def is_identity(part: Part, values: Sequence[Tensor]) -> bool:
    """Tell whether a part returns the hidden values that it is given."""
    hidden = values[0]
    with unharmed(part):
        result = part(hidden.clone(), *values[1:])[0]
    return result.shape == hidden.shape and torch.equal(result, hidden)
