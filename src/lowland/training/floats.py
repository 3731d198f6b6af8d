"""Types of floating-point numbers: what half types are raised to, and the widest of a device."""

import torch
from torch import Tensor

__all__ = ["raised", "wide_type"]


def raised(tensor: Tensor) -> Tensor:
    """Raise half types to float32, in which exponentials fit.

    Args:
        tensor: Of any type.

    Returns:
        The tensor in float32 or wider; itself if it is so already.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def wide_type(device: torch.device) -> torch.dtype:
    """Name the type that sums are made in.

    Args:
        device: Where they are made.

    Returns:
        float64, or float32 on a device that has no float64.
    """
    return torch.float32 if device.type == "mps" else torch.float64
