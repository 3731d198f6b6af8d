"""Fit a block without gradient to the direction in which its features should move."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lowland.boosting.fitted import FittedBlock, RandomFeatures, TreeBlock, shares, wide
from lowland.boosting.probe import hidden_of
from lowland.params import call_at, trainable
from lowland.training import kept_mode

__all__ = [
    "FittedBlock",
    "RandomFeatures",
    "TreeBlock",
    "fit_head",
    "fitted_block",
    "functional_gradient",
]

INVERSE_PENALTY = 0.1  # scikit-learn's C of the heads of specification C12
LARGEST_STEP = 10.0  # of a change, in root mean squares of the features


def functional_gradient(
    features: Tensor | tuple[Tensor, ...],
    target: Int[Tensor, " examples"],
    previous: Any,
    alpha: float,
    block: nn.Module,
    head: nn.Module,
    *,
    weights: Float[Tensor, " examples"] | None = None,
) -> None:
    r"""Fit a block without gradient, its step and its head, in place.

    With the head held fixed, the block is fitted to :math:`-\partial L_i / \partial g_i`, the way
    each example's features should move to lower its cross-entropy; the step along what it has
    learned is found by a line search; then the head is fitted again. So the cross-entropy falls
    at fixed head, and then once more up to the head's penalty. Everything is done with all
    examples at once, in float64 where the device has it.

    Args:
        features: Hidden values ``(examples, ...)``, or a tuple of these and sides.
        target: Classes.
        previous: Outputs of the round before; not looked at, as the objective of a round does not
            depend on them (specification O2). It is here because every oracle is given it.
        alpha: Weight of the round before; not looked at either.
        block: A module with a method ``fit(features, targets)``, or a part of a chain around one;
            if it has a tensor ``step`` that scales its change, this is searched for.
        head: From what the block returns to logits; fitted already, to the features as they are.
        weights: Weight of each example, by default 1; only their ratios matter.

    Raises:
        ValueError: If the block cannot be fitted.

    Source:
        Huang et al., ICML 2018, Section 3 (any oracle); Nitanda & Suzuki, ICML 2018; Zozoulenko
        et al., 2025 (RFRBoost). Specification section 3.6.
    """
    fitted: Any = fitted_block(block)
    if fitted is None:
        raise ValueError(
            "a block without gradient must have a method fit(features, targets); got "
            f"{type(block).__name__}. Derive from lowland.boosting.FittedBlock."
        )
    values = features if isinstance(features, tuple) else (features,)
    hidden, *sides = [wide(value.detach()) for value in values]
    fixed = wide(deepcopy(head)).requires_grad_(False).eval()
    share = shares(len(target), hidden, weights)
    moving = hidden.clone().requires_grad_()
    with torch.enable_grad():
        losses = cross_entropy(fixed(moving, *sides), target, reduction="none")
    direction = -torch.autograd.grad(losses.sum(), moving)[0]
    with kept_mode(block), torch.no_grad():
        block.eval()
        step = getattr(fitted, "step", None)
        if step is not None:
            step.fill_(1)
        fitted.fit(values[0], direction, **({} if weights is None else {"weights": weights}))
        if step is not None:
            change = hidden_of(block(*values), type(fitted).__name__).to(hidden.dtype) - hidden

            def loss(size: float) -> float:
                output = fixed(hidden + size * change, *sides)
                return float(share @ cross_entropy(output, target, reduction="none"))

            step.fill_(getattr(fitted, "shrinkage", 1.0) * best_step(loss, hidden, change))
        moved = block(*values)
    fit_head(head, moved if isinstance(moved, tuple) else (moved,), target, weights=weights)


def best_step(loss: Callable[[float], float], hidden: Tensor, change: Tensor) -> float:
    """Search for the step that lowers the loss most, 0 if none does."""
    size = change.square().mean().sqrt()
    if not size > 0:
        return 0.0
    largest = float(LARGEST_STEP * hidden.square().mean().sqrt().clamp(min=1e-12) / size)
    before = loss(0.0)
    coarse = [largest * 4.0**-power for power in range(16)]
    found = [loss(step) for step in coarse]
    best = min(range(len(coarse)), key=lambda place: found[place])
    from scipy.optimize import minimize_scalar  # takes a second to import

    refined: Any = minimize_scalar(
        loss,
        bounds=(coarse[best] / 4, min(largest, 4 * coarse[best])),
        method="bounded",
        options={"xatol": coarse[best] * 1e-4},
    )
    step, after = float(refined.x), float(refined.fun)
    if found[best] < after:
        step, after = coarse[best], found[best]
    return step if after < before else 0.0


def fit_head(
    head: nn.Module,
    values: tuple[Tensor, ...],
    target: Int[Tensor, " examples"],
    *,
    weights: Float[Tensor, " examples"] | None = None,
    max_steps: int = 500,
) -> None:
    r"""Fit a head by penalized logistic regression, in place.

    Minimizes the sum of cross-entropies and :math:`|W|^2 / (2 C)` with :math:`C = 0.1` over all
    matrices of weights but not the biases, by L-BFGS in float64 from the present weights. For a
    linear head this is scikit-learn's ``LogisticRegression(C=0.1)``.

    Args:
        head: Any module from the values to logits; in eval mode while it is fitted.
        values: Hidden values and sides of all examples.
        target: Classes.
        weights: Weight of each example, by default 1; their mean is made 1.
        max_steps: Limit of iterations.

    Source:
        Specification C12.
    """
    free = wide(deepcopy(head)).requires_grad_(True).eval()
    values = tuple(wide(value.detach()) for value in values)
    share = shares(len(target), values[0], weights)
    penalty = 1 / (INVERSE_PENALTY * len(target))
    layout = trainable(free)
    start = layout.flatten(dict(free.named_parameters()))
    sizes = [(weight.ndim > 1, weight.numel()) for weight in free.parameters()]
    is_matrix = torch.cat([start.new_full((size,), matrix) for matrix, size in sizes])

    @torch.enable_grad()
    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.from_numpy(point).to(start).requires_grad_()
        output = call_at(free, layout.views(vector), values)
        loss = share @ cross_entropy(output, target, reduction="none")
        loss = loss + penalty / 2 * is_matrix @ vector.square()
        (gradient,) = torch.autograd.grad(loss, vector)
        return loss.item(), gradient.cpu().double().numpy()

    from scipy.optimize import minimize  # takes a second to import

    found: Any = minimize(
        objective,
        start.cpu().double().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_steps, "maxcor": 20, "gtol": 1e-6, "ftol": 1e-13},
    )
    fitted = layout.views(torch.from_numpy(found.x))
    with torch.no_grad():
        for name, weight in head.named_parameters():
            weight.copy_(fitted[name])


def fitted_block(part: nn.Module) -> nn.Module | None:
    """Find the block without gradient inside a part.

    Args:
        part: A module, or a part of a chain around one.

    Returns:
        The outermost module that has a method ``fit``, None if there is none.
    """
    return next((m for m in part.modules() if callable(getattr(m, "fit", None))), None)
