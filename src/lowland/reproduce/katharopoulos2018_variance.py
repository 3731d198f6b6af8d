"""The paper's Figures 1 and 2: how near each score comes to the best, and what a score costs."""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.optim import SGD

from lowland.importance import (
    cross_entropy_scores,
    draw,
    equivalent_batch,
    gradient_norms,
    last_layer_scores,
)
from lowland.importance.race import steps_down
from lowland.reproduce.images import Images, losses
from lowland.reproduce.katharopoulos2018_settings import Variance
from lowland.training import generator, kept_mode

__all__ = ["measure_variance"]

# Examples whose scores are kept for the figure.
SHOWN = 200
# Examples that go through the network one by one; more take no other time per example.
ONE_BY_ONE = 64
REPETITIONS = 3


def measure_variance(
    variance: Variance, images: Images, seed: int, display: Any
) -> list[dict[str, Any]]:
    """Train with uniform batches, and look at all scores now and then.

    Args:
        variance: The experiment.
        images: Its data.
        seed: Of weights, order, pools and draws.
        display: Progress display.

    Returns:
        One dict per look: tau, correlations, squared errors of the probabilities and distances to
        the gradient of the pool; the last one also has the times of ``time_scores``.
    """
    model = images.network(seed)
    optimizer = SGD(
        model.parameters(), variance.learning_rate, variance.momentum,
        weight_decay=variance.weight_decay,
    )  # fmt: skip
    schedule, length = steps_down(*variance.decay_at), max(1, *variance.looks)
    batches, step, found = images.training(seed), 0, []
    stream = (batch for _ in range(10**9) for batch in batches)
    with display.task(f"scores, seed {seed}", len(variance.looks)) as task:
        for look in sorted(variance.looks):
            while step < look:
                for group in optimizer.param_groups:
                    group["lr"] = variance.learning_rate * schedule(step / length)
                inputs, target = next(stream)
                losses(model(inputs), target).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                step += 1
            draws = generator(seed, "look", step)
            index = torch.randperm(len(batches.labels), generator=draws)[: variance.pool]
            with kept_mode(model):
                model.eval()
                row = look_at(variance, model, *batches.rows(index), draws)
            found.append({"seed": seed, "step": step, **row})
            task.advance()
        index = torch.arange(len(batches.labels))[: variance.timed]
        with kept_mode(model):
            model.eval()
            found[-1]["milliseconds"] = time_scores(model, *batches.rows(index))
    return found


def look_at(
    variance: Variance, model: nn.Module, inputs: Tensor, target: Tensor, draws: torch.Generator
) -> dict[str, Any]:
    """Everything about one pool."""
    exact = gradient_norms(model, losses, inputs, target).double()
    scores = all_scores(model, inputs, target)
    ideal = exact / exact.sum()
    relative = distances(variance, model, inputs, target, scores | {"exact": exact}, draws)
    return {
        "tau_exact": float(equivalent_batch(exact)),
        "tau_bound": float(equivalent_batch(scores["bound"])),
        "pearson": {name: correlation(score, exact) for name, score in scores.items()},
        "spearman": {name: correlation(ranks(s), ranks(exact)) for name, s in scores.items()},
        "squared_error": {
            name: float((score / score.sum() - ideal).square().sum())
            for name, score in scores.items()
        },
        "distance": relative,
        "shown": {
            "exact": (ideal * len(ideal))[:SHOWN].tolist(),
            "bound": (scores["bound"] / scores["bound"].mean())[:SHOWN].tolist(),
            "loss": (scores["loss"] / scores["loss"].mean())[:SHOWN].tolist(),
        },
    }


def all_scores(model: nn.Module, inputs: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The scores that a forward pass gives."""
    caught: list[Tensor] = []
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    handle = last.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    try:
        with torch.no_grad():
            z = model(inputs)
    finally:
        handle.remove()
    delta = z.softmax(1) - one_hot(target, z.shape[1])
    return {
        "bound": cross_entropy_scores(z, target).double(),
        "last_layer": last_layer_scores(delta, caught[0]).double(),
        "loss": losses(z, target).double(),
    }


def distances(
    variance: Variance,
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    scores: dict[str, Tensor],
    draws: torch.Generator,
) -> dict[str, float]:
    """Mean distance of a drawn batch's gradient to the pool's, relative to uniform draws."""
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def gradient(index: Tensor, weight: Tensor) -> Float[Tensor, " params"]:
        loss = (weight * losses(model(inputs[index]), target[index])).mean()
        parts = torch.autograd.grad(loss, params)
        return torch.cat([part.flatten() for part in parts])

    everything = torch.arange(len(target), device=target.device)
    whole = gradient(everything, torch.ones(len(target), device=target.device))
    found = {}
    for name, score in {"uniform": torch.ones(len(target)), **scores}.items():
        total = 0.0
        for _ in range(variance.draws):
            index, weight = draw(score.cpu(), variance.size, "multinomial", draws)
            index, weight = index.to(target.device), weight.to(whole)
            total += float((gradient(index, weight) - whole).norm())
        found[name] = total / variance.draws
    return {name: found[name] / found["uniform"] for name in scores}


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's; None where one side does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else None


def ranks(values: Tensor) -> Tensor:
    """Rank of each value."""
    return values.argsort().argsort().double()


def time_scores(model: nn.Module, inputs: Tensor, target: Tensor) -> dict[str, float]:
    """Milliseconds for the scores of a pool: the bound, exact norms batched and one by one."""
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def bound() -> None:
        with torch.no_grad():
            cross_entropy_scores(model(inputs), target)

    def one_by_one() -> None:
        for row in range(min(ONE_BY_ONE, len(target))):
            part = slice(row, row + 1)
            loss = losses(model(inputs[part]), target[part]).sum()
            torch.stack([g.norm() for g in torch.autograd.grad(loss, params)]).norm()

    whole = len(target) / min(ONE_BY_ONE, len(target))
    return {
        "bound": clocked(bound, inputs.device),
        "batched": clocked(lambda: gradient_norms(model, losses, inputs, target), inputs.device),
        "one_by_one": clocked(one_by_one, inputs.device) * whole,
        "examples": len(target),
    }


def clocked(call: Callable[[], Any], device: torch.device) -> float:
    """Median milliseconds after a first call that warms up."""
    times = []
    for _ in range(1 + REPETITIONS):
        begin = perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (perf_counter() - begin))
    return median(times[1:])
