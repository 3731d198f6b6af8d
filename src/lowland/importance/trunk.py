"""A frozen trunk runs once per pool: what it gave while scoring is used again for training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lowland.importance.modes import random_layers
from lowland.importance.rows import join, select
from lowland.training import norm_layers
from lowland.training.forwards import replaced

__all__ = ["FrozenTrunk"]


class FrozenTrunk:
    """Remembers what a frozen part of a model made of a pool, and gives the chosen rows of it.

    The training pass through the chosen rows then skips the trunk. The rows are recognized by
    their values, so that other calls in the user's loop run the trunk as ever.

    Args:
        trunk: A module whose parameters are all frozen and which gives the same output in
            training and in evaluation mode.

    Raises:
        ValueError: If a parameter of it requires a gradient.

    Source:
        Ours.
    """

    def __init__(self, trunk: nn.Module):
        trained = [name for name, value in trunk.named_parameters() if value.requires_grad]
        if trained:
            raise ValueError(
                f"the trunk must be frozen; {trained[0]} requires a gradient. Call "
                "trunk.requires_grad_(False), or leave trunk out."
            )
        self.trunk = trunk
        self.parts: list[tuple[Any, Any]] = []
        self.chosen: Tensor | None = None
        self.is_scoring = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Stand between the model and its trunk in a block.

        Yields:
            Nothing.
        """
        run = self.trunk.forward
        try:
            with replaced(self.trunk, lambda *given, **named: self.forward(run, given, named)):
                yield
        finally:
            self.parts, self.chosen = [], None

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Remember the trunk's outputs of a pool while it is scored in a block.

        Yields:
            Nothing.
        """
        self.parts, self.chosen, self.is_scoring = [], None, True
        try:
            yield
        finally:
            self.is_scoring = False

    def choose(self, index: Tensor | None) -> None:
        """Say which rows of the pool the next training pass will ask for.

        Args:
            index: Their positions; None for rows that were not scored.
        """
        self.chosen = index

    def forward(
        self, run: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Run the trunk, or give what it gave before.

        Args:
            run: The trunk's own forward pass.
            inputs: Its arguments.
            options: Its keyword arguments.

        Returns:
            The trunk's output.
        """
        if self.is_scoring:
            output = run(*inputs, **options)
            self.parts.append((inputs, output))
            return output
        if self.chosen is None or not torch.is_grad_enabled() or options or not self.parts:
            return run(*inputs, **options)
        index = self.chosen
        asked = select(join([part for part, _ in self.parts]), index)
        if not alike(asked, inputs):
            return run(*inputs, **options)
        check_still(self.trunk)
        self.chosen = None
        return select(join([output for _, output in self.parts]), index)


def alike(a: Any, b: Any) -> bool:
    """Whether two tuples hold the same tensors, value by value."""
    if len(a) != len(b) or not all(isinstance(x, Tensor) for x in (*a, *b)):
        return False
    return all(
        x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y)
        for x, y in zip(a, b, strict=True)
    )


def check_still(trunk: nn.Module) -> None:
    """Refuse a trunk that would do something else in training mode than it did while scoring."""
    moving = {name: layer for name, layer in norm_layers(trunk).items() if layer.training}
    moving |= {name: layer for name, (layer, _) in random_layers(trunk).items()}
    if moving:
        name, layer = next(iter(moving.items()))
        raise ValueError(
            f"a frozen trunk must be in evaluation mode; {name} ({type(layer).__name__}) is in "
            "training mode. Call trunk.eval() after model.train()."
        )
