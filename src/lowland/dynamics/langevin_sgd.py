"""Training in a heat bath: gradient steps with thermal noise of a known temperature."""

from collections.abc import Callable, Iterable
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lowland.training import generator

__all__ = ["LangevinSGD"]


class LangevinSGD(Optimizer):
    r"""Overdamped Langevin dynamics of a loss, by Euler's scheme.

    .. math:: w \leftarrow w - \eta \nabla L + \sqrt{2 T \eta}\, \xi

    With the gradient of the whole loss this samples, up to the order of the rate,
    :math:`e^{-L/T}` at long times: a glass that is cooled, where SGD has a noise of its own making.
    In a quadratic well of curvature h the stationary variance is
    :math:`2 T \eta / (1 - (1 - \eta h)^2)`, which tends to T / h as the rate does to zero. With
    mini-batches their noise comes on top.

    Args:
        params: Parameters or groups of them. Those without a gradient take no part.
        lr: Learning rate :math:`\eta`, the time step.
        temperature: T, in the unit of the loss.
        seed: Of the noise, which has a generator of its own; :meth:`state_dict` holds its state.

    Raises:
        ValueError: If the rate is not positive or the temperature negative.

    Source:
        Kerr Winter & Janssen, arXiv 2405.13098; specification, section 9.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float,
        *,
        temperature: float,
        seed: int = 0,
    ):
        self.generators: dict[str, torch.Generator] = {}
        self.seed = seed
        super().__init__(params, {"lr": lr, "temperature": temperature})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with a rate and a temperature of their own.

        Args:
            param_group: ``params``, and ``lr`` and ``temperature`` where they differ.

        Raises:
            ValueError: If the rate is not positive or the temperature negative.
        """
        check_group(self.defaults | param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, with new noise.

        Args:
            closure: Computes the loss and its gradient anew, if given.

        Returns:
            The loss, if there is a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            kick = sqrt(2 * float(group["temperature"]) * float(group["lr"]))
            for w in group["params"]:
                if w.grad is None:
                    continue
                w.add_(w.grad, alpha=-group["lr"])
                if kick:
                    w.add_(self.noise(w), alpha=kick)
        return loss

    def noise(self, w: Tensor) -> Tensor:
        """Normal numbers for a parameter, drawn where it is."""
        place = str(w.device)
        if place not in self.generators:
            self.generators[place] = generator(self.seed, "heat", device=w.device)
        return torch.randn(
            w.shape, dtype=w.dtype, device=w.device, generator=self.generators[place]
        )

    def reseed(self, seed: int) -> None:
        """Go on with other noise: a replica of a run in the same heat bath.

        Args:
            seed: Of the noise from now on.
        """
        self.seed = seed
        self.generators.clear()

    def state_dict(self) -> dict[str, Any]:
        """Copy what is needed to go on with the same noise.

        Returns:
            What torch's optimizers return, and the state of the generators.
        """
        noise = {place: source.get_state() for place, source in self.generators.items()}
        return super().state_dict() | {"noise": noise, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, with the bits of an uninterrupted run.

        Args:
            state_dict: What :meth:`state_dict` returned.

        Raises:
            ValueError: If it is the state of another kind of optimizer.
        """
        if not {"noise", "seed"} <= {*state_dict}:
            raise ValueError(
                f"state must be one of LangevinSGD, with its noise; got {sorted(state_dict)}."
            )
        given = dict(state_dict)
        self.reseed(given.pop("seed"))
        for place, state in given.pop("noise").items():
            self.generators[place] = torch.Generator(place)
            self.generators[place].set_state(state.cpu())
        super().load_state_dict(given)

    def __getstate__(self) -> dict[str, Any]:
        """What a deep copy takes along; torch's own forgets all but its three."""
        mine = {"generators": self.generators, "seed": self.seed}
        return super().__getstate__() | mine  # type: ignore[no-untyped-call]


def check_group(group: dict[str, Any]) -> None:
    """Refuse a rate or a temperature that no heat bath has."""
    if not 0 < float(group["lr"]) < inf:
        raise ValueError(f"lr must be positive and finite; got {group['lr']}.")
    if not 0 <= float(group["temperature"]) < inf:
        raise ValueError(f"temperature must be finite and at least 0; got {group['temperature']}.")
