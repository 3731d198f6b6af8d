"""Which pair of minima to try next, so that few paths find the best spanning tree.

A pair that was begun and not finished needs no engine of its own: the same knowledge gives the same
suggestion again, and its search goes on where it was.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lowland.connectivity.graph import Pair, components, spanning_tree

__all__ = ["BEGUN", "RULES", "Known", "known_rule", "suggest_pair"]

# A path that could be lower by less than this share of a saddle is not worth a search.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True, eq=False)
class Known:
    """What is known when the next pair is chosen.

    Attributes:
        saddles: Saddle of every pair, infinite where no path is known; losses of the minima on the
            diagonal.
        tried: Pairs that need not be suggested again, those under way included; symmetric.
        under_way: Pairs whose search has begun and whose saddle is not known yet.
        early: Saddle of every pair after its first cycle; only the rules of ``BEGUN`` need it.
    """

    saddles: Float[Tensor, "minima minima"]
    tried: Bool[Tensor, "minima minima"]
    under_way: tuple[Pair, ...] = ()
    early: Float[Tensor, "minima minima"] | None = None

    @property
    def losses(self) -> Float[Tensor, " minima"]:
        """Loss of every minimum."""
        return self.saddles.diagonal()

    def by_loss(self, group: tuple[int, ...] | range) -> list[int]:
        """Sort minima from the lowest loss to the highest, equal ones by number."""
        return sorted(group, key=lambda k: (float(self.losses[k]), k))

    def begun(self) -> Tensor:
        """Early saddles; refused where nobody has looked at the first cycles."""
        if self.early is None:
            raise ValueError(
                "this rule needs the saddle of every pair after its first cycle; got none. Pass "
                "Known(early=...), or take another rule."
            )
        return self.early

    def untried(self, a: int, b: int) -> bool:
        """Whether a pair may be suggested."""
        return not self.tried[a, b]


def suggest_pair(rule: str, known: Known) -> Pair | None:
    """Ask the engines of a rule one after the other.

    Args:
        rule: A name of ``RULES``.
        known: What is known so far.

    Returns:
        A pair ``(a, b)``, ``a < b``, or None where the rule expects nothing from any other path.

    Raises:
        ValueError: If there is no such rule, or it needs early saddles and there are none.
    """
    known_rule(rule)
    for engine in RULES[rule]:
        pair = engine(known)
        if pair is not None:
            return min(pair), max(pair)
    return None


def known_rule(rule: str) -> str:
    """Refuse a rule that is none."""
    if rule not in [*RULES]:
        raise ValueError(f"suggest must be one of {', '.join(map(repr, RULES))}; got {rule!r}.")
    return rule


def disconnected(known: Known) -> Pair | None:
    """Join the lowest minimum to the lowest one that no chain of paths leads to: a star at first.

    Args:
        known: What is known so far.

    Returns:
        A pair; None once all are joined, or could not be.

    Source:
        Draxler et al., ICML 2018, Algorithm 3. The star's center is the lowest minimum, as in the
        published code; the paper takes the first.
    """
    joins = known.saddles.isfinite()
    for a, b in known.under_way:
        joins[a, b] = True
    groups = components(joins)
    order = known.by_loss(range(len(joins)))
    home = next(group for group in groups if order[0] in group)
    across = ((a, b) for b in order if b not in home for a in known.by_loss(home))
    return next((pair for pair in across if known.untried(*pair)), None)


def tree(known: Known) -> Pair | None:
    """Look for a way round the highest edge of the spanning tree, then round the next.

    Without an edge the tree falls apart into two groups of minima; the first untried pair between
    them is suggested, both sides from the lowest loss on. An edge that is replaced, or cannot be,
    is thereby done with: the tree is built anew from everything known.

    Args:
        known: What is known so far.

    Returns:
        A pair; None if all are tried.

    Source:
        Draxler et al., ICML 2018, Algorithm 3.
    """
    return next((pair for _, cut in across_the_tree(known) for pair in cut), None)


def bounded(known: Known) -> Pair | None:
    """Do as :func:`tree`, but leave out pairs that cannot be lower than the edge they go round.

    No path is lower than its higher end, so a pair of which one end lies at the saddle already
    changes nothing. Where every edge of the tree is as low as its ends allow, the search is over.

    Args:
        known: What is known so far.

    Returns:
        A pair; None if no other path can lower a saddle of the tree.

    Source:
        Ours.
    """
    return next((pair for cut in worthwhile(known) for pair in cut), None)


def worthwhile(known: Known) -> Iterator[list[Pair]]:
    """For every edge of the tree the pairs that could be lower, the highest edge first."""
    for saddle, cut in across_the_tree(known):
        least = saddle * (1 - NEGLIGIBLE)
        yield [(a, b) for a, b in cut if max(known.losses[a], known.losses[b]) < least]


def early_tree(known: Known) -> Pair | None:
    """Finish the spanning tree of what the first cycle of every pair has shown.

    Args:
        known: What is known so far, with early saddles.

    Returns:
        A pair; None once all of that tree are tried.

    Source:
        Ours, after successive halving: Jamieson & Talwalkar, AISTATS 2016.
    """
    return next((pair for pair in spanning_tree(known.begun()) if known.untried(*pair)), None)


def early_cut(known: Known) -> Pair | None:
    """Do as :func:`bounded`, but of the ways round an edge take that of the lowest early saddle.

    Args:
        known: What is known so far, with early saddles.

    Returns:
        A pair; None if no other path can lower a saddle of the tree.

    Source:
        Ours.
    """
    early, cut = known.begun(), next(filter(None, worthwhile(known)), [])
    return min(cut, key=lambda pair: float(early[pair]), default=None)


def across_the_tree(known: Known) -> Iterator[tuple[float, list[Pair]]]:
    """Saddle of every edge of the tree, the highest first, and the untried pairs round it."""
    edges = spanning_tree(known.saddles)
    for edge in reversed(edges):
        joins = torch.zeros_like(known.tried)
        for a, b in edges:
            joins[a, b] = (a, b) != edge
        groups = components(joins)
        sides = [next(g for g in groups if end in g) for end in edge]
        left, right = sorted(
            map(known.by_loss, sides), key=lambda side: float(known.losses[side[0]])
        )
        round_it = [(a, b) for a in left for b in right if known.untried(a, b)]
        yield float(known.saddles[edge]), round_it


def lowest(known: Known) -> Pair | None:
    """Try all pairs, those of low minima first.

    Args:
        known: What is known so far.

    Returns:
        The untried pair whose higher end is lowest; None if all are tried.

    Source:
        The published code's order for all pairs.
    """
    order = known.by_loss(range(len(known.losses)))
    pairs = ((a, b) for i, b in enumerate(order) for a in order[:i])
    return next((pair for pair in pairs if known.untried(*pair)), None)


RULES: dict[str, tuple[Callable[[Known], Pair | None], ...]] = {
    "paper": (disconnected, tree),
    "bounded": (disconnected, bounded),
    "early": (early_tree, disconnected, early_cut),
    "lowest": (lowest,),
}

# Rules that look at the first cycle of every pair before they choose.
BEGUN = ("early",)
