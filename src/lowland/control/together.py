"""One optimizer out of two: discrete weights by the maximum principle, all else by gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from lowland.control.discrete import DiscreteMSA
from lowland.training import all_sum, rank_and_world

__all__ = ["Together"]


class Together(Optimizer):
    """Step discrete and float parameters of one model at once; with several ranks, the same on all.

    Args:
        discrete: Of the discrete weights.
        floats: Of the others, None if there are none.
        factor: Step number, from 0, to a factor on the learning rates of ``floats``.

    Source:
        Ours; gradients are averaged before the rule, specification section 8.
    """

    def __init__(
        self,
        discrete: DiscreteMSA,
        floats: Optimizer | None = None,
        factor: Callable[[int], float] | None = None,
    ) -> None:
        """Keep the groups of both, as they are."""
        self.discrete, self.floats, self.factor = discrete, floats, factor
        self.rates = [] if floats is None else [group["lr"] for group in floats.param_groups]
        super().__init__(self.groups(), {})

    def groups(self) -> list[dict[str, Any]]:
        """Give the groups of both, floats first."""
        return [
            *([] if self.floats is None else self.floats.param_groups),
            *self.discrete.param_groups,
        ]

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
            for group, rate in zip(self.floats.param_groups, self.rates, strict=True):
                group["lr"] = rate * (1.0 if self.factor is None else self.factor(step))
            self.floats.step()
        return loss

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
        self.param_groups = self.groups()
