r"""The extended method (E-MSA): for float controls, with states and costates kept feasible.

New controls that maximize the Hamiltonian alone may throw states and costates off the equations
they came from. The extended Hamiltonian charges for that, and is maximized in every layer by a few
steps of L-BFGS.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland.control.full_batch import FullBatch
from lowland.control.hamiltonian import feasibility_hamiltonian
from lowland.control.marks import values_of
from lowland.control.result import MSAResult
from lowland.control.sweeps import as_result, checked_run, sweep
from lowland.control.trajectory import RunningCost, Trajectory, states_and_costates
from lowland.training import (
    Log,
    Progress,
    as_pair,
    batch_count,
    check_not_empty,
    device_of,
    generator,
    isolated_rng,
    to_device,
)

__all__ = ["extended_msa", "maximize_extended", "weight_decay_cost"]


def extended_msa(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    *,
    rho: float,
    steps: int,
    weight_decay: float = 0.0,
    inner_steps: int = 10,
    perturbation: float = 0.005,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None | Progress = False,
    log: Log | None = None,
) -> MSAResult:
    r"""Train the float parameters of a model in place by maximizing extended Hamiltonians.

    A step takes the next batch: its states and costates, then in every layer the controls that
    maximize :math:`\sum_s H_t - \tfrac\rho2 \sum_s \lVert x_{t+1} - f_t\rVert^2 - \tfrac\rho2
    \sum_s \lVert p_t - \nabla_x H_t\rVert^2`. One batch is the full-batch method.

    Costates carry 1/S and the feasibility terms do not, so that the same rho holds a larger batch
    tighter.

    Args:
        model: Any module that can be taken apart into layers, in train mode meanwhile; parameters
            that require a gradient and are not discrete are trained. Its running statistics are
            taken anew at the end.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``.
        rho: Price of leaving the equations, at least 0, in nats per squared state or costate.
        steps: Number of batches to step on, over as many epochs as that takes.
        weight_decay: :math:`L_t = \mathrm{weight\_decay} \cdot \lVert\theta_t\rVert^2`, in nats.
        inner_steps: L-BFGS iterations in each layer.
        perturbation: L-BFGS starts at most this far, uniformly, from every old control, in units
            of the controls: at zero weights nothing else breaks the symmetry.
        seed: Of these perturbations and of the order of batches.
        out: Folder for the result.
        progress: See :func:`lowland.training.open_progress`.
        log: Called as ``log(values, step)`` with each row of the curve.

    Returns:
        The loss with its weight decay, in nats per example, of every batch before its step, and of
        one more batch at the end; ``NOT_FINITE`` if it diverges.

    Raises:
        ValueError: If an argument is not what it must be.

    Source:
        Li, Chen, Tai & E, JMLR 18:165, 2018; specification section 3, algorithm D.
    """
    check_lengths(rho, weight_decay, inner_steps, perturbation)
    settings = {"driver": "extended_msa", "rho": rho, "weight_decay": weight_decay, "seed": seed}
    settings |= {"inner_steps": inner_steps, "perturbation": perturbation}
    folder = checked_run(batches, out, settings, steps)
    names = float_controls(model)
    draws = generator(seed, "perturbation")

    with closing(endless(batches, seed)) as stream:

        def look() -> tuple[float, Trajectory]:
            inputs, target = to_device(as_pair(next(stream)), device_of(model))
            cost = weight_decay_cost(weight_decay, batch_count(target)) if weight_decay else None
            found = states_and_costates(
                model, loss_fn, inputs, target, running_cost=cost, update_statistics=True
            )
            return found.loss.item(), found

        def choose(found: Trajectory) -> tuple[dict[str, Tensor], dict[str, Any]]:
            new = maximize_extended(
                found, rho, names, inner_steps=inner_steps, perturbation=perturbation, draws=draws
            )
            return new, {}

        ended = sweep(model, look, choose, steps, progress, "extended steps", log)
    FullBatch(model, loss_fn, batches, seed).settle_norms()
    return as_result(model, ended, folder)


def check_lengths(rho: float, weight_decay: float, inner_steps: int, perturbation: float) -> None:
    """Refuse settings that mean nothing."""
    lengths = {"rho": rho, "weight_decay": weight_decay, "perturbation": perturbation}
    for name, number in lengths.items():
        if not (number >= 0 and isfinite(number)):
            raise ValueError(f"{name} must be finite and at least 0; got {number}.")
    if not (inner_steps >= 1 and inner_steps % 1 == 0):
        raise ValueError(f"inner_steps must be a whole number, at least 1; got {inner_steps}.")


def float_controls(model: nn.Module) -> list[str]:
    """Name the parameters that can be moved a little."""
    discrete = values_of(model)
    names = [n for n, p in model.named_parameters() if p.requires_grad and n not in discrete]
    if not names:
        raise ValueError(
            f"the model must have float parameters that require a gradient; {type(model).__name__} "
            "has none. Call model.requires_grad_(True), or take basic_msa or monotone_msa for "
            "discrete weights."
        )
    return names


def endless(batches: Iterable[Any], seed: int) -> Generator[Any]:
    """Go through the batches again and again, shuffled anew every time if they are."""
    for epoch in count():
        read = 0
        with isolated_rng(seed, "epoch", epoch, batches=batches, epoch=epoch):
            for batch in batches:
                read += 1
                yield batch
        check_not_empty(read)


def weight_decay_cost(weight_decay: float, examples: int) -> RunningCost:
    r"""Make the running cost :math:`L_t = \mathrm{weight\_decay} \cdot \lVert\theta_t\rVert^2`.

    Args:
        weight_decay: Its factor, in nats, without a half.
        examples: Size of the batch.

    Returns:
        For :func:`lowland.control.states_and_costates`: the same number for every example. Layers
        without parameters cost nothing; a shared parameter costs in each of its layers.

    Source:
        Li, Chen, Tai & E, JMLR 18:165, 2018, the running cost.
    """

    def cost(name: str, state: Any, params: Mapping[str, Tensor]) -> Tensor | None:
        if not params:
            return None
        total = torch.stack([value.square().sum() for value in params.values()]).sum()
        return (weight_decay * total).expand(examples)

    return cost


def maximize_extended(
    trajectory: Trajectory,
    rho: float,
    names: Iterable[str] | None = None,
    *,
    inner_steps: int = 10,
    perturbation: float = 0.0,
    draws: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Maximize the extended Hamiltonian of every layer by L-BFGS, from the same trajectory.

    Layers that share a parameter are maximized together. Where the end is no better than the old
    controls, these are kept.

    Args:
        trajectory: States and costates at the old controls; a running cost in it is charged.
        rho: Price of leaving the equations, at least 0.
        names: Parameters that may move; None for all.
        inner_steps: L-BFGS iterations.
        perturbation: Largest distance of the start from the old controls, in every coordinate.
        draws: Source of the perturbations, on the CPU; needed if there are any.

    Returns:
        New controls by name.

    Raises:
        ValueError: If there is a perturbation and nothing to draw it from.

    Source:
        Li, Chen, Tai & E, JMLR 18:165, 2018 (E-MSA); specification section 3, algorithm D.
    """
    if perturbation and draws is None:
        raise ValueError("a perturbation needs draws, a torch.Generator; got None.")
    free = set(trajectory.params if names is None else names)
    new: dict[str, Tensor] = {}
    for layers, mine in groups(trajectory, free):
        old = {name: trajectory.params[name] for name in mine}
        leaves = {}
        for name, value in old.items():
            start = value.detach().clone()
            if perturbation:
                noise = torch.rand(value.shape, generator=draws, dtype=torch.float64)
                start += perturbation * (2 * noise - 1).to(start)
            leaves[name] = start.requires_grad_()
        new |= climb(trajectory, rho, layers, old, leaves, inner_steps)
    return new


def groups(trajectory: Trajectory, free: set[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Part the layers with free parameters into groups that share none."""
    parts: list[tuple[list[str], set[str]]] = []
    for layer in trajectory.layers:
        mine = free & set(layer.parameters)
        if not mine:
            continue
        shared = [part for part in parts if part[1] & mine]
        parts = [part for part in parts if not part[1] & mine]
        parts.append(
            ([*sum((p[0] for p in shared), []), layer.name], mine.union(*(p[1] for p in shared)))
        )
    for layers, mine in parts:
        yield layers, sorted(mine)


def climb(
    trajectory: Trajectory,
    rho: float,
    layers: list[str],
    old: dict[str, Tensor],
    leaves: dict[str, Tensor],
    inner_steps: int,
) -> dict[str, Tensor]:
    """Climb from the leaves; what is lower than the old controls in the end is not taken."""

    def height(params: Mapping[str, Tensor]) -> Tensor:
        found = feasibility_hamiltonian(trajectory, params, rho, layers=layers)
        return torch.stack([*found.values()]).sum()

    solver = torch.optim.LBFGS(
        list(leaves.values()),
        max_iter=inner_steps,
        tolerance_grad=0.0,  # costates shrink with the batch, so no slope is small by itself
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        solver.zero_grad()
        depth = -height(leaves)
        depth.backward()
        return depth.item()

    with torch.enable_grad():
        solver.step(closure)
    found = {name: leaf.detach() for name, leaf in leaves.items()}
    return old if height(found).item() <= height(old).item() else found
