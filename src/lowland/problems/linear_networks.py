"""Linear networks of one hidden layer: every minimum and every best path in closed form."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "LinearNetwork",
    "NetworkPair",
    "linear_loss",
    "rescaled_pair",
    "sign_flipped_pair",
    "squared_error",
]


class LinearNetwork(nn.Module):
    r"""One input, ``width`` linear hidden units, one output: :math:`x \sum_a u_a v_a`.

    Args:
        width: Number of hidden units.
    """

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.ones(width, dtype=torch.float64))
        self.outer = nn.Parameter(torch.ones(width, dtype=torch.float64))

    def forward(self, inputs: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Multiply every input by the same number."""
        return inputs * (self.inner * self.outer).sum()


def squared_error(
    output: Float[Tensor, " batch"], target: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Measure the squared difference, one loss per example.

    Args:
        output: What the network says.
        target: What it should say.

    Returns:
        Losses, without a factor of one half.
    """
    return (output - target).square()


def linear_loss(vector: Float[Tensor, "*batch params"]) -> Float[Tensor, "*batch"]:
    r"""Evaluate :math:`(\sum_a u_a v_a - 1)^2`: the loss of a linear network on the input 1.

    Args:
        vector: The inner weights, then the outer ones, as many.

    Returns:
        The loss; the same as that of :class:`LinearNetwork` at this flat vector.

    Source:
        no_barriers, section 7.3.
    """
    inner, outer = vector.chunk(2, dim=-1)
    return ((inner * outer).sum(-1) - 1).square()


@dataclass(frozen=True)
class NetworkPair:
    """Two minima of one network, and how high the paths between them must climb.

    Attributes:
        name: What the pair shows.
        model: The architecture.
        loss_fn: From output and target to one loss per example.
        batches: All data, as a list of (inputs, target).
        start: State dict of the first minimum, loss 0.
        end: State dict of the second one, loss 0.
        minimax: The lowest possible maximum of the loss over all continuous paths.
        line_max: The maximum of the loss on the straight line.
    """

    name: str
    model: nn.Module
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    batches: list[tuple[Tensor, Tensor]]
    start: dict[str, Tensor]
    end: dict[str, Tensor]
    minimax: float
    line_max: float

    def vectors(self) -> Float[Tensor, "2 params"]:
        """Flatten both ends, for functions of points such as :func:`linear_loss`.

        Returns:
            The start and the end, one per row.
        """
        flat = [torch.cat(list(state.values())) for state in (self.start, self.end)]
        return torch.stack(flat)


def sign_flipped_pair(width: int = 1) -> NetworkPair:
    r"""Give a network and the one with all signs changed, which computes the same.

    With one hidden unit :math:`u v` is 1 at both ends and must cross 0, where the loss is 1. With
    two there is no barrier: with :math:`u = v` the loss is :math:`(|u|^2 - 1)^2`, zero along a
    half circle. The straight line passes through the origin, and feels no force aside:
    a symmetry trap, which noise on the unused unit opens.

    Args:
        width: Number of hidden units.

    Returns:
        The pair. With more than one unit all but the first are zero at the ends.

    Raises:
        ValueError: If ``width`` is less than one.

    Source:
        no_barriers, section 7.3.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1; got {width}.")
    unit = torch.eye(width, dtype=torch.float64)[0]
    return pair(
        f"changed signs, width {width}",
        LinearNetwork(width),
        {"inner": unit, "outer": unit.clone()},
        {"inner": -unit, "outer": -unit},
        minimax=1.0 if width == 1 else 0.0,
        line_max=1.0,
    )


def rescaled_pair() -> NetworkPair:
    r"""Give :math:`(u, v) = (1/2, 2)` and :math:`(2, 1/2)`: one function, two scales.

    The hyperbola :math:`u v = 1` joins them without a barrier. In the middle of the straight line
    :math:`u v = 25/16`, so that the loss is :math:`81/256`.

    Returns:
        The pair, width 1.

    Source:
        no_barriers, section 7.3.
    """
    half, two = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    return pair(
        "rescaled",
        LinearNetwork(1),
        {"inner": half, "outer": two},
        {"inner": two.clone(), "outer": half.clone()},
        minimax=0.0,
        line_max=81 / 256,
    )


def pair(
    name: str, model: LinearNetwork, start: dict, end: dict, *, minimax: float, line_max: float
) -> NetworkPair:
    """Put a pair together with the only example there is: the input 1, the target 1."""
    one = torch.ones(1, dtype=torch.float64)
    batches = [(one, one.clone())]
    return NetworkPair(name, model, squared_error, batches, start, end, minimax, line_max)
