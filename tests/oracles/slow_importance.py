"""Importance sampling by loops, enumeration and plain Python, as the paper's page has it.

Nothing here is shared with the library. Examples go one by one, expectations are sums over all
outcomes, and the moving average is a list.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import permutations, product
from math import floor, sqrt

import torch
from torch import Tensor, nn

LossFn = Callable[[Tensor, Tensor], Tensor]
Drawing = tuple[float, list[int]]  # probability of an outcome, and what is drawn then


def slow_scores(loss_fn: LossFn, output: Tensor, target: Tensor) -> Tensor:
    """Norm of each example's gradient with respect to its output, one backward pass each."""
    norms = []
    for row, wanted in zip(output, target, strict=True):
        leaf = row.detach().clone().unsqueeze(0).requires_grad_()
        loss_fn(leaf, wanted.unsqueeze(0)).sum().backward()
        assert leaf.grad is not None
        norms.append(sqrt(sum(x * x for x in leaf.grad.flatten().tolist())))
    return torch.tensor(norms, dtype=torch.float64)


def slow_gradients(model: nn.Module, loss_fn: LossFn, inputs: Tensor, target: Tensor) -> Tensor:
    """Gradient of each example's loss with respect to all parameters, one backward pass each."""
    params = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for x, y in zip(inputs, target, strict=True):
        loss = loss_fn(model(x.unsqueeze(0)), y.unsqueeze(0)).sum()
        parts = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def slow_last_layer(delta: Tensor, features: Tensor, *, bias: bool = True) -> list[float]:
    """Norm of the gradient of an affine layer: sum the outer products over time, then measure."""
    if delta.ndim == 2:
        delta, features = delta.unsqueeze(1), features.unsqueeze(1)
    norms = []
    for of_row, h in zip(delta.tolist(), features.tolist(), strict=True):
        width = len(h[0])
        matrix = [[0.0] * (width + bias) for _ in of_row[0]]
        for d, values in zip(of_row, h, strict=True):
            for c, slope in enumerate(d):
                for k, value in enumerate([*values, 1.0] if bias else values):
                    matrix[c][k] += slope * value
        norms.append(sqrt(sum(x * x for line in matrix for x in line)))
    return norms


def slow_focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Focal loss as it is defined: ``-(1 - p)^gamma log p``."""
    p = logits.softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return -((1 - p) ** gamma) * p.log()


def slow_tau(scores: Sequence[float]) -> float:
    """Equation 27 of the paper before anything is simplified."""
    total = sum(scores)
    if total == 0:
        return 1.0
    p = [s / total for s in scores]
    distance = sum((x - 1 / len(p)) ** 2 for x in p)
    return 1 / (1 - distance / sum(x * x for x in p))


def slow_averages(estimates: Sequence[float], smoothing: float) -> list[float]:
    """Moving average from zero, after each estimate."""
    tau, after_each = 0.0, []
    for estimate in estimates:
        tau = smoothing * tau + (1 - smoothing) * estimate
        after_each.append(tau)
    return after_each


def slow_decisions(
    batches: Sequence[Sequence[float]],
    pool_batches: int,
    threshold: float,
    *,
    smoothing: float = 0.9,
    root: bool = False,
) -> tuple[list[bool], list[float]]:
    """Section 3 with scores known beforehand: was each step active, and tau after it."""
    left, tau = list(batches), 0.0
    active, after_each = [], []
    while left:
        is_active = tau > threshold
        taken = pool_batches if is_active else 1
        rows = [s for batch in left[:taken] for s in batch]
        left = left[taken:]
        estimate = slow_tau(rows)
        tau = smoothing * tau + (1 - smoothing) * (sqrt(estimate) if root else estimate)
        active.append(is_active)
        after_each.append(tau)
    return active, after_each


def slow_multiplier(tau: float, ratio: float, stage_one: float = 1.0) -> float:
    """Variance of the pool plus variance of the draw, relative to a uniform batch; inverted."""
    variance_of_pool = stage_one / ratio
    variance_of_draw = 1 / tau
    return 1 / (variance_of_pool + variance_of_draw)


def all_multinomial(p: Sequence[float], size: int) -> Iterator[Drawing]:
    """Every outcome of independent draws."""
    for outcome in product(range(len(p)), repeat=size):
        chance = 1.0
        for i in outcome:
            chance *= p[i]
        yield chance, list(outcome)


def all_without_replacement(p: Sequence[float], size: int) -> Iterator[Drawing]:
    """Every outcome of draws one after the other that leave out what was drawn before."""
    for outcome in permutations(range(len(p)), size):
        chance, left = 1.0, 1.0
        for i in outcome:
            chance *= p[i] / left
            left -= p[i]
        yield chance, list(outcome)


def all_systematic(p: Sequence[Fraction], size: int) -> Iterator[Drawing]:
    """Every outcome of a random order and one random offset for a comb of ``size`` teeth."""
    orders = list(permutations(range(len(p))))
    for order in orders:
        ends, total = [], Fraction(0)
        for i in order:
            total += size * p[i]
            ends.append(total)
        cuts = sorted({Fraction(0), Fraction(1), *(end % 1 for end in ends)})
        for low, high in zip(cuts[:-1], cuts[1:], strict=True):
            offset = (low + high) / 2
            outcome = []
            for tooth in range(size):
                place = next(k for k, end in enumerate(ends) if offset + tooth < end)
                outcome.append(order[place])
            yield float((high - low) / len(orders)), outcome


def all_residual(p: Sequence[Fraction], size: int) -> Iterator[Drawing]:
    """Whole parts for certain, the rest by independent draws from the fractions left over."""
    certain = [i for i, x in enumerate(p) for _ in range(floor(size * x))]
    left = size - len(certain)
    rest = [float(size * x - floor(size * x)) / left if left else 0.0 for x in p]
    for chance, outcome in all_multinomial(rest, left):
        yield chance, certain + outcome


def moments(
    outcomes: Iterator[Drawing], values: Sequence[float], p: Sequence[float]
) -> tuple[float, float]:
    """Mean and variance of ``(1/b) sum w_j value_j`` with ``w = 1/(B p)`` over all outcomes."""
    first = second = 0.0
    for chance, index in outcomes:
        estimate = sum(values[i] / (len(p) * p[i]) for i in index) / len(index)
        first += chance * estimate
        second += chance * estimate * estimate
    return first, second - first * first


def slow_sgd(
    model: nn.Module, loss_fn: LossFn, batches, learning_rate: float, momentum: float = 0.0
) -> None:
    """Plain gradient descent, written out."""
    params = list(model.parameters())
    velocity: list[Tensor | None] = [None] * len(params)
    for inputs, target in batches:
        grads = torch.autograd.grad(loss_fn(model(inputs), target).mean(), params)
        for k, (param, grad) in enumerate(zip(params, grads, strict=True)):
            before = velocity[k]
            now = grad if before is None else before * momentum + grad
            velocity[k] = now
            with torch.no_grad():
                param.add_(now, alpha=-learning_rate)  # rounded once, as torch's optimizer does


class SlowSoftmax:
    """Softmax regression with a penalty on all weights: loss, gradients and optimum by hand."""

    def __init__(self, inputs: Tensor, target: Tensor, classes: int, penalty: float):
        self.inputs, self.target, self.penalty = inputs, target, penalty
        self.one_hot = torch.eye(classes, dtype=inputs.dtype)[target]

    def residuals(self, weight: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Softmax minus one-hot; leading axes of ``rows`` and ``weight`` are chains."""
        return (self.inputs[rows] @ weight).softmax(-1) - self.one_hot[rows]

    def cross_entropy(self, weight: Tensor) -> Tensor:
        """Loss of each example, ``(examples,)`` or ``(chains, examples)``."""
        logits = self.inputs @ weight
        return logits.logsumexp(-1) - (logits * self.one_hot).sum(-1)

    def loss(self, weight: Tensor) -> Tensor:
        """Mean cross-entropy plus ``penalty * ||W||^2``, for each chain."""
        return self.cross_entropy(weight).mean(-1) + self.penalty * weight.square().sum((-2, -1))

    def optimum(self) -> Tensor:
        """Newton's method with the whole Hessian; from zero its steps need no damping."""
        weight = self.inputs.new_zeros(self.inputs.shape[1], self.one_hot.shape[1])
        for _ in range(30):
            p = (self.inputs @ weight).softmax(-1)
            gradient = self.inputs.T @ (p - self.one_hot) / len(p) + 2 * self.penalty * weight
            size = weight.numel()
            hessian = 2 * self.penalty * torch.eye(size, dtype=weight.dtype)
            classes = p.shape[1]
            for c in range(classes):
                for d in range(classes):
                    scale = p[:, c] * (float(c == d) - p[:, d]) / len(p)
                    block = self.inputs.T @ (self.inputs * scale[:, None])
                    hessian[c::classes, d::classes] += block
            step = torch.linalg.solve(hessian, gradient.flatten()).view_as(weight)
            before = self.loss(weight)
            while self.loss(weight - step) > before + 1e-15:
                step = step / 2
            weight = weight - step
            if step.norm() < 1e-12:
                break
        return weight

    def norms(self, weight: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Exact norm of each example's gradient of the cross-entropy."""
        return self.residuals(weight, rows).norm(dim=-1) * self.inputs[rows].norm(dim=-1)

    def excess(
        self,
        optimum: Tensor,
        stream: Tensor,
        *,
        pool: int,
        size: int,
        steps: int,
        learning_rate: float,
        choose: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        score: str = "bound",
    ) -> Tensor:
        """Gradient descent from the optimum: loss above its value, mean of the last 75 % of steps.

        Args:
            optimum: Where all chains start.
            stream: Indices of examples in the order they arrive, ``(chains, steps * pool)``.
            pool: Examples that arrive per step.
            size: Examples that are trained on.
            steps: Number of steps.
            learning_rate: Their size.
            choose: From scores ``(chains, pool)`` to positions in the pool and weights; without it
                all examples that arrive are trained on.
            score: ``"bound"``, ``"norm"`` or ``"loss"``.

        Returns:
            One number per chain.
        """
        chains = len(stream)
        weight = optimum.expand(chains, *optimum.shape).clone()
        best, total, count = self.loss(optimum), optimum.new_zeros(chains), 0
        for step in range(steps):
            rows = stream[:, step * pool : (step + 1) * pool]
            share = torch.full((chains, size), 1 / size, dtype=weight.dtype)
            inputs, residual = self.inputs[rows], self.residuals(weight, rows)
            if choose is not None:
                values = residual.norm(dim=-1)
                if score == "norm":
                    values = values * inputs.norm(dim=-1)
                elif score == "loss":
                    values = -(1 + (residual * self.one_hot[rows]).sum(-1)).log()
                chosen, of_chosen = choose(values)
                inputs, residual = (
                    x.gather(1, chosen.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
                    for x in (inputs, residual)
                )
                share = of_chosen / size
            slope = inputs.transpose(1, 2) @ (residual * share.unsqueeze(-1))
            weight = weight - learning_rate * (slope + 2 * self.penalty * weight)
            if step >= steps // 4 and step % 10 == 0:
                total += self.loss(weight) - best
                count += 1
        return total / count


def arrivals(kind: str, examples: int, chains: int, length: int, generator) -> Tensor:
    """Indices in the order a loader hands them out: ``"iid"``, or ``"epochs"`` reshuffled each."""
    if kind == "iid":
        return torch.randint(examples, (chains, length), generator=generator)
    epochs = -(-length // examples)
    rows = [
        torch.cat([torch.randperm(examples, generator=generator) for _ in range(epochs)])
        for _ in range(chains)
    ]
    return torch.stack(rows)[:, :length]


def slow_multinomial(generator, size: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Independent draws in proportion to scores, chain by chain."""

    def choose(scores: Tensor) -> tuple[Tensor, Tensor]:
        p = scores / scores.sum(1, keepdim=True)
        ends, at = p.cumsum(1), torch.rand(len(p), size, generator=generator, dtype=p.dtype)
        index = torch.searchsorted(ends, at).clamp(max=p.shape[1] - 1)
        return index, 1 / (p.shape[1] * p.gather(1, index))

    return choose


def slow_comb(generator, size: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A comb of evenly spaced teeth over the pool in random order, chain by chain."""

    def choose(scores: Tensor) -> tuple[Tensor, Tensor]:
        p = scores / scores.sum(1, keepdim=True)
        order = torch.rand(p.shape, generator=generator).argsort(1)
        ends = p.gather(1, order).cumsum(1)
        at = torch.arange(size) + torch.rand(len(p), 1, generator=generator, dtype=p.dtype)
        place = torch.searchsorted(ends, at / size).clamp(max=p.shape[1] - 1)
        index = order.gather(1, place)
        return index, 1 / (p.shape[1] * p.gather(1, index))

    return choose
