"""One optimizer out of two: discrete weights by the maximum principle, all else by gradients."""

from collections.abc import Callable
from typing import Any
from warnings import warn

import torch
from torch.optim import Optimizer

from lowland.control.discrete import DiscreteMSA
from lowland.errors import NoEffectWarning
from lowland.training import all_sum, rank_and_world

__all__ = ["Together"]


class Together(Optimizer):
    """Step discrete and float parameters of one model at once; with several ranks, the same on all.

    Learning rates are those of the groups, so that schedules of torch and of trainers hold: a
    factor on the rates of ``floats``, and on ``1 - alpha`` of the discrete weights, whose ``lr``
    is 1 at first.

    Args:
        discrete: Of the discrete weights.
        floats: Of the others, None if there are none.
        factor: Step number, from 0, to a factor on the learning rates of ``floats``; it takes the
            place of every other schedule of theirs, which is warned of once. None sets nothing.

    Source:
        Ours; gradients are averaged before the rule, specification section 8.
    """

    shares_gradients = True

    def __init__(
        self,
        discrete: DiscreteMSA,
        floats: Optimizer | None = None,
        factor: Callable[[int], float] | None = None,
    ) -> None:
        """Keep the groups of both, as they are."""
        self.discrete, self.floats, self.factor = discrete, floats, factor
        self.rates = [] if floats is None else [group["lr"] for group in floats.param_groups]
        self.last: list[float] | None = list(self.rates)  # None where nobody is to compare
        self.has_warned, self.is_made = False, False
        super().__init__(self.groups(), {})
        self.is_made = True

    def groups(self) -> list[dict[str, Any]]:
        """Give the groups of both, floats first."""
        return [
            *([] if self.floats is None else self.floats.param_groups),
            *self.discrete.param_groups,
        ]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the groups of both; later ones are refused, as neither would step them.

        Args:
            param_group: A group.

        Raises:
            ValueError: If this optimizer is already made.
        """
        if self.is_made:
            raise ValueError(
                "the groups of Together must be those of its two optimizers; got another one, that "
                "neither would step. Add it to floats, or to discrete, and make Together anew."
            )
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average the gradients over the ranks, then take both steps.

        Args:
            closure: Evaluates the loss and its gradient once.

        Returns:
            What the closure returned.

        Raises:
            FloatingPointError: If a discrete weight's gradient is not finite; nothing is changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.share_gradients()
        step = self.discrete.param_groups[0]["steps"]
        self.discrete.step()
        if self.floats is not None:
            if self.factor is not None:
                self.set_rates(self.factor(step))
            self.floats.step()
        return loss

    def set_rates(self, factor: float) -> None:
        """Set the learning rates of the floats, and warn once of another schedule."""
        assert self.floats is not None
        groups = self.floats.param_groups
        if self.last is not None and self.last != [group["lr"] for group in groups]:
            warn(
                "the learning rates of floats must be set by factor or by another schedule, not "
                "by both; a schedule has set them too, which has no effect on them. Leave factor "
                "out, or take a schedule that is constant.",
                NoEffectWarning,
                stacklevel=4,
            )
            self.has_warned = True
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.last = None if self.has_warned else [group["lr"] for group in groups]

    def share_gradients(self) -> None:
        """Make every gradient the mean over the ranks."""
        world = rank_and_world()[1]
        if world == 1:
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.copy_(all_sum(parameter.grad) / world)

    def state_dict(self) -> dict[str, Any]:
        """Collect the states of both.

        Returns:
            Tensors and plain values.
        """
        floats = None if self.floats is None else self.floats.state_dict()
        return {"discrete": self.discrete.state_dict(), "floats": floats}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from saved states.

        Args:
            state_dict: From ``state_dict()``.
        """
        self.discrete.load_state_dict(state_dict["discrete"])
        if self.floats is not None:
            self.floats.load_state_dict(state_dict["floats"])
            self.last = None
        self.param_groups = self.groups()
