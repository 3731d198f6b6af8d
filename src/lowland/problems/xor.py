"""The XOR network: with two hidden units there is a barrier, a third or fourth removes it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.functional import hessian
from torch.nn.functional import cross_entropy

from lowland.params import call_at, trainable
from lowland.problems.choreography import swap_units

__all__ = [
    "XorNetwork",
    "find_xor_minimum",
    "logistic_loss",
    "xor_data",
    "xor_ends",
    "xor_scores",
    "xor_targets",
]

# Weight of |params|^2 in what the minimum minimizes; without it the minimum lies at infinity.
PENALTY = 1e-3


class XorNetwork(nn.Module):
    """Two inputs, tanh hidden units, one logit, handed out as the scores (0, logit).

    With two scores any code for classification can count its errors; the cross-entropy of
    (0, logit) is the logistic loss of the logit. All parameters are zero at first.

    Args:
        hidden: Number of hidden units.
    """

    def __init__(self, hidden: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the layers draw what is not wanted here
            self.inner = nn.Linear(2, hidden, dtype=torch.float64)
            self.outer = nn.Linear(hidden, 1, dtype=torch.float64)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 2"]:
        """Score both classes."""
        logit = self.outer(torch.tanh(self.inner(inputs)))
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def xor_data() -> tuple[Float[Tensor, "4 2"], Int[Tensor, " 4"]]:
    """Give the four corners of a square, and whether their coordinates differ.

    Returns:
        Inputs -1 and 1, and classes 0 and 1. The numbers of the specification belong to these
        inputs; with inputs 0 and 1 the minimum has another loss.
    """
    inputs = torch.tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=torch.float64)
    return inputs, torch.tensor([0, 1, 1, 0])


def logistic_loss(
    output: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Measure the cross-entropy, one loss per example, in nats.

    Args:
        output: Scores of the classes.
        target: The right class.

    Returns:
        Losses.
    """
    return cross_entropy(output, target, reduction="none")


def xor_scores(vectors: Float[Tensor, "rows params"], hidden: int) -> Float[Tensor, "rows 4"]:
    """Run many XOR networks at once, given as vectors.

    Args:
        vectors: Parameters in the order of ``lowland.params.trainable(XorNetwork(hidden))``.
        hidden: Number of hidden units.

    Returns:
        The logit of every network for each of the four inputs.
    """
    inner, bias, outer, offset = vectors.split([2 * hidden, hidden, hidden, 1], dim=1)
    inputs = xor_data()[0].to(vectors)
    units = torch.tanh(inner.view(-1, hidden, 2) @ inputs.T + bias.unsqueeze(2))
    return (outer.unsqueeze(2) * units).sum(1) + offset


def xor_targets() -> Float[Tensor, " 4"]:
    """Give the classes of the four inputs as signs.

    Returns:
        1 where the coordinates of an input differ, else -1.
    """
    return 2 * xor_data()[1].double() - 1


def find_xor_minimum() -> dict[str, Tensor]:
    r"""Find the minimum of the network with two hidden units, penalty :math:`10^{-3} |p|^2`.

    One unit computes OR, the other NAND, and the output is their AND. Newton's method, from a
    guess with these signs, is there in a few steps. The loss without the penalty is 0.026489.

    The minimum has images under permutation and sign of its units. In this one the incoming
    weights of the two units have opposite signs, which is the choice that belongs to the numbers
    of the specification (the straight line to the swapped network reaches 1.992; if the units
    differ in the sign of bias and outgoing weight instead, it reaches 1.816).

    Returns:
        The state dict of ``XorNetwork(2)``.

    Source:
        no_barriers, section 7.4.
    """
    model = XorNetwork(2)
    layout, (inputs, target) = trainable(model), xor_data()

    def penalized(vector: Tensor) -> Tensor:
        output = call_at(model, layout.views(vector), inputs)
        return logistic_loss(output, target).mean() + PENALTY * vector.square().sum()

    vector = torch.tensor([1.7, 1.7, -1.7, -1.7, 1.5, 1.5, 4, 4, -3.5], dtype=torch.float64)
    for _ in range(10):
        leaf = vector.requires_grad_()
        (slope,) = grad(penalized(leaf), leaf)
        vector = (leaf - torch.linalg.solve(hessian(penalized, leaf), slope)).detach()
    return {name: view.clone() for name, view in layout.views(vector).items()}


def xor_ends(hidden: int = 2) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Give two minima of the XOR network that differ in the order of two hidden units.

    Args:
        hidden: Number of hidden units; all but the first two have zero weights.

    Returns:
        State dicts of ``XorNetwork(hidden)``: the minimum, and the same with its units swapped.

    Raises:
        ValueError: If there are fewer than two units.

    Source:
        Draxler et al., ICML 2018, section 5 and Fig. 8; no_barriers, section 7.4.
    """
    if hidden < 2:
        raise ValueError(f"hidden must be at least 2; got {hidden}.")
    small = find_xor_minimum()
    start = {
        name: torch.zeros_like(value) for name, value in XorNetwork(hidden).state_dict().items()
    }
    start["inner.weight"][:2] = small["inner.weight"]
    start["inner.bias"][:2] = small["inner.bias"]
    start["outer.weight"][:, :2] = small["outer.weight"]
    start["outer.bias"][:] = small["outer.bias"]
    return start, swap_units(start, 0, 1, inner="inner", outer="outer")
