"""What a round trains: some parts of a chain with a head, on features that have no graph."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lowland.boosting.objectives import objective, transport
from lowland.boosting.part import Part
from lowland.boosting.statistics import Outputs
from lowland.training import as_pair, kept_mode
from lowland.training.floats import wide_type

__all__ = ["Local", "Module", "evaluated", "hypothesis", "local_loss"]

SMALL = 2**27  # bytes of outputs that are kept between the passes of one measurement


class Module(nn.Module):
    """Consecutive parts of a chain that are trained together.

    Args:
        parts: They remain the user's own modules.
    """

    def __init__(self, parts: Iterable[Part]):
        super().__init__()
        self.parts = tuple(parts)
        self.links = nn.ModuleList(self.parts)

    @property
    def name(self) -> str:
        """The names of the parts in the model."""
        return " + ".join(part.name for part in self.parts)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Go through the parts.

        Args:
            *values: Hidden values and sides, each ``(batch, ...)``.

        Returns:
            The same behind the last part.
        """
        for part in self.parts:
            values = part(*values)
        return values


class Local(nn.Module):
    """Modules with their heads; each learns from features that the one before does not see.

    Args:
        modules: One, or all of a chain if they are trained in parallel.
        heads: One for each.
        wants_change: Whether to return the residuals too.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        heads: Iterable[nn.Module],
        *,
        wants_change: bool = False,
    ):
        super().__init__()
        self.stages = nn.ModuleList(modules)
        self.heads = nn.ModuleList(heads)
        self.wants_change = wants_change

    def forward(self, *values: Tensor) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Classify with each head.

        Args:
            *values: Hidden values and sides, each ``(batch, ...)``.

        Returns:
            Logits ``(batch, classes)`` of each head, and what its module added to its input where
            that is wanted and shapes agree.
        """
        found = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            before = values[0]
            values = stage(*values)
            change = None
            if self.wants_change and values[0].shape == before.shape:
                change = values[0] - before
            found.append((head(*values), change))
            values = tuple(value.detach() for value in values)
        return tuple(found)


def local_loss(name: str, tau: float | None) -> Callable[[Any, Any], Tensor]:
    """Make the loss function of a :class:`Local`.

    Args:
        name: Objective of the heads; see :func:`lowland.boosting.objectives.objective`.
        tau: Step of the transport regularizer; None leaves it out.

    Returns:
        ``loss_fn(output, target)``, one loss per example, added up over the heads; the target may
        be a pair of classes and weights.
    """
    losses_of = objective(name)

    def loss_fn(output: Any, target: Any) -> Tensor:
        labels, weights = as_pair(target) if isinstance(target, tuple | list) else (target, None)
        total = torch.zeros(())
        for logits, change in output:
            losses = losses_of(logits, labels, weights)
            if change is not None and tau is not None:
                moved = transport(change, tau)
                losses = losses + (moved if weights is None else moved * weights.to(moved))
            total = losses + total.to(losses.device)
        return total

    return loss_fn


def hypothesis(
    features: Any, module: nn.Module, head: nn.Module, previous: nn.Module | None
) -> Callable[[], Iterable[Outputs]]:
    """Give the outputs of a round on a training set, as often as they are asked for.

    They are kept where they are small, else computed anew in every pass.

    Args:
        features: What enters the module.
        module: What was trained.
        head: Its head.
        previous: The head of the round before, which reads what enters; None at first.

    Returns:
        Function that gives chunks for :func:`lowland.boosting.statistics.measure`.
    """

    def compute() -> Iterator[Outputs]:
        for values, target, weights in features.chunks():
            with evaluated(module, head, previous):
                before = None if previous is None else simplex(previous(*values))
                found = simplex(head(*module(*values)))
            yield found, before, target, weights

    kept: list[Outputs] = []
    for chunk in compute():
        kept.append(chunk)
        if chunk[0].shape[1] * features.count * 16 > SMALL:
            return compute
    return lambda: kept


def simplex(logits: Tensor) -> Tensor:
    """The bounded outputs that the theory is about, in float64 where there is one."""
    return logits.to(wide_type(logits.device)).softmax(1)


@contextmanager
def evaluated(*modules: nn.Module | None) -> Iterator[None]:
    """Run modules in eval mode without a graph, and put their modes back.

    Args:
        *modules: Those that are not None.

    Yields:
        Nothing.
    """
    together = nn.ModuleList([module for module in modules if module is not None])
    with kept_mode(together), torch.no_grad():
        together.eval()
        yield
