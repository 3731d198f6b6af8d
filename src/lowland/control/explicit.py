r"""The mini-batch method as the program of states and costates that it is, without autograd in it.

:class:`lowland.control.DiscreteMSA` reads the same products from ``.grad`` and is much faster. Here
no weight needs a gradient, and every quantity of the maximum principle has its name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowland.control.checks import check_alpha, check_choice
from lowland.control.choice import choose_values, discrete_weights
from lowland.control.full_batch import products_of
from lowland.control.hamiltonian import hamiltonian_gradients
from lowland.control.held import average_type
from lowland.control.trajectory import states_and_costates

__all__ = ["ExplicitStep", "explicit_step"]


@dataclass(frozen=True)
class ExplicitStep:
    r"""What a step found.

    Attributes:
        loss: Mean loss of the batch before the step, in nats, shape ``()``.
        averages: :math:`\bar M` after it, by name of the weight: give them to the next step.
        slopes: :math:`\sum_s \nabla_\theta H_t` of all other parameters by name, minus the
            gradient of the loss: what an optimizer of one's own may climb.
        changed: Number of weights that changed.
    """

    loss: Tensor
    averages: dict[str, Tensor]
    slopes: dict[str, Tensor]
    changed: int


def explicit_step(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    inputs: Any,
    target: Any,
    averages: Mapping[str, Tensor] | None = None,
    *,
    values: Sequence[float] | None = None,
    alpha: float,
    rho: float,
    lam: float = 0.0,
    threshold: str = "relative",
    update_statistics: bool = True,
) -> ExplicitStep:
    r"""Take one step of the mini-batch method in place, for all discrete weights of a model.

    States forward, costates backward, :math:`M = \sum_s p_{t+1} x_t^T` by its formula in every
    layer, :math:`\bar M \leftarrow \alpha \bar M + (1 - \alpha) M`, and the rule; all layers from
    the same old weights. In the mode in which the model is.

    Args:
        model: Any module; its discrete weights are changed, they need no gradient.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        inputs: A batch, as the model takes it.
        target: Its targets.
        averages: Of the step before; None or empty at first, which counts as zeros.
        values: Set of the weights; None for those that the model was discretized to.
        alpha: Keep rate of the average, 0 <= alpha < 1.
        rho: Penalty on a move; relative: a share of the largest wrong weight's average.
        lam: Price of a squared weight, in nats.
        threshold: ``"relative"`` or ``"absolute"``.
        update_statistics: Let the forward pass count as one of training, for batch norm.

    Returns:
        Averages for the next step, and what else was found.

    Raises:
        ValueError: If an argument is not what it must be, a weight is not in its set, or M is not
            finite; nothing is changed then.

    Source:
        Li & Hao, ICML 2018; specification section 3, algorithm B.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1, bias=False).requires_grad_(False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> inputs, target = torch.tensor([[1.0, 0.5]]), torch.tensor([0.0])
        >>> squared = lambda output, target: (output[:, 0] - target) ** 2
        >>> options = {"values": (-1, 1), "alpha": 0.0, "rho": 0.5}
        >>> step = explicit_step(model, squared, inputs, target, **options)
        >>> step.averages["weight"].tolist(), model.weight.tolist()
        ([[-3.0, -1.5]], [[-1.0, 1.0]])
    """
    check_choice(lam, rho, threshold)
    check_alpha(alpha)
    sets = discrete_weights(model, values)
    weights = {name: model.get_parameter(name).detach() for name in sets}
    gamma = 1.0 - alpha
    before = start_of(averages or {}, weights, gamma)
    try:
        trajectory = states_and_costates(
            model, loss_fn, inputs, target, update_statistics=update_statistics
        )
    except FloatingPointError as error:
        raise ValueError(f"{error} Nothing was changed.") from error
    products = products_of(trajectory, sets)
    after, new = {}, {}
    for name, product in products.items():
        if not product.isfinite().all():
            raise ValueError(
                f"M must be finite; that of {name} is not. Nothing was changed; look for the layer "
                "where the loss overflows."
            )
        after[name] = before[name].mul(1 - gamma).add(product.to(before[name].dtype), alpha=gamma)
        new[name] = choose_values(
            weights[name], after[name], sets[name], lam=lam, rho=rho, threshold=threshold
        )
    floats = [
        name
        for name, value in trajectory.params.items()
        if name not in sets and value.is_floating_point()
    ]
    slopes = hamiltonian_gradients(trajectory, floats)
    changed = sum(int((weights[name] != value).sum()) for name, value in new.items())
    with torch.no_grad():
        for name, value in new.items():
            weights[name].copy_(value)
    return ExplicitStep(trajectory.loss, after, slopes, changed)


def start_of(
    averages: Mapping[str, Tensor], weights: Mapping[str, Tensor], gamma: float
) -> dict[str, Tensor]:
    """Give every weight an average in a type that holds its next increment."""
    unknown = [name for name in averages if name not in weights]
    wrong = [n for n, w in weights.items() if n in averages and averages[n].shape != w.shape]
    if unknown or wrong or (averages and len(averages) < len(weights)):
        raise ValueError(
            "averages must be those of the step before, one for each discrete weight "
            f"({', '.join(weights)}) in its shape; got {', '.join(averages)}. "
            "Pass step.averages, or None at first."
        )
    found = {}
    for name, weight in weights.items():
        kind = average_type(weight, gamma)
        old = averages.get(name)
        if old is None:
            found[name] = torch.zeros_like(weight, dtype=kind)
        else:
            found[name] = old.to(torch.promote_types(old.dtype, kind))
    return found
