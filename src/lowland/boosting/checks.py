"""Refuse what cannot be boosted, and describe what decides the numbers of a run."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from hashlib import sha256
from itertools import chain as joined
from itertools import islice
from math import isfinite
from typing import Any

from torch import Tensor, nn

from lowland.boosting.chain import Chain
from lowland.boosting.fitting import Plan, is_fitted
from lowland.boosting.gradient_free import fitted_block
from lowland.boosting.heads import KINDS
from lowland.boosting.local import Module
from lowland.boosting.objectives import objective as known_objective
from lowland.boosting.rounds import Data
from lowland.boosting.stops import stop_rule
from lowland.training import (
    as_pair,
    autocast,
    check_batches,
    check_not_empty,
    device_of,
    isolated_rng,
    plain_items,
    rank_and_world,
)

__all__ = ["check_model", "check_modules", "check_plan", "describe", "first_inputs"]

SCHEDULES = ("sequential", "parallel")
INITS = ("default", "zero", "copy_previous")
ALPHAS = ("closed", "line_search")


def check_plan(
    plan: Plan,
    *,
    init: str,
    schedule: str,
    head: str | Callable[..., nn.Module],
    module_size: int,
    refine_epochs: int,
    edge_start: float,
    validation: Any,
    out: Any,
) -> None:
    """Refuse arguments before anything is done.

    Args:
        plan: What every round is asked to do.
        init: How a block begins.
        schedule: Of the blocks.
        head: Kind of head.
        module_size: Blocks of a round.
        refine_epochs: Afterwards.
        edge_start: Where gamma begins.
        validation: Batches or None.
        out: A folder or None.

    Raises:
        ValueError: If one is not what it must be.
    """
    words = [
        ("alpha", plan.alpha, ALPHAS),
        ("init", init, INITS),
        ("schedule", schedule, SCHEDULES),
    ]
    if not callable(head):
        words.append(("head", head, KINDS))
    for name, value, known in words:
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
    known_objective(plan.objective)
    stop_rule(plan.stop, plan.gamma_threshold)
    autocast(device_of(nn.Module()), plan.precision)
    check_numbers(plan, module_size, refine_epochs, edge_start)
    if (plan.stop == "validation") != (validation is not None) and not callable(plan.stop):
        raise ValueError(
            'stop="validation" and validation_batches must be given together; got '
            f"stop={plan.stop!r}" + (" without batches." if validation is None else " with them.")
        )
    if schedule == "parallel" and (plan.stop != "fixed" or plan.oracle is not None):
        raise ValueError(
            'schedule="parallel" must have stop="fixed" and no oracle, as all blocks are trained '
            f"in the same steps; got stop={plan.stop!r}."
        )
    if schedule == "parallel" and isinstance(head, str) and head.startswith("downstream"):
        raise ValueError(
            f'schedule="parallel" must have heads of their own; got head="{head}", which would '
            'train later blocks twice in every step. Take "plain" or "deep".'
        )
    if rank_and_world()[1] > 1 and (out is not None or plan.oracle is not None):
        raise ValueError(
            "out and oracle must be None where several processes train together; got "
            f"{'out' if out is not None else 'oracle'}. Save the result on rank 0 with "
            "result.save(folder); an oracle needs all data in one process."
        )


def check_numbers(plan: Plan, module_size: int, refine_epochs: int, edge_start: float) -> None:
    """Refuse numbers that mean nothing."""
    counts = [("epochs", plan.epochs, 1), ("check_every", plan.check_every, 1)]
    counts += [("batch_size", plan.batch_size, 1), ("module_size", module_size, 1)]
    for name, count, least in [*counts, ("refine_epochs", refine_epochs, 0)]:
        if not (isfinite(count) and count >= least and count == int(count)):
            raise ValueError(f"{name} must be a whole number, at least {least}; got {count}.")
    for name, number in (("transport", plan.transport), ("l1", plan.l1)):
        if number is not None and not (number > 0 and isfinite(number)):
            raise ValueError(f"{name} must be positive; got {number}. None leaves it out.")
    for name, value in (("gamma_threshold", plan.gamma_threshold), ("edge_start", edge_start)):
        if not -1 < value < 1:
            raise ValueError(f"{name} must lie between -1 and 1; got {value}.")
    functions = [
        ("optimizer", plan.optimizer, "the parameters; got a {}. Pass a lambda that makes it."),
        (
            "rate_schedule",
            plan.rate_schedule,
            "the optimizer; got a {}. Pass a lambda that makes it.",
        ),
        ("oracle", plan.oracle, "values, target, previous, alpha, block and head; got a {}."),
    ]
    for name, made, words in functions:
        if made is not None and not callable(made):
            raise ValueError(f"{name} must be a function of " + words.format(type(made).__name__))


def check_model(model: nn.Module) -> None:
    """Refuse a model that is at no place, or at several.

    Args:
        model: The user's.

    Raises:
        ValueError: If it is so.
    """
    places = {str(tensor.device) for tensor in joined(model.parameters(), model.buffers())}
    if len(places) > 1 or "meta" in places:
        raise ValueError(
            f"all of the model must lie on one device with memory; got {sorted(places)}. Move it "
            "with model.to(device), from meta with model.to_empty(device=...) and its weights."
        )


def check_modules(
    modules: Sequence[Module], schedule: str, oracle: Callable[..., Any] | None
) -> None:
    """Refuse blocks without gradient where only gradients would train them.

    Args:
        modules: What is trained together.
        schedule: In which order.
        oracle: What trains them instead.

    Raises:
        ValueError: If there is such a block.
    """
    for module in modules:
        if oracle is not None or fitted_block(module) is None:
            continue
        if schedule == "parallel" or not is_fitted(module):
            raise ValueError(
                f"a block that is fitted must be trained alone; {module.name!r} is with others. "
                'Take module_size=1 and schedule="sequential".'
            )
        if rank_and_world()[1] > 1:
            raise ValueError(
                f"a block that is fitted needs all data in one process; {module.name!r} would get "
                "a share. Run it without torchrun."
            )


def first_inputs(batches: Any) -> Any:
    """Read the inputs of the first batch; generators stay as they were.

    Args:
        batches: The user's.

    Returns:
        The inputs.

    Raises:
        ValueError: If there are none.
    """
    check_batches(batches)
    with isolated_rng(0, "first", batches=batches):
        first = [as_pair(batch)[0] for batch in islice(batches, 1)]
    check_not_empty(len(first))
    return first[0]


def describe(plan: Plan, chain: Chain, data: Data, **others: Any) -> dict[str, Any]:
    """Describe what decides the numbers of a run by plain values.

    Args:
        plan: What every round is asked to do.
        chain: The model as it is cut.
        data: All data sets.
        **others: Further arguments.

    Returns:
        What the folder of the run must know.
    """
    aside = ("save_every", "log")  # they decide no number
    given = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in aside}
    given |= others
    for name, value in given.items():
        if callable(value):
            given[name] = getattr(value, "__qualname__", type(value).__name__)
        elif isinstance(value, Tensor):
            given[name] = sha256(value.cpu().double().numpy().tobytes()).hexdigest()[:16]
    weights = [weight for weight in chain.model.parameters() if weight.requires_grad]
    groups = plan.optimizer(weights).param_groups if weights else []
    sets = {f.name: getattr(data, f.name) for f in fields(data)}
    return given | {
        "parameter_groups": [plain_items(group) for group in groups],
        "parts": [part.name for part in chain.parts],
        "parameters": sum(parameter.numel() for parameter in chain.model.parameters()),
        "examples": {name: None if one is None else one.count for name, one in sets.items()},
        "is_cached": data.train.cache != "recompute",
        "views": data.train.views,
    }
