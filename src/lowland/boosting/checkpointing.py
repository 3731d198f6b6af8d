"""Training end to end that keeps only what passes between the parts of a chain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lowland.boosting.chain import Chain
from lowland.training import norm_layers

__all__ = ["Checkpointed", "checkpointed"]


def checkpointed(chain: Chain) -> "Checkpointed":
    """Wrap a chain so that training end to end keeps only what passes between its parts.

    Args:
        chain: The chain; its model is trained, and may be used without the wrapper at any time.

    Returns:
        A module with the inputs, the logits and the gradients of the model.
    """
    return Checkpointed(chain)


class Checkpointed(nn.Module):
    """A chain whose parts are computed a second time in the backward pass.

    Running statistics are updated once, in the forward pass, and dropout draws the same numbers
    both times.

    Args:
        chain: The chain.

    Source:
        Chen et al., Training deep nets with sublinear memory cost, 2016.
    """

    def __init__(self, chain: Chain):
        super().__init__()
        self.model = chain.model
        self.chain = chain

    def forward(self, *inputs: Any, **named: Any) -> Float[Tensor, "batch classes"]:
        """Run the chain.

        Args:
            *inputs: As the model takes them.
            **named: Likewise.

        Returns:
            Logits.
        """
        values = self.chain.values(named or (inputs[0] if len(inputs) == 1 else inputs))
        for part in self.chain.parts:
            values = checkpoint(part, *values, use_reentrant=False, context_fn=contexts(part))
        return self.chain.head(*values)


def contexts(part: nn.Module) -> Callable[[], tuple[Any, Any]]:
    """Make the surroundings of a part's first and second run."""
    return lambda: (nullcontext(), other_statistics(part))


@contextmanager
def other_statistics(part: nn.Module) -> Iterator[None]:
    """Give batch norms copies of their running statistics to update, and take them away again."""
    layers = norm_layers(part).values()
    own = [(layer, dict(layer._buffers)) for layer in layers]
    try:
        for layer, buffers in own:
            layer._buffers.update({k: b if b is None else b.clone() for k, b in buffers.items()})
        yield
    finally:
        for layer, buffers in own:
            layer._buffers.update(buffers)
