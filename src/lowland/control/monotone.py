r"""Successive approximations that never go uphill: the penalty rises until the loss falls.

The larger the penalty :math:`\rho`, the fewer weights move. A weight moves as long as
:math:`\rho` is below its *worth*, the largest gain of the Hamiltonian per squared move

.. math:: \max_{v \neq w} \frac{M (v - w) - \lambda (v^2 - w^2)}{(v - w)^2},

so that doubling or halving the penalty becomes exact: sort the weights by their worth, and let the
k most worthy move.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.control.checks import check_choice
from lowland.control.choice import choose_values, discrete_weights, drawn
from lowland.control.full_batch import FullBatch
from lowland.control.result import MSAResult
from lowland.control.sweeps import as_result, checked_run, refuse_infinite, sweep
from lowland.results import Status
from lowland.training import Log, Progress, generator

__all__ = ["Move", "Part", "monotone_msa", "most_worthy", "worth"]


def monotone_msa(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    *,
    values: Sequence[float] | None = None,
    lam: float = 0.0,
    steps: int | None = None,
    sufficient: float = 1e-4,
    layers_per_step: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None | Progress = False,
    log: Log | None = None,
) -> MSAResult:
    r"""Change discrete weights in place so that the loss over all data falls at every step.

    A step lets the k weights of all layers move for which that is worth most; if the loss does not
    fall by at least ``sufficient`` times what the Hamiltonian gains, k is halved; once accepted it
    doubles for the next step. When even one weight is refused, layers are tried one at a time, each
    from its whole argmax down to its most worthy weight by halves, and there any fall is accepted.
    The run ends when no layer has one.

    Everything is in train mode with the same random numbers at every look; other parameters keep
    their values, batch norm normalizes by the batch, and its running statistics are set at the end.

    Args:
        model: Its linear, convolutional and embedding weights must lie in the set.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``; a step reads it once for M, and once for every
            trial.
        values: Set of the weights, such as ``(-1, 1)``; None for those that the model was
            discretized to.
        lam: Price :math:`\lambda` of a squared weight, in nats; it belongs to the loss that falls.
        steps: Largest number of steps; None for as many as it takes.
        sufficient: Least fall of the loss per gain of the Hamiltonian, 0 to 1.
        layers_per_step: The step of many layers takes so many, drawn anew; None for all.
        seed: Of that draw, and of what is random in reading and in the model.
        out: Folder for the result.
        progress: See :func:`lowland.training.open_progress`.
        log: Called as ``log(values, step)`` with each row of the curve.

    Returns:
        ``CONVERGED`` where the loss falls neither by any layer's argmax nor by the half, the
        quarter, ... or the one weight of a layer that is worth most: the change of another single
        weight, which nobody tried, may still lower it. ``FINISHED`` after ``steps``. The curve has
        ``loss`` in nats per example, with the price ``lam`` of the weights (that of
        :func:`lowland.control.basic_msa` leaves it out), ``changed``, ``rho``, ``gain``,
        ``trials`` and the ``layer`` of a step of one layer.

    Raises:
        ValueError: If an argument is not what it must be.

    Source:
        Specification section 3, algorithm C, and section 2, settled point (iv); after the
        sequential quadratic Hamiltonian methods (arXiv 2504.11647).
    """
    if not 0 <= sufficient < 1:
        raise ValueError(
            f"sufficient, the least fall per gain, must be in [0, 1); got {sufficient}."
        )
    check_choice(lam, 0.0, "absolute", layers_per_step)
    settings = {"driver": "monotone_msa", "values": values, "lam": lam, "sufficient": sufficient}
    settings |= {"layers_per_step": layers_per_step, "seed": seed}
    folder = checked_run(batches, out, settings, steps)
    sets = discrete_weights(model, values)
    search = Search(
        FullBatch(model, loss_fn, batches, seed),
        {name: model.get_parameter(name) for name in sets},
        sets,
        lam,
        sufficient,
        layers_per_step,
        generator(seed, "layers"),
    )
    ended = sweep(model, search.look, search.choose, steps, progress, "monotone steps", log)
    search.data.settle_norms()
    return as_result(
        model,
        ended,
        folder,
        discrete=sets,
        message="No layer's own argmax lowers the loss." * (ended.status is Status.CONVERGED),
        summary={"trials": sum(row.get("trials", 0) for row in ended.curve)},
    )


@dataclass
class Search:
    """What is between two steps of a monotone run.

    Attributes:
        data: All batches.
        weights: The discrete weights, by name.
        sets: Their sets, ascending.
        lam: Price of a squared weight, in nats.
        sufficient: Least fall of the loss per gain.
        layers_per_step: Tensors of a common step, or None.
        draws: Chooses them.
        size: Weights that may move in the next common step, None for all.
        loss: Nats per example at the present weights, price included; None before it is measured.
    """

    data: FullBatch
    weights: Mapping[str, nn.Parameter]
    sets: Mapping[str, Sequence[float]]
    lam: float
    sufficient: float
    layers_per_step: int | None
    draws: torch.Generator
    size: int | None = None
    loss: float | None = None

    def look(self) -> tuple[float, None]:
        """Give the loss at the present weights, price included.

        Returns:
            The loss, and nothing to choose by.
        """
        if self.loss is None:
            self.loss = self.objective({})
        return self.loss, None

    def objective(self, new: Mapping[str, Tensor]) -> float:
        """Measure the loss with other weights, price included."""
        loss = self.data.loss(new)
        if self.lam:
            whole = {name: weight.detach() for name, weight in self.weights.items()} | dict(new)
            loss += self.lam * sum(value.double().square().sum().item() for value in whole.values())
        return loss

    def choose(self, seen: None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Find the next weights: of all layers together, or else of one.

        Args:
            seen: Nothing.

        Returns:
            New weights by name, none if nothing is better, and what the curve keeps.
        """
        _, products = self.data.products(self.weights)
        refuse_infinite(products, "product M")
        trials = 0
        together = drawn([*self.weights], self.layers_per_step, self.draws)
        for names in (together, *([name] for name in self.weights)):
            alone = len(names) == 1
            parts = [
                Part(name, self.weights[name].detach(), products[name], self.sets[name], self.lam)
                for name in names
            ]
            size = None if alone else self.size
            sufficient = 0.0 if alone else self.sufficient
            for move in moves(parts, size):
                trials += 1
                loss = self.objective(move.weights)
                fall = self.look()[0] - loss
                if fall > 0 and fall >= sufficient * move.gain:
                    self.loss, self.size = loss, 2 * move.size
                    found = {"rho": move.rho, "gain": move.gain, "trials": trials}
                    return move.weights, found | ({"layer": names[0]} if alone else {})
        return {}, {"trials": trials}


@dataclass(frozen=True)
class Move:
    """The argmax at one penalty.

    Attributes:
        weights: New weights by name; tensors that do not change are left out.
        size: Number of weights that move.
        rho: The penalty on a squared move, in nats.
        gain: What the Hamiltonian without its penalty gains, in nats.
    """

    weights: dict[str, Tensor]
    size: int
    rho: float
    gain: float


@dataclass(frozen=True)
class Part:
    """A weight tensor that may move.

    Attributes:
        name: Of the weight.
        weight: The present weights.
        product: M.
        values: Their set, ascending.
        lam: Price of a squared weight.
    """

    name: str
    weight: Tensor
    product: Tensor
    values: Sequence[float]
    lam: float = 0.0


def moves(parts: Sequence[Part], size: int | None) -> Iterable[Move]:
    """Halve the number of moving weights, down to one."""
    worths = torch.cat([worth(p.weight, p.product, p.values, p.lam).flatten() for p in parts])
    able = int((worths > 0).sum())
    size = able if size is None else min(size, able)
    while size:
        yield most_worthy(parts, worths, size)
        size //= 2


def worth(
    weight: Float[Tensor, "*shape"],
    product: Float[Tensor, "*shape"],
    values: Sequence[float],
    lam: float = 0.0,
) -> Float[Tensor, "*shape"]:
    r"""Find the penalty below which each weight moves.

    Args:
        weight: The present weights.
        product: M.
        values: The set.
        lam: Price of a squared weight.

    Returns:
        The largest gain per squared move, in nats; a weight that is best where it is has none
        above 0.

    Source:
        Ours.
    """
    best = torch.full_like(product, -torch.inf)
    for value in values:
        step = value - weight
        gain = product * step - lam * (value**2 - weight**2)
        best = torch.maximum(best, torch.where(step == 0, -torch.inf, gain / step**2))
    return best


def most_worthy(parts: Sequence[Part], worths: Float[Tensor, " weights"], size: int) -> Move:
    """Maximize the Hamiltonians with the penalty at which a given number of weights moves.

    Args:
        parts: The weights.
        worths: :func:`worth` of each, one tensor after the other.
        size: Number of weights to move, at most as many as have a worth above 0. Of equal ones
            those that come first move.

    Returns:
        The move.

    Source:
        Ours.
    """
    order = worths.argsort(descending=True, stable=True)[:size]
    least = worths[order[-1]]
    below = torch.where(worths < least, worths, 0.0).max().clamp(min=0)
    rho = ((least + below) / 2).item()  # all between the two are alike; the middle shuns rounding
    chosen = torch.zeros_like(worths, dtype=torch.bool).index_fill_(0, order, True)
    new, gain = {}, 0.0
    masks = chosen.split([part.weight.numel() for part in parts])
    for part, mask in zip(parts, masks, strict=True):
        wanted = choose_values(part.weight, part.product, part.values, lam=part.lam, rho=rho)
        moved = torch.where(mask.view_as(part.weight), wanted, part.weight)
        if not torch.equal(moved, part.weight):
            new[part.name] = moved
            price = part.lam * (moved**2 - part.weight**2)
            step = part.product * (moved - part.weight) - price
            gain += step.double().sum().item()
    return Move(new, size, rho, gain)
