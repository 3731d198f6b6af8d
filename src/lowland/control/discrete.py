"""An optimizer for weights from a finite set: one moving average each, no latent weights."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lowland.control.checks import (
    check_choice,
    check_gradients,
    check_group,
    check_share,
    check_weight,
    parameter_name,
)
from lowland.control.choice import drawn
from lowland.control.held import BINARY, TERNARY, Held, average_type
from lowland.control.schedules import Schedule, described
from lowland.control.sparsity import price_of_share

__all__ = ["DiscreteMSA"]


class DiscreteMSA(Optimizer):
    r"""Train discrete weights by the maximum principle: ``loss.backward()``, then ``step()``.

    Per weight tensor, with the gradient :math:`g` of the mean loss, :math:`\bar M \leftarrow \alpha
    \bar M - (1 - \alpha) g`; then every weight takes the value of its set that maximizes
    :math:`\bar M v - \lambda v^2 - \rho_k (v - w)^2`. The relative threshold takes
    :math:`\rho_k = \rho m / \Delta` with the largest :math:`|\bar M|` of the tensor's wrong weights
    :math:`m` and the smallest gap :math:`\Delta` of the set. Weights settle only as
    :math:`1 - \alpha` falls: give a ``schedule``.

    Weight decay, gradient clipping and loss scaling have no business with these weights: unscale
    first. A gradient that is not finite raises, before anything is changed. One step is one
    average, so gradients of accumulated batches count once, and a small last batch counts as
    much as a large one. Under ``DistributedDataParallel`` gradients are means over ranks before
    the rule, and all ranks take the same step.

    Args:
        params: Parameters or groups, for instance :func:`lowland.control.discrete_parameters`;
            every weight must lie in its set. A group may have its own ``values``, ``rho``,
            ``alpha``, ``lam``, ``threshold``.
        values: The set: ``(-1, 1)``, ``(-1, 0, 1)``, or any other finite one.
        rho: Penalty on a move. Relative: a share of m, dimensionless, below 1; default 0.5 for two
            values and 0.25 for more. Absolute: in the units of the gradient, as Bop's threshold
            is :math:`2\rho` for ``(-1, 1)``.
        alpha: Keep rate of the average, 0 <= alpha < 1.
        lam: Price of a squared weight, in units of the gradient; at least 0.
        lam_relative: ``lam`` is a multiple of the root mean square of the tensor's average.
        threshold: ``"relative"`` or ``"absolute"``.
        schedule: Step number, from 0, to a factor on ``1 - alpha``; see :func:`per_epoch`. Torch's
            learning-rate schedulers work too: the groups' ``lr``, 1 at first, is such a factor.
        target_nonzero: Share of weights, 0 to 1, that may be other than 0, over all ternary groups
            together, or a function of the step; it takes the place of ``lam``, which is the
            multiplier of this constraint.
            A row that has lost its last weight stays empty.
        layers_per_step: Change so many tensors a step, drawn anew; None changes all.
        seed: Of that draw.

    Raises:
        ValueError: If an argument is not what it must be, or a weight is not in its set.
        TypeError: If a parameter is complex or sharded.

    Source:
        Li & Hao, ICML 2018; specification sections 2, 3 B and 4. The target is ours.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, -1.0, 1.0]))
        >>> optimizer = DiscreteMSA([weight], alpha=0.0)
        >>> (weight * torch.tensor([3.0, 1.0, 1.0])).sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [-1.0, -1.0, 1.0]
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        values: Sequence[float] = BINARY,
        rho: float | None = None,
        alpha: float = 0.99,
        lam: float = 0.0,
        lam_relative: bool = False,
        threshold: str = "relative",
        schedule: Schedule | None = None,
        target_nonzero: float | Schedule | None = None,
        layers_per_step: int | None = None,
        seed: int = 0,
    ) -> None:
        """Check the groups, and that every weight lies in its set."""
        check_choice(0.0, 0.0, layers_per_step=layers_per_step)
        if not callable(target_nonzero) and target_nonzero is not None:
            check_share(target_nonzero)
        if schedule is not None and not callable(schedule):
            raise ValueError(
                f"schedule must be a function of the step; got {schedule!r}. For instance "
                "per_epoch(0.95, len(batches))."
            )
        self.schedule = schedule
        self.target_nonzero = target_nonzero
        self.layers_per_step = layers_per_step
        self.seed = seed
        self.versions: dict[Tensor, int] = {}
        defaults = {
            "values": values,
            "rho": rho,
            "alpha": alpha,
            "lam": lam,
            "lam_relative": lam_relative,
            "threshold": threshold,
            "lr": 1.0,
            "schedule": described(schedule),
            "target_nonzero": described(target_nonzero),
            "layers_per_step": layers_per_step,
            "steps": 0,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of weights; its missing settings are the optimizer's.

        Args:
            param_group: ``{"params": ..., "values": ..., ...}``.

        Raises:
            ValueError: If a setting is not what it must be, or a weight is not in its set.
            TypeError: If a parameter is complex or sharded.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_group(group)
            if self.target_nonzero is not None and group["values"] != TERNARY:
                raise ValueError(
                    f"target_nonzero needs the values (-1, 0, 1); got {group['values']}. Begin "
                    "with discretize(model, (-1, 0, 1)), or give other weights an optimizer of "
                    "their own."
                )
            if self.target_nonzero is not None and group["lam"] != 0:
                raise ValueError(
                    "only one of target_nonzero, which sets lam at every step, and lam can be "
                    f"given; got {described(self.target_nonzero)} and {group['lam']}. Leave one "
                    "out."
                )
        except (ValueError, TypeError):
            self.param_groups.pop()
            raise

    @property
    def gamma(self) -> float:
        """``1 - alpha`` of the next step, of the first group."""
        return self.gamma_of(self.param_groups[0])

    def gamma_of(self, group: dict[str, Any]) -> float:
        """Give ``1 - alpha`` of the next step of a group, kept in double precision.

        Args:
            group: One of ``param_groups``.

        Returns:
            Weight of the newest gradient in the average.

        Raises:
            ValueError: If the schedule leaves 0 to 1.
        """
        factor = 1.0 if self.schedule is None else float(self.schedule(group["steps"]))
        gamma = (1.0 - group["alpha"]) * group["lr"] * factor
        if not 0 <= gamma <= 1:
            raise ValueError(
                f"schedule and lr must keep 1 - alpha between 0 and 1; got {gamma} at step "
                f"{group['steps']}, with alpha = {group['alpha']}, lr = {group['lr']} and the "
                f"factor {factor}."
            )
        return gamma

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average the gradients, then change the weights.

        Args:
            closure: Evaluates the loss and its gradient once, as in every torch optimizer.

        Returns:
            What the closure returned.

        Raises:
            FloatingPointError: If a gradient is not finite; nothing is changed then.
            ValueError: If a gradient is sparse; likewise.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        check_gradients(self.param_groups)
        held = self.held()
        for one in held:
            if self.versions.get(one.weight, one.weight._version) != one.weight._version:
                check_weight(one.weight, one.group["values"], one.name)  # someone else wrote it
        # Largest wrong weights first, all read at once: one wait for the device.
        wrong = [one.accumulate(self.gamma_of(one.group)) for one in held]
        sizes = torch.stack(wrong).tolist() if wrong else []
        for one, m in zip(held, sizes, strict=True):
            one.set_penalty(m)
        chosen = self.chosen(held)
        price = self.price(chosen)
        for one in chosen:
            one.apply(price)
        self.versions = {one.weight: one.weight._version for one in held}
        for group in self.param_groups:
            group["steps"] += 1
        return loss

    def held(self) -> list[Held]:
        """Collect the weights that have a gradient."""
        held = []
        for group in self.param_groups:
            gamma = self.gamma_of(group)
            for index, weight in enumerate(group["params"]):
                if weight.grad is not None:
                    average, name = self.average(weight, gamma), parameter_name(group, index)
                    alive = self.living_rows(weight)
                    held.append(Held(group, weight, weight.grad, average, name, alive))
        return held

    def living_rows(self, weight: Tensor) -> Tensor | None:
        """Say which rows of a weight have a gradient that counts; None for all."""
        if self.target_nonzero is None or weight.ndim < 2 or not weight.numel():
            return None
        # Behind a norm a unit without weights has gradients 1 / sqrt(epsilon) times too large to be
        # compared with others: it stays without.
        return torch.linalg.vector_norm(weight.detach(), dim=tuple(range(1, weight.ndim))) > 0

    def average(self, weight: Tensor, gamma: float) -> Tensor:
        """Give the moving average of a weight, in a type that holds its next increment."""
        state = self.state[weight]
        kind = average_type(weight, gamma)
        if "average" not in state:
            state["average"] = torch.zeros_like(
                weight, dtype=kind, memory_format=torch.contiguous_format
            )
        elif state["average"].dtype != kind and kind == torch.float64:
            state["average"] = state["average"].to(kind)
        return state["average"]

    def chosen(self, held: list[Held]) -> list[Held]:
        """Draw the tensors that change in this step."""
        if self.layers_per_step is None or not held:
            return held
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + held[0].group["steps"])
        return drawn(held, self.layers_per_step, draws)

    def price(self, held: list[Held]) -> float | None:
        """Find the lambda that leaves the wanted share of weights nonzero."""
        if self.target_nonzero is None or not held:
            return None
        step, target = held[0].group["steps"], self.target_nonzero
        share = check_share(target(step) if callable(target) else target)
        found = [(one.weight.detach(), one.average, one.rho) for one in held]
        return price_of_share(found, share, offset=step).item()

    def __getstate__(self) -> dict[str, Any]:
        """Keep for copies what torch does not know of."""
        own = ("schedule", "target_nonzero", "layers_per_step", "seed")
        kept = {name: getattr(self, name) for name in own}
        return super().__getstate__() | kept | {"versions": {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, every average in the precision it was saved in.

        Args:
            state_dict: From ``state_dict()``.

        Raises:
            ValueError: If the groups differ, or a weight of the model is not in its set.
        """
        if any("values" not in group for group in state_dict["param_groups"]):
            raise ValueError("state_dict must come from a DiscreteMSA; its groups have no values.")
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        for weight, key in zip(weights, keys, strict=True):
            saved = state_dict["state"].get(key, {}).get("average")
            if saved is not None:  # torch would have cast it to the type of the weight
                self.state[weight]["average"] = saved.to(weight.device, copy=True)
        for group in self.param_groups:
            check_group(group)
