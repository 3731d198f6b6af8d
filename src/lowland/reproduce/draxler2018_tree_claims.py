"""Claims of Draxler et al. 2018 on many minima and many architectures, and on curvature."""

from collections.abc import Sequence

from lowland.reproduce.runs import Runs
from lowland.reproduce.verdicts import claim
from lowland.results import Claim

__all__ = ["low_high", "tree_bounds", "vanishing_eigenvalue", "wider_and_deeper"]


def wider_and_deeper(sizes: Sequence[Sequence[str]], landscapes: Runs) -> Claim:
    """C3: larger networks have lower saddles."""
    saddle = {one["model"]: one["tree_saddle"] for one in landscapes}
    chains = [[name for name in chain if name in saddle] for chain in sizes]
    chains = [chain for chain in chains if len(chain) > 1]
    ratios = tuple(saddle[chain[-1]] / saddle[chain[0]] for chain in chains)
    seen = "; ".join(", ".join(f"{name} {saddle[name]:.3g}" for name in chain) for chain in chains)
    return claim(
        "C3",
        "Wider and deeper networks have lower saddles.",
        "0.61 (CNN-96 / CNN-12), 0.27 (CNN-48x3 / CNN-48), CIFAR-10; not monotone: "
        "ResNet-56 lies above ResNet-44",
        "mean saddle of the tree of the largest network < that of the smallest, for every row",
        ratios,
        "saddle of the largest / smallest network",
        [ratio < 1 for ratio in ratios],
        f"Mean saddles in nats: {seen}." if seen else "",
        "minima that were not trained far enough to tell the sizes apart.",
    )


def tree_bounds(landscapes: Runs) -> Claim:
    """C7: the spanning tree bounds every barrier, and bad paths are replaced."""
    trees = [one for one in landscapes if len(one["losses"]) > 2 and one["star_saddle"]]
    ratios = tuple(one["tree_saddle"] / one["star_saddle"] for one in trees)
    bounded = [
        all(
            one["minimax"][a][b] is not None and one["minimax"][a][b] <= saddle
            for (a, b), saddle in zip(one["tried"], one["saddles"], strict=True)
        )
        for one in trees
    ]
    whole = [all(bound is not None for row in one["minimax"] for bound in row) for one in trees]
    truths = [r <= 1 and b and w for r, b, w in zip(ratios, bounded, whole, strict=True)]
    counts = "; ".join(
        f"{one['model']}: {len(one['tried'])} of "
        f"{len(one['losses']) * (len(one['losses']) - 1) // 2} pairs tried"
        for one in trees
    )
    return claim(
        "C7",
        "The minimum spanning tree of saddles bounds the barrier between every two minima.",
        "text and Algorithm 3",
        "mean saddle of the tree ≤ that of the star around the lowest minimum; every pair has a "
        "bound, and none lies above a path that was found",
        ratios,
        "mean saddle of the tree / star",
        truths,
        f"{counts}." if counts else "",
        "a mistake in our graph: the rule holds by construction.",
    )


def vanishing_eigenvalue(curvature: Runs) -> Claim:
    """C9: the path leaves its minima where the loss is flat."""
    ends = [end for one in curvature for end in one["ends"]]
    ratios = tuple(end["tangent"] / end["chord"] for end in ends)
    note = ""
    if ends:
        note = (
            "In units of the largest eigenvalue, without trivial directions: tangents "
            f"{low_high([end['tangent'] for end in ends])}, chords "
            f"{low_high([end['chord'] for end in ends])}, random directions "
            f"{low_high([end['random'] for end in ends])}."
        )
    return claim(
        "C9",
        "Every minimum has a direction of vanishing curvature besides the trivial ones.",
        "version 1 of the preprint; version 5 only says that low eigenvalues exist",
        "Rayleigh quotient of the path's tangent at the minimum ≤ 0.1 x that of the chord",
        ratios,
        "tangent / chord",
        [ratio <= 0.1 for ratio in ratios],
        note,
        "ends that are no minima yet, or a first pivot that is far away.",
    )


def low_high(values: Sequence[float]) -> str:
    """A range in three digits.

    Args:
        values: Any numbers.

    Returns:
        One number, or two with "to" between them.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
