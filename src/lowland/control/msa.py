r"""The basic method of successive approximations, for any set of controls, as it was first written.

States forward, costates backward, then in every layer the control that maximizes the Hamiltonian,
all from the same old trajectory. It cycles or diverges unless moves are penalized: a method to
learn from and to check others against.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland.control.checks import check_choice
from lowland.control.choice import choose_values, discrete_weights, drawn
from lowland.control.full_batch import FullBatch
from lowland.control.hamiltonian import hamiltonian_gradients
from lowland.control.result import MSAResult
from lowland.control.sweeps import (
    Ended,
    as_result,
    checked_run,
    refuse_infinite,
    sweep,
)
from lowland.control.trajectory import RunningCost, Trajectory
from lowland.training import Log, Progress, generator

__all__ = ["Argmax", "basic_msa", "gradient_step"]

Argmax = Callable[[Trajectory], Mapping[str, Tensor]]


def basic_msa(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    *,
    steps: int,
    values: Sequence[float] | None = None,
    argmax: Argmax | None = None,
    lam: float = 0.0,
    rho: float = 0.0,
    threshold: str = "absolute",
    layers_per_step: int | None = None,
    running_cost: RunningCost | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None | Progress = False,
    log: Log | None = None,
) -> MSAResult:
    r"""Change the controls in place to those that maximize the Hamiltonian, sweep after sweep.

    Every sweep sees all batches as one, in train mode and with the same random numbers. Discrete
    weights take the value of their set, anything else needs an ``argmax``. Parameters that neither
    names keep their values; batch norm normalizes by the batch, and its running statistics are set
    at the end.

    Args:
        model: Any module that can be taken apart into layers.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``.
        steps: Number of sweeps; fewer if nothing changes any more.
        values: Set of the weights, such as ``(-1, 1)``; None for those that the model was
            discretized to. The pieces of the data pass one after the other.
        argmax: From a trajectory to new controls by parameter name. All data are one batch for it.
        lam: Price :math:`\lambda` of a squared weight, in nats; for discrete weights. It decides
            which value they take, and is not in the loss that is reported.
        rho: Penalty :math:`\rho` on a squared move; for discrete weights.
        threshold: ``"absolute"``: rho is in nats. ``"relative"``: it is multiplied by the largest
            :math:`|M|` of the tensor's wrong weights and divided by the smallest gap of the set.
        layers_per_step: Change so many weight tensors a sweep, drawn anew; None for all.
        running_cost: See :func:`lowland.control.states_and_costates`. What depends on the controls
            alone is not seen by discrete weights; that is what ``lam`` is for.
        seed: Of that draw, and of what is random in reading and in the model.
        out: Folder for the result.
        progress: See :func:`lowland.training.open_progress`.
        log: Called as ``log(values, step)`` with each row of the curve.

    Returns:
        The loss before every sweep and after the last, in nats per example, with running costs but
        without the price ``lam`` of the weights (that of :func:`lowland.control.monotone_msa` has
        it); and how it ended: ``CONVERGED`` where no weight changes, ``NOT_FINITE`` where the
        weights run away; ``summary["period"]`` if the weights repeat.

    Raises:
        ValueError: If an argument is not what it must be, or a weight is not in its set.

    Source:
        Li & Hao, ICML 2018; specification section 3, algorithm A.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> batches = [(torch.ones(1, 1).double(), torch.tensor([0.2]).double())]
        >>> squared = lambda output, target: (output[:, 0] - target) ** 2
        >>> result = basic_msa(model, squared, batches, steps=4, values=(-1, 1))
        >>> [round(row["loss"], 2) for row in result.curve], result.summary["period"]
        ([0.64, 1.44, 0.64, 1.44, 0.64], 2)
    """
    if values is not None and argmax is not None:
        raise ValueError(
            f"only one of values and argmax can be given; got values={values} and {argmax}. "
            "An argmax chooses from a set of its own."
        )
    if argmax is not None and (lam, rho, threshold, layers_per_step) != (0, 0, "absolute", None):
        raise ValueError(
            "lam, rho, threshold and layers_per_step are for discrete weights, and an argmax must "
            f"penalize moves itself; got {lam}, {rho}, {threshold!r} and {layers_per_step} beside "
            "it. Leave them out."
        )
    settings = {"driver": "basic_msa", "lam": lam, "rho": rho, "threshold": threshold, "seed": seed}
    settings |= {"values": values, "layers_per_step": layers_per_step}
    folder = checked_run(batches, out, settings, steps)
    data = FullBatch(model, loss_fn, batches, seed, running_cost)
    draws = generator(seed, "layers")
    visits = Visits()
    check_choice(lam, rho, threshold, layers_per_step)
    sets = discrete_weights(model, values) if argmax is None else {}

    def look() -> tuple[float, Any]:
        if argmax is None:
            return data.products(sets)
        found = data.trajectory()
        return found.loss.item(), found

    def choose(seen: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if argmax is not None:
            return dict(argmax(seen)), {}
        refuse_infinite(seen, "product M")
        weights = {name: model.get_parameter(name).detach() for name in sets}
        if layers_per_step is None:
            visits.note(weights)
        new = {}
        for name in drawn([*sets], layers_per_step, draws):
            new[name] = choose_values(
                weights[name], seen[name], sets[name], lam=lam, rho=rho, threshold=threshold
            )
        return new, {}

    ended = sweep(model, look, choose, steps, progress, "sweeps", log)
    data.settle_norms()
    return as_result(
        model,
        ended,
        folder,
        discrete=sets,
        message=" ".join(filter(None, (visits.message(), uphill(ended)))),
        summary={"period": visits.period},
    )


def uphill(ended: Ended) -> str:
    """Say that the loss grew, if it did."""
    if not ended.curve or not ended.curve[-1]["loss"] > ended.curve[0]["loss"]:
        return ""
    first, last = ended.curve[0]["loss"], ended.curve[-1]["loss"]
    return f"The loss went uphill, from {first:.4g} to {last:.4g}: moves need a larger penalty."


class Visits:
    """Notices when discrete weights return to where they were: from there on they repeat.

    Attributes:
        seen: Step of each set of weights, by a digest of its bytes.
        steps: Number of sets seen.
        period: Steps from one visit to the next, None before there is one.
        first: Step of the first visit.
    """

    def __init__(self) -> None:
        self.seen: dict[bytes, int] = {}
        self.steps = 0
        self.period: int | None = None
        self.first = 0

    def note(self, weights: Mapping[str, Tensor]) -> None:
        """Look whether these weights were here before."""
        if self.period is not None:
            return
        digest = sha256()
        for weight in weights.values():
            digest.update(weight.to("cpu", torch.float64).contiguous().numpy().tobytes())
        self.first = self.seen.setdefault(digest.digest(), self.steps)
        if self.first < self.steps:
            self.period = self.steps - self.first
        self.steps += 1

    def message(self) -> str:
        """Say so."""
        if self.period is None:
            return ""
        return (
            f"From step {self.first} on the weights repeat every {self.period} steps: raise rho, "
            "or take monotone_msa."
        )


def gradient_step(eta: float) -> Argmax:
    r"""Replace the maximum by a step uphill: :math:`\theta + \eta \sum_s \nabla_\theta H_t`.

    This is gradient descent on the loss with learning rate :math:`\eta`.

    Args:
        eta: Step size, above 0.

    Returns:
        An argmax for :func:`basic_msa`; it moves every parameter of every layer.

    Raises:
        ValueError: If eta is not positive.

    Source:
        Specification section 2, "Relation with SGD", and oracle O6.
    """
    if not eta > 0:
        raise ValueError(f"eta, the step size, must be above 0; got {eta}.")

    def step(trajectory: Trajectory) -> dict[str, Tensor]:
        slopes = hamiltonian_gradients(trajectory)
        return {
            name: trajectory.params[name].add(slope, alpha=eta) for name, slope in slopes.items()
        }

    return step
