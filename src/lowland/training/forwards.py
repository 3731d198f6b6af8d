"""Forward passes that do something else for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["plain_attention", "replaced"]


@contextmanager
def replaced(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else in a block.

    Args:
        module: Any module; its hooks run as ever.
        function: What stands for its forward pass.

    Yields:
        Nothing.
    """
    own = vars(module).get("forward")
    module.forward = function
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def plain_attention() -> Iterator[None]:
    """Let attention layers compute step by step in a block, also where torch fuses them.

    The fused pass has other last digits, no derivative and, for padded examples, tensors that are
    no arrays.

    Yields:
        Nothing.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
