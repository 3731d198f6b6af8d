"""The noise floor of softmax regression on all digits, where the two-stage variance is exact."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, one_hot

from lowland.data import load
from lowland.importance import cross_entropy_scores, equivalent_batch
from lowland.training import generator

__all__ = ["Noise", "measure_noise"]


@dataclass(frozen=True)
class Noise:
    """Many short runs of SGD from the optimum, at a constant learning rate.

    Attributes:
        chains: Runs side by side.
        steps: Updates of each; the first quarter is not counted.
        batch_size: Draws per update.
        pools: Pool sizes.
        learning_rate: Of plain SGD.
        decay: Factor of ``weights`` in the gradient; the penalty is half of it.
        order: ``"iid"`` draws examples with replacement, ``"epochs"`` shuffles all of them and goes
            through them, as loaders do.
        schemes: How batches are drawn from pools: ``"multinomial"`` or ``"systematic"``.
        every: Updates between two looks at the loss.
    """

    chains: int
    steps: int
    batch_size: int = 16
    pools: tuple[int, ...] = (48, 160)
    learning_rate: float = 0.05
    decay: float = 1e-3
    order: tuple[str, ...] = ("iid", "epochs")
    schemes: tuple[str, ...] = ("multinomial", "systematic")
    every: int = 40


@dataclass(frozen=True)
class Problem:
    """Softmax regression with a penalty on all weights, in float64."""

    x: Float[Tensor, "examples features"]
    y: Int[Tensor, " examples"]
    decay: float

    def loss(self, w: Float[Tensor, "*chains features classes"]) -> Float[Tensor, "*chains"]:
        """Mean cross-entropy plus penalty, in nats."""
        z = self.x @ w
        hits = z[..., torch.arange(len(self.y)), self.y]
        data = (z.logsumexp(-1) - hits).mean(-1)
        return data + self.decay / 2 * w.square().sum((-2, -1))


def measure_noise(noise: Noise, display: Any) -> dict[str, Any]:
    """Measure how far above the optimum SGD stays, with and without choosing examples.

    Args:
        noise: The experiment.
        display: Progress display.

    Returns:
        The optimum, tau and second moments there, and for every order, pool and scheme the mean
        excess loss relative to uniform batches in the same order, with its standard error, the
        two-stage prediction and the paper's single-stage one.

    Source:
        Ours: Section 3.2 of the paper leaves out that the pool is random, too.
    """
    problem = all_digits(noise.decay)
    best = find_optimum(problem)
    optimum = describe_optimum(problem, best)
    arms = [
        (order, pool, scheme)
        for order in noise.order
        for pool, scheme in (
            (noise.batch_size, "uniform"),
            *((pool, scheme) for pool in noise.pools for scheme in noise.schemes),
        )
        if order == "iid" or pool <= min(noise.pools)  # the largest is enough once
        if order == "epochs" or scheme != "systematic"
    ]
    rows, uniform = [], {}
    with display.task("noise floor", len(arms)) as task:
        for order, pool, scheme in arms:
            excess = run_chains(noise, problem, best, order, pool, scheme)
            mean, error = float(excess.mean()), float(excess.std() / sqrt(len(excess)))
            if scheme == "uniform":
                uniform[order] = mean, error
            base, base_error = uniform[order]
            rows.append(
                {
                    "order": order,
                    "pool": pool,
                    "scheme": scheme,
                    "excess": mean,
                    "excess_error": error,
                    "ratio": mean / base,
                    "ratio_error": mean
                    / base
                    * sqrt((error / mean) ** 2 + (base_error / base) ** 2),
                    "two_stage": predict(optimum, pool, noise.batch_size)
                    if scheme != "uniform"
                    else 1.0,
                    "single_stage": 1 / optimum["tau_bound"] if scheme != "uniform" else 1.0,
                }
            )
            task.advance()
    return {"optimum": optimum, "rows": rows, "batch_size": noise.batch_size}


def all_digits(decay: float) -> Problem:
    """All 1,797 digits, gray levels 0..16 over 16, with a column of ones."""
    digits = load("digits")
    images = torch.cat([digits.images, digits.test_images]).flatten(1).double()
    levels = (images * 16 / 255).round() / 16
    x = torch.cat([levels, levels.new_ones(len(levels), 1)], 1)
    return Problem(x, torch.cat([digits.labels, digits.test_labels]), decay)


def find_optimum(problem: Problem) -> Float[Tensor, "features classes"]:
    """The only minimum, by L-BFGS."""
    w = torch.zeros(problem.x.shape[1], 10, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [w], max_iter=1000, tolerance_grad=1e-6, tolerance_change=0.0, history_size=30,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        loss = problem.loss(w)
        loss.backward()
        return loss

    search.step(closure)
    return w.detach()


def describe_optimum(problem: Problem, w: Tensor) -> dict[str, float]:
    """What decides the noise at the optimum: oracle O10 of the specification."""
    z = problem.x @ w
    bound = cross_entropy_scores(z, problem.y)
    rows = z.softmax(1) - one_hot(problem.y, 10)
    data = torch.einsum("nf,nc->nfc", problem.x, rows)
    exact = data.flatten(1).norm(dim=1)  # the penalty is not weighted, and adds no noise
    mean = float(exact.square().mean())
    losses = cross_entropy(z, problem.y, reduction="none")

    def second_moment(scores: Tensor) -> float:
        return float(scores.mean() * (exact.square() / scores).mean()) / mean

    return {
        "loss": float(problem.loss(w)),
        "cross_entropy": float(losses.mean()),
        "accuracy": float((z.argmax(1) == problem.y).double().mean()),
        "mean_square": mean,
        "square_of_mean": float(data.mean(0).square().sum()),
        "tau_exact": float(equivalent_batch(exact)),
        "tau_bound": float(equivalent_batch(bound)),
        "tau_loss": float(equivalent_batch(losses)),
        "second_moment_exact": second_moment(exact),
        "second_moment_bound": second_moment(bound),
        "second_moment_loss": second_moment(losses),
    }


def predict(optimum: dict[str, float], pool: int, size: int) -> float:
    r"""Variance relative to a uniform batch, for a pool drawn with replacement.

    With :math:`V` the variance of one gradient, :math:`m` the mean of its square, :math:`g` its
    mean and :math:`q m` the mean square of the weighted gradient over all examples,

    .. math:: \frac{b}{B} + \frac{q m (1 - 1/B) + m / B - g^2 - V / B}{V},

    about :math:`b/B + q`. The paper's single stage leaves out the first term.

    Args:
        optimum: From ``describe_optimum``.
        pool: Pool size B.
        size: Batch size b.

    Returns:
        The ratio of the variances.
    """
    square, mean = optimum["mean_square"], optimum["square_of_mean"]
    variance = square - mean
    drawn = optimum["second_moment_bound"] * square * (1 - 1 / pool) + square / pool
    return size / pool + (drawn - mean - variance / pool) / variance


def run_chains(
    noise: Noise, problem: Problem, best: Tensor, order: str, pool: int, scheme: str
) -> Float[Tensor, " chains"]:
    """Mean excess loss of every chain over the last three quarters."""
    draws = generator(0, "noise", order, pool, scheme)
    w = best.repeat(noise.chains, 1, 1)
    base = problem.loss(best)
    stream = rows_in_order(order, len(problem.y), noise.chains, pool, draws)
    choose = SCHEMES[scheme]
    hot = one_hot(problem.y, 10).double()
    found = []
    for step in range(1, noise.steps + 1):
        index = next(stream)
        x = problem.x[index]
        delta = (x @ w).softmax(-1) - hot[index]
        if scheme != "uniform":
            p = delta.norm(dim=-1)
            p = p / p.sum(1, keepdim=True)
            chosen = choose(p, noise.batch_size, draws)
            weight = 1 / (pool * p.gather(1, chosen))
            x = problem.x[index.gather(1, chosen)]
            delta = delta.gather(1, chosen[..., None].expand(-1, -1, 10)) * weight[..., None]
        gradient = x.transpose(1, 2) @ delta / noise.batch_size + noise.decay * w
        w -= noise.learning_rate * gradient
        if step % noise.every == 0 and step > noise.steps / 4:
            found.append(problem.loss(w) - base)
    return torch.stack(found).mean(0)


def rows_in_order(
    order: str, count: int, chains: int, pool: int, draws: Generator
) -> Iterator[Int[Tensor, "chains pool"]]:
    """Pools of every chain: with replacement, or consecutive blocks of a shuffled epoch."""
    while True:
        if order == "iid":
            yield torch.randint(count, (chains, pool), generator=draws)
            continue
        epoch = torch.rand(chains, count, generator=draws).argsort(1)
        yield from epoch[:, : count // pool * pool].split(pool, dim=1)


def multinomial(p: Tensor, size: int, draws: Generator) -> Int[Tensor, "chains size"]:
    """Independent draws, as in the paper."""
    return torch.multinomial(p, size, replacement=True, generator=draws)


def systematic(p: Tensor, size: int, draws: Generator) -> Int[Tensor, "chains size"]:
    """Equally spaced points with one shift; the pool is in random order already."""
    shift = torch.rand(len(p), 1, generator=draws, dtype=p.dtype)
    points = (torch.arange(size, dtype=p.dtype) + shift) / size
    return torch.searchsorted(p.cumsum(1), points).clamp(max=p.shape[1] - 1)


SCHEMES: dict[str, Callable[[Tensor, int, Generator], Tensor]] = {
    "multinomial": multinomial,
    "systematic": systematic,
    "uniform": multinomial,
}
