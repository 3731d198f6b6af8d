"""The whole data as one batch: its loss, its trajectory, and its products M, always the same."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from sys import maxsize
from typing import Any

import torch
from torch import Tensor, nn

from lowland.control.calls import checked_call
from lowland.control.hamiltonian import hamiltonian_gradients
from lowland.control.trajectory import (
    RunningCost,
    Trajectory,
    control_products,
    states_and_costates,
)
from lowland.training import (
    as_pair,
    check_not_empty,
    checked_losses,
    device_of,
    isolated_rng,
    map_tensors,
    norm_layers,
    recalibrate,
    to_device,
)

__all__ = ["FullBatch", "products_of"]


@dataclass(frozen=True)
class FullBatch:
    """All data at once, read in pieces, in train mode and always with the same random numbers.

    Loaders that shuffle, augmentation and dropout give the same at every reading, so that the loss
    is a function of the weights. Running statistics of batch norm are not touched.

    Attributes:
        model: Any module.
        loss_fn: One loss per example, shape ``(batch,)``.
        batches: The pieces, re-iterable.
        seed: Seed of what is random in reading and in the model.
        running_cost: Running cost per example of a layer, from its name, what enters it and its
            parameters; None for none.
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batches: Iterable[Any]
    seed: int = 0
    running_cost: RunningCost | None = None

    def pieces(self) -> Iterator[tuple[Any, Any]]:
        """Read the data.

        Yields:
            Inputs and target, where the model is.

        Raises:
            ValueError: If there is no batch.
        """
        device, count = device_of(self.model), 0
        for batch in self.batches:
            count += 1
            yield to_device(as_pair(batch), device)
        check_not_empty(count)

    @contextmanager
    def same_noise(self) -> Iterator[None]:
        """Make what is random in a block the same every time."""
        with isolated_rng(self.seed, "sweep", batches=self.batches):
            yield

    def products(self, names: Collection[str]) -> tuple[float, dict[str, Tensor]]:
        r"""Measure the loss and :math:`M = \sum_s p_{s,t+1} x_{s,t}^T` of some weights.

        Args:
            names: Of the weights.

        Returns:
            Mean loss in nats per example (with running costs), and M by name: means over the
            pieces, weighted by their numbers of examples.
        """
        loss, mean, seen = 0.0, {}, 0
        with self.same_noise():
            for inputs, target in self.pieces():
                with isolated_rng(self.seed, "piece"):
                    found = self.trajectory_of(inputs, target)
                seen += found.count
                share = found.count / seen
                loss += (found.loss.item() - loss) * share
                for name, product in products_of(found, names).items():
                    mean[name] = mean[name].lerp(product, share) if name in mean else product
        return loss, mean

    def trajectory(self) -> Trajectory:
        """Run all data as one batch.

        Returns:
            States and costates.
        """
        with self.same_noise():
            inputs, targets = zip(*self.pieces(), strict=True)
            with isolated_rng(self.seed, "piece"):
                return self.trajectory_of(joined(inputs), joined(targets))

    def trajectory_of(self, inputs: Any, target: Any) -> Trajectory:
        """Run one batch.

        Args:
            inputs: As for :func:`lowland.params.call`.
            target: What the loss function is given.

        Returns:
            States and costates.
        """
        return states_and_costates(
            self.model, self.loss_fn, inputs, target, running_cost=self.running_cost
        )

    @torch.no_grad()
    def loss(self, weights: Mapping[str, Tensor]) -> float:
        """Measure the mean loss with other weights, without running costs.

        Args:
            weights: By parameter name; those that are not given are the model's.

        Returns:
            Nats per example.
        """
        total, seen = 0.0, 0
        with self.same_noise():
            for inputs, target in self.pieces():
                named = {name: value.clone() for name, value in self.model.named_buffers()}
                with isolated_rng(self.seed, "piece"):
                    output = checked_call(self.model, named | dict(weights), inputs)
                losses = checked_losses(self.loss_fn, output, target)
                total += losses.double().sum().item()
                seen += len(losses)
        return total / seen

    @torch.no_grad()
    def settle_norms(self) -> None:
        """Set the running statistics of norm layers to their means over all data."""
        if norm_layers(self.model):
            with self.same_noise():
                recalibrate(self.model, self.pieces(), maxsize)


def products_of(trajectory: Trajectory, names: Collection[str]) -> dict[str, Tensor]:
    """Find M of weights: by its formula, else by differentiating H where a layer has none.

    Args:
        trajectory: States and costates.
        names: Of the weights.

    Returns:
        M by name. Behind a parametrization that multiplies a weight by a scale, H is linear in it
        too, and its slope is M.
    """
    found = control_products(trajectory)
    rest = [name for name in names if name not in found]
    slopes = hamiltonian_gradients(trajectory, rest) if rest else {}
    return {name: slopes[name] if name in slopes else found[name] for name in names}


def joined(parts: tuple[Any, ...]) -> Any:
    """Join nested batches along their first axis."""
    return map_tensors(lambda *pieces: torch.cat(pieces), parts[0], *parts[1:])
