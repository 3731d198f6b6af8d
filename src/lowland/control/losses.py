"""The squared hinge: one against all, with a margin of 1."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

__all__ = ["squared_hinge"]


def squared_hinge(
    output: Float[Tensor, "batch classes"], target: Integer[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    r"""Ask for an output of at least 1 for the class and of at most -1 for all others.

    The loss of one example with outputs :math:`z` is
    :math:`\frac1C \sum_c \max(0, 1 - y_c z_c)^2` with :math:`y_c = 1` for its class and -1 for the
    :math:`C - 1` others: a mean, so that a threshold like ``lam`` of ternary weights, which is
    compared with its gradients, does not depend on the number of classes. Half precision is
    computed and returned in float32, as its squares leave the range of float16 beyond 255.

    Args:
        output: One number per class; the papers normalize it over the batch.
        target: Class of each example.

    Returns:
        One loss per example, without unit; 1 where all outputs are 0.

    Raises:
        ValueError: If the shapes do not fit, or a target is not one of the classes.

    Source:
        Courbariaux et al., NeurIPS 2015, Section 3; Li & Hao, ICML 2018, official code.

    Example:
        >>> squared_hinge(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([0.5000])
    """
    if output.ndim != 2 or target.shape != output.shape[:1]:
        raise ValueError(
            "output must have shape (batch, classes) and target shape (batch,); got "
            f"{tuple(output.shape)} and {tuple(target.shape)}. Pass classes, not one-hot rows."
        )
    if output.dtype in (torch.float16, torch.bfloat16):
        output = output.float()
    try:
        sign = torch.full_like(output, -1).scatter(1, target.long()[:, None], 1.0)
    except RuntimeError as error:  # on a GPU an index out of range ends the process, as in torch
        raise ValueError(
            f"target must hold classes 0..{output.shape[1] - 1}, one for each output of a row: "
            f"{error}"
        ) from error
    return (1 - sign * output).clamp(min=0).square().mean(1)
