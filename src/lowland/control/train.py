"""Train a model with discrete weights from start to end: algorithm B, resumable."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowland.control.checks import check_share, check_values
from lowland.control.discrete import DiscreteMSA
from lowland.control.discretize import checked_skip, discretize
from lowland.control.held import TERNARY
from lowland.control.marks import (
    discrete_parameters,
    float_parameters,
    nonzero_share,
    unmark,
    values_of,
)
from lowland.control.result import MSAResult
from lowland.control.schedules import annealing, cosine, nonzero_schedule, per_epoch
from lowland.control.together import Together
from lowland.errors import NoEffectWarning
from lowland.results import Status
from lowland.training import (
    TrainResult,
    choose_device,
    generator,
    isolated_rng,
    length_of,
    norm_layers,
    recalibrate,
    train,
)

__all__ = ["train_msa"]

PAPER_DECAY = 0.95


def train_msa(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    *,
    values: Sequence[float] | None = None,
    rho: float | None = None,
    target_nonzero: float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    alpha: float | None = None,
    decay: float | None = None,
    lam: float = 0.0,
    float_optimizer: Callable[..., Optimizer] | None = None,
    skip: str | type[nn.Module] | Iterable[str | type[nn.Module]] = (),
    paper_exact: bool = False,
    device: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Any = False,
    **training: Any,
) -> MSAResult:
    """Train discrete weights in place by the mini-batch method, and all else by Adam.

    A model that has no discrete weights yet is given them, see :func:`discretize`; one that has
    them goes on from them. With ``out`` the same call after a kill goes on where it was last saved.
    Batch-norm statistics are taken anew over training batches before every evaluation and at the
    end, as weights that jump leave running averages behind. In several processes each has its own
    batches of the same size, and all take the step of the mean gradient.

    Args:
        model: Any module.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``.
        values: The set of a model that has no discrete weights yet; None means -1, 0, 1, for
            ``target_nonzero`` to have zeros to ask for (:func:`discretize` alone draws from -1, 1).
            A model that has them keeps its own.
        rho: Penalty on a move, as a share of the largest wrong weight's average; 0.5 for two
            values, 0.25 for more.
        target_nonzero: Share of nonzero weights to end with, 0 to 1, for -1, 0, 1. It falls from
            2/3 to this over the first quarter of the run, and sets lambda at every step.
        epochs: Passes over ``batches``; give this or ``steps``.
        steps: Number of updates.
        alpha: Keep rate of the moving average at the start; 0.99, ``paper_exact`` 0.999.
        decay: Factor on ``1 - alpha`` per epoch; None lets it fall to 1/25 over the run,
            ``paper_exact`` takes 0.95 (the authors have 0.98 on CIFAR-10).
        lam: Price of a nonzero weight, in units of the gradient; 0 with a target, which sets it.
        float_optimizer: Makes the optimizer of the float parameters; Adam at 0.01 with a cosine
            (which a ``schedule`` replaces), ``paper_exact`` Adam at 0.001, constant.
        skip: What stays float; see :func:`discretize`.
        paper_exact: The published settings: besides those above, batch norm with epsilon 1e-4,
            momentum 0.1, scale and offset drawn from a normal cut at two deviations, averages begun
            in ±1e-6, and running statistics as training left them.
        device: Where to move the model to; None leaves it.
        seed: Seed of weights and training.
        out: Folder for the state to resume from and the result.
        progress: See :func:`lowland.training.open_progress`.
        **training: Further arguments of :func:`lowland.training.train`: ``test_batches``,
            ``evaluation_batches``, ``precision``, ``log``, ...

    Returns:
        Status, learning curve with the nonzero share, and the weights.

    Raises:
        ValueError: If an argument is not what it must be.
        UnsupportedModelError: If no layer can be made discrete.

    Source:
        Li & Hao, ICML 2018, algorithm 2; specification sections 3 B and 4. The target, the cosine
        and the statistics taken anew are ours.
    """
    skip = checked_skip(skip)
    check_call(model, values, skip, target_nonzero, training)
    if device is not None:
        model.to(choose_device(device))
    total, per_pass = run_length(batches, epochs, steps)
    if alpha is None:
        alpha = 0.999 if paper_exact else 0.99
    gamma = annealing(total) if decay is None and not paper_exact else per_epoch(
        PAPER_DECAY if decay is None else decay, per_pass
    )  # fmt: skip
    has_schedule = training.get("schedule") is not None
    is_plain = paper_exact or float_optimizer is not None or has_schedule
    wanted = None if target_nonzero is None else nonzero_schedule(target_nonzero, total)

    made: list[Together] = []

    def optimizer(_: Any) -> Together:
        if not values_of(model):
            discretize(model, TERNARY if values is None else values, skip=skip, seed=seed)
        if paper_exact:
            use_paper_norms(model, seed)
        discrete = DiscreteMSA(
            discrete_parameters(model),
            rho=rho,
            alpha=alpha,
            lam=lam,
            schedule=gamma,
            target_nonzero=wanted,
        )
        if paper_exact:
            begin_small(discrete, seed)
        floats = float_parameters(model)
        make = float_optimizer or (lambda p: torch.optim.Adam(p, 1e-3 if paper_exact else 1e-2))
        factor = None if is_plain else cosine(total)
        made.append(Together(discrete, make(floats) if floats else None, factor))
        made[0].register_step_post_hook(lambda *_: before.clear())  # no longer to be undone
        return made[0]

    def look(module: nn.Module) -> dict[str, Any]:
        if not paper_exact:
            settle_norms(module, batches, seed)
        return {"nonzero": nonzero_share(module)}

    named = {} if values_of(model) else dict(model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    with undone_if_refused(model, before):
        trained = train(
            model,
            loss_fn,
            batches,
            epochs=epochs,
            steps=steps,
            optimizer=optimizer,
            measure=look,
            seed=seed,
            out=out,
            progress=progress,
            **training,
        )
    if trained.status is Status.FINISHED:
        warn_of_idle(made[0].discrete)
    result = as_result(model, trained)
    if out is not None and trained.status is not Status.INTERRUPTED:
        result.save(out)
    return result


def check_call(
    model: nn.Module,
    values: Sequence[float] | None,
    skip: tuple[Any, ...],
    target_nonzero: float | None,
    training: dict[str, Any],
) -> None:
    """Refuse what would be ignored, or found out too late."""
    found = set(values_of(model).values())
    if found and (skip or not (values is None or found == {check_values(values)})):
        raise ValueError(
            f"values and skip are for a model without discrete weights; this one has {found} "
            "already. Leave both out, or begin with a new model."
        )
    if target_nonzero is not None:
        check_share(target_nonzero)
    if training.get("weight_average") is not None:
        raise ValueError(
            "weight_average must be None: an average of discrete weights is not discrete. Average "
            "several models' outputs instead."
        )


@contextmanager
def undone_if_refused(model: nn.Module, before: dict[str, Tensor]) -> Iterator[None]:
    """Give a float model its weights and norms back if a run is refused before its first step.

    ``before`` holds its weights until then; the first step empties it, and frees their memory.
    """
    norms = norm_layers(model).values()
    settings = {layer: (layer.eps, layer.momentum) for layer in norms}
    try:
        yield
    except Exception:  # whatever refuses, here or in the user's batches; it is raised on
        if before:
            unmark(model)
            with torch.no_grad():
                for name, value in before.items():
                    model.get_parameter(name).copy_(value)
            for layer, (eps, momentum) in settings.items():
                layer.eps, layer.momentum = eps, momentum
        raise


def run_length(batches: Any, epochs: int | None, steps: int | None) -> tuple[int, int]:
    """Give the number of updates of a run, and of an epoch."""
    per_pass = length_of(batches)
    if steps is not None:
        return steps, per_pass or steps
    if per_pass is None:
        raise ValueError("epochs needs batches with a length; these have none. Give steps instead.")
    return (epochs or 1) * per_pass, per_pass


@torch.no_grad()
def use_paper_norms(model: nn.Module, seed: int) -> None:
    """Set batch norms as the authors do, in place."""
    for name, layer in norm_layers(model).items():
        layer.eps, layer.momentum = 1e-4, 0.1
        for what in ("weight", "bias"):
            part = getattr(layer, what)
            if part is not None:
                draws = generator(seed, "batch norm", name, what)
                drawn = torch.empty(part.shape)
                nn.init.trunc_normal_(drawn, a=-2.0, b=2.0, generator=draws)
                part.copy_(drawn)


def begin_small(optimizer: DiscreteMSA, seed: int) -> None:
    """Draw the first averages from ±1e-6."""
    for group in optimizer.param_groups:
        for index, weight in enumerate(group["params"]):
            draws = generator(seed, "average", group["names"][index])
            drawn = torch.rand(weight.shape, generator=draws) * 2e-6 - 1e-6
            optimizer.average(weight, 1.0).copy_(drawn)


def as_result(model: nn.Module, trained: TrainResult) -> MSAResult:
    """Add the nonzero share; the last row of the curve is of the model as it comes back."""
    last = trained.curve[-1] if trained.curve else {}
    names = ("train_loss", "train_error", "test_loss", "test_error")
    measured = {name: last[name] for name in names if last.get(name) is not None}
    return MSAResult(
        trained.status,
        trained.curve,
        trained.steps,
        trained.message,
        nonzero_share(model),
        {"seconds": trained.seconds} | measured,
        trained.state,
    )


def settle_norms(model: nn.Module, batches: Any, seed: int) -> None:
    """Take the statistics of batch norm anew, always over the same batches."""
    if norm_layers(model):
        with isolated_rng(seed, "statistics", batches=batches, epoch=0):
            recalibrate(model, batches)


def warn_of_idle(optimizer: DiscreteMSA) -> None:
    """Warn of discrete weights that never had a gradient."""
    idle = [
        name
        for group in optimizer.param_groups
        for name, weight in zip(group["names"], group["params"], strict=True)
        if not optimizer.state[weight].get("average", torch.zeros(())).any()
    ]
    if idle:
        warn(
            f"no gradient ever reached {', '.join(idle)}; they are as they were drawn. Is the "
            "layer used, and is what follows it differentiable?",
            NoEffectWarning,
            stacklevel=4,
        )
