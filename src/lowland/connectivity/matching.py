"""Which unit of one network is which of another: assignment problems, solved in turns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lowland.connectivity.permutations import Permutations, Symmetry, compose

__all__ = ["Pairs", "Similarity", "allowed", "assign", "match"]

# A change must gain this share of what could be gained at most, so that rounding moves nothing.
GAIN = 1e-10


@dataclass
class Pairs:
    """How alike the units of two networks are, pair by pair.

    Attributes:
        whole: Of the units of a label, shape ``(units, units)``: what does not depend on how the
            units within them are permuted.
        inside: For each label within it, of units in blocks, shape ``(blocks, units, blocks,
            units)``.
    """

    whole: Float[Tensor, "units units"]
    inside: dict[int, Tensor]


class Similarity(Protocol):
    """What a matching is to make large."""

    def pairs(self, root: int, permutations: Permutations) -> Pairs:
        """How alike units are, if all other units are permuted as given."""
        ...

    def total(self, permutations: Permutations, roots: set[int]) -> tuple[float, float]:
        """The part of the objective that depends on some labels, and a bound on its size."""
        ...

    def neighbors(self, root: int) -> set[int]:
        """Roots whose pairs change if this one is permuted, perhaps itself."""
        ...


def assign(pairs: Pairs) -> tuple[Int[Tensor, " units"], dict[int, Tensor]]:
    """Find the permutation of greatest similarity.

    Args:
        pairs: How alike units are.

    Returns:
        The unit that comes to each place, and for each label within, for each place, the inner
        unit that comes to each inner place, shape ``(units, inner)``.

    Source:
        Kuhn, 1955; blocks first each within itself for every pair of blocks, then as wholes: ours.
    """
    total = pairs.whole.numpy().copy()
    inner = {}
    for label, values in pairs.inside.items():
        blocks, size = values.shape[:2]
        choices = np.empty((blocks, blocks, size), dtype=np.int64)
        for one in range(blocks):
            for other in range(blocks):
                part = values[one, :, other].numpy()
                rows, columns = linear_sum_assignment(part, maximize=True)
                total[one, other] += part[rows, columns].sum()
                choices[one, other] = columns
        inner[label] = choices
    rows, columns = linear_sum_assignment(total, maximize=True)
    return torch.from_numpy(columns), {
        label: torch.from_numpy(choices[rows, columns]) for label, choices in inner.items()
    }


def allowed(pairs: Pairs, forbidden: Pairs) -> Pairs:
    """Make forbidden pairs so bad that none is chosen; that no unit moves is always allowed.

    Args:
        pairs: How alike units are.
        forbidden: Positive numbers at pairs that must not be matched.

    Returns:
        How alike they count.
    """
    every = [pairs.whole, *pairs.inside.values()]
    bad = 1 + 2 * sum(float(p.abs().max()) for p in every) * pairs.whole.numel()
    return Pairs(
        pairs.whole - bad * forbidden.whole,
        {label: values - bad * forbidden.inside[label] for label, values in pairs.inside.items()},
    )


def match(
    symmetry: Symmetry,
    similarity_of: Callable[[int], Similarity],
    begin: Permutations,
    forbidden: Callable[[int], Pairs],
    *,
    passes: int,
    generator: torch.Generator,
    on_pass: Callable[[], None] = lambda: None,
) -> tuple[dict[int, Int[Tensor, "..."]], int, bool]:
    """Permute group after group, each to its best place beside the others, until none moves.

    Args:
        symmetry: What may be permuted.
        similarity_of: From a label to what its matching is to make large.
        begin: Permutations to begin with.
        forbidden: For a label, positive numbers at pairs of units that must not be matched.
        passes: Passes over all groups at most.
        generator: Decides the order of the groups in every pass.
        on_pass: Called after every pass.

    Returns:
        The permutations, the number of passes, and whether none of the groups moved in the last.

    Source:
        Ainsworth et al., ICLR 2023 (Git Re-Basin), Algorithm 1.
    """
    found, roots = dict(begin), symmetry.roots
    waiting = set(roots)
    for number in range(1, passes + 1):
        for at in torch.randperm(len(roots), generator=generator).tolist():
            root = roots[at]
            if root not in waiting:
                continue
            waiting.discard(root)
            similarity = similarity_of(root)
            whole, inner = assign(allowed(similarity.pairs(root, found), forbidden(root)))
            tried = compose(symmetry, found, {root: whole, **inner})
            after, bound = similarity.total(tried, {root})
            if after - similarity.total(found, {root})[0] > GAIN * bound:
                found = tried
                waiting |= similarity.neighbors(root)
        on_pass()
        if not waiting:
            return found, number, True
    return found, passes, False
