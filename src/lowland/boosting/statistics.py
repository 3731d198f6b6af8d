"""The statistics of a hypothesis as sums over chunks of a data set, and over processes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import exp, inf, isfinite

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from lowland.boosting.alphas import LARGEST_ALPHA, closed_alpha, find_alpha, improvement
from lowland.boosting.bounds import BINS, Certificate
from lowland.boosting.costs import (
    NO_WEIGHT,
    SLACK,
    check_target,
    example_weights,
    exponentials,
    not_bounded,
    raw_margins,
)
from lowland.training import all_sum

__all__ = ["Outputs", "Statistics", "Summary", "measure"]

Outputs = tuple[Tensor, Tensor | None, Tensor, Tensor | None]
PIECE = 2**22  # pairs looked at together: 32 MiB for each intermediate result
EDGES = torch.linspace(-1, 1, BINS + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Summary:
    r"""What one pass over a training set finds.

    Attributes:
        edge: :math:`\tilde\gamma_{t+1} = E_{D_t}[r_{t+1}]`.
        uniform_edge: Mean margin over all pairs.
        error: Share of examples with a wrong class at or above the right one.
        loss_previous: Exponential loss of the previous hypothesis.
        classes: C.
        examples: Number of examples.
        weight: Sum of their weights.
        margin_shares: Share of examples with a smallest margin of at most -1, -0.999, ..., 1.
    """

    edge: float
    uniform_edge: float
    error: float
    loss_previous: float
    classes: int
    examples: int
    weight: float
    margin_shares: Float[Tensor, " thetas"]


class Statistics:
    r"""One pass over a training set that is handed over in chunks of any size.

    Args:
        alpha_previous: Closed-form :math:`\alpha_t` of the previous hypothesis.

    Raises:
        ValueError: If it does not lie between 0 and the largest alpha.

    Source:
        Ours: numerators and denominators are added up over chunks and processes, never ratios.
    """

    def __init__(self, *, alpha_previous: float = 0.0):
        check_alpha(alpha_previous, "alpha_previous")
        self.alpha_previous = float(alpha_previous)
        self.sums = torch.zeros(7 + BINS + 1, dtype=torch.float64)
        self.classes: int | None = None
        self.device: torch.device | None = None

    def add(
        self,
        output: Float[Tensor, "batch classes"],
        target: Integer[Tensor, " batch"],
        *,
        previous: Float[Tensor, "batch classes"] | None = None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> None:
        """Take in some examples.

        Args:
            output: Rows of a simplex, those of the new hypothesis.
            target: Class of each example.
            previous: Rows of the previous hypothesis, for the same examples.
            weights: Of these examples, in a scale that is the same for all chunks.

        Raises:
            ValueError: If the shapes do not fit, or a target is not one of the classes.
        """
        if self.classes not in (None, output.shape[-1]):
            raise ValueError(
                f"all chunks must have the same classes; got {self.classes} and then "
                f"{output.shape[-1]}."
            )
        self.classes, self.device = output.shape[-1], output.device
        if previous is None and self.alpha_previous:
            raise ValueError(
                "previous must hold the outputs of the last hypothesis, as alpha_previous is "
                f"{self.alpha_previous}; got None."
            )
        for r, before, label, w in pieces((output, previous, target, weights)):
            q = exponentials(before, label[:, 0], self.alpha_previous)
            smallest = r.scatter(1, label, inf).amin(1)
            # The negation catches what is not a number as well.
            strange = ~(r.abs().amax(1).maximum(before.abs().amax(1)) <= 1 + SLACK)
            found = [
                w.sum(),
                (w * q.sum(1)).sum(),
                (w * (q * r).sum(1)).sum(),
                (w * r.sum(1)).sum(),
                (w * (smallest <= 0)).sum(),
                w.new_tensor(len(r)),
                strange.sum(),
            ]
            # A margin that is a multiple of 0.001 but for rounding belongs below it.
            place = torch.searchsorted(EDGES, smallest.cpu().nan_to_num() - 1e-12)
            place = place.clamp(max=BINS)
            counts = torch.bincount(place, weights=w.cpu(), minlength=BINS + 1)
            self.sums += torch.cat([torch.stack(found).cpu(), counts])

    def result(self) -> Summary:
        """Close the pass. Every process of a job must take part.

        Returns:
            The summary of all chunks of all processes.

        Raises:
            ValueError: If there was no example with a weight, or an output was not bounded.
        """
        classes = torch.tensor([0.0, 0.0], dtype=torch.float64)
        if self.classes is not None:
            classes += torch.tensor([self.classes, 1.0], dtype=torch.float64)
        together = all_sum(torch.cat([classes, self.sums]), self.device)
        of_ranks, ranks, *sums = together[:9].tolist()
        weight, pairs, weighted, plain, wrong, examples, strange = sums
        if not weight > 0 and not strange:
            raise ValueError(NO_WEIGHT)
        if strange:
            raise ValueError(not_bounded(f"{strange:.0f} rows of {examples:.0f} that are not"))
        found = round(of_ranks / ranks)
        return Summary(
            edge=min(max(weighted / pairs, -1.0), 1.0),
            uniform_edge=min(max(plain / (weight * (found - 1)), -1.0), 1.0),
            error=wrong / weight,
            loss_previous=pairs / weight,
            classes=found,
            examples=round(examples),
            weight=weight,
            margin_shares=together[9:].cumsum(0) / weight,
        )


def pieces(chunk: Outputs) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Cut a chunk small; give margins, those of the last hypothesis, label and weights."""
    output, previous, target, weights = chunk
    check_target(output, target)
    if previous is not None and previous.shape != output.shape:
        raise ValueError(
            f"previous must have the shape of output, {tuple(output.shape)}; got "
            f"{tuple(previous.shape)}."
        )
    rows = max(1, PIECE // output.shape[1])
    for start in range(0, len(output), rows):
        part = slice(start, start + rows)
        y, r = target[part], raw_margins(output[part], target[part])
        before = torch.zeros_like(r) if previous is None else raw_margins(previous[part], y)
        w = example_weights(None if weights is None else weights[part], r)
        yield r, before.to(r.device), y.long()[:, None].to(r.device), w


def check_alpha(alpha: float, name: str) -> None:
    """Refuse an alpha whose exponentials would leave float64 without digits."""
    if not 0 <= alpha <= LARGEST_ALPHA:
        raise ValueError(f"{name} must lie between 0 and {LARGEST_ALPHA}; got {alpha}.")


@torch.no_grad()
def measure(
    chunks: Callable[[], Iterable[Outputs]],
    *,
    alpha_previous: float = 0.0,
    edge_previous: float = 0.0,
    alpha: str | float = "closed",
) -> Certificate:
    """Certify a hypothesis on a data set that is read chunk by chunk, in a few passes.

    Two passes are made, and about five more for the line search. Nothing is kept between chunks
    but sums, so that memory does not grow with the data set; with many classes a chunk should
    have few rows.

    Args:
        chunks: Called once per pass; gives ``(output, previous, target, weights)``, where
            ``output`` and ``previous`` are rows of a simplex of shape ``(batch, classes)`` of the
            new and of the last hypothesis, both in eval mode, and ``previous`` and ``weights``
            may be None. In a job of several processes each gives its own share.
        alpha_previous: Closed-form alpha of the last hypothesis: its certificate's
            ``alpha_closed``, whatever alpha was chosen for scores.
        edge_previous: Edge of the last hypothesis; at first 0, or where gamma shall start from.
        alpha: Weight of this depth for losses and scores: ``"closed"``, ``"line_search"`` or a
            number.

    Returns:
        The certificate, the same on every process.

    Raises:
        ValueError: If the arguments do not fit, or the passes do not give the same examples.

    Source:
        Huang et al., ICML 2018, Algorithms 1 and 3; the bounds: ours.
    """
    if isinstance(alpha, str):
        if alpha not in ("closed", "line_search"):
            raise ValueError(f"alpha must be 'closed', 'line_search' or a number; got {alpha!r}.")
    else:
        check_alpha(alpha, "alpha")
    improvement(0.0, edge_previous)  # refuses what is no edge
    statistics = Statistics(alpha_previous=alpha_previous)
    for output, previous, target, weights in chunks():
        statistics.add(output, target, previous=previous, weights=weights)
    found = statistics.result()
    closed = chosen = closed_alpha(found.edge)
    if alpha == "line_search":

        def moments(at: float) -> list[float]:
            return totals(chunks, found, 3, partial(moment_sums, alpha=at))

        chosen = find_alpha(moments, found.uniform_edge)
    elif alpha != "closed":
        chosen = float(alpha)
    inverse = (found.classes - 1) / found.loss_previous  # E[exp(alpha r)] of the last hypothesis
    terms = partial(
        loss_sums,
        old=alpha_previous,
        closed=closed,
        chosen=chosen,
        center=exp(-closed * found.edge),
        inverse=inverse,
    )
    at_closed, under_weights, centered, at_chosen = totals(chunks, found, 4, terms)
    of_pairs = found.loss_previous * found.weight
    return Certificate(
        edge=found.edge,
        edge_previous=float(edge_previous),
        alpha_previous=float(alpha_previous),
        alpha=chosen,
        alpha_closed=closed,
        loss=at_chosen / found.weight,
        loss_closed=at_closed / found.weight,
        loss_previous=found.loss_previous,
        covariance=centered / of_pairs,
        covariance_scale=under_weights / of_pairs * inverse,
        uniform_edge=found.uniform_edge,
        error=found.error,
        classes=found.classes,
        examples=found.examples,
        margin_shares=found.margin_shares,
    )


def moment_sums(
    r: Tensor, before: Tensor, label: Tensor, w: Tensor, *, alpha: float
) -> list[Tensor]:
    """What the line search needs: sums of ``exp(-alpha r)`` times 1, r and r^2."""
    new = w[:, None] * exponentials(r, label[:, 0], alpha)
    return [(new * r**k).sum() for k in range(3)]


def loss_sums(
    r: Tensor,
    before: Tensor,
    label: Tensor,
    w: Tensor,
    *,
    old: float,
    closed: float,
    chosen: float,
    center: float,
    inverse: float,
) -> list[Tensor]:
    """Loss at the closed alpha, its mean under the weights, the covariance, the chosen loss."""
    q, new = (exponentials(m, label[:, 0], alpha) for m, alpha in ((before, old), (r, closed)))
    # q exp(alpha_t r_t) = 1, and exp(alpha_t r_t) has the mean ``inverse``: what is summed is
    # q (A - center) (B - E B), so that nothing large cancels.
    centered = (new - center).scatter(1, label, 0.0) * (1 - q * inverse)
    score = new if chosen == closed else exponentials(r, label[:, 0], chosen)
    return [(w * terms.sum(1)).sum() for terms in (new, q * new, centered, score)]


def totals(
    chunks: Callable[[], Iterable[Outputs]],
    found: Summary,
    size: int,
    terms: Callable[[Tensor, Tensor, Tensor, Tensor], list[Tensor]],
) -> list[float]:
    """Add up some terms in one more pass, over all chunks and processes."""
    sums, device = torch.zeros(1 + size, dtype=torch.float64), None
    for chunk in chunks():
        device = chunk[0].device
        for piece in pieces(chunk):
            r = piece[0]
            sums += torch.stack([r.new_tensor(len(r)), *terms(*piece)]).cpu()
    examples, *rest = all_sum(sums, device).tolist()
    if examples != found.examples or not all(map(isfinite, rest)):
        raise ValueError(
            f"every call of chunks must give the same {found.examples} examples with the same "
            f"outputs; got {examples:.0f} in a later pass. Use eval mode and a fixed order."
        )
    return rest
