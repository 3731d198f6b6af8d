"""Regression trees as tensors: grown on the host by exact search, evaluated by gathering."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Tree", "apply_tree", "grow_tree"]

NUMBERS_AT_ONCE = 4_000_000  # in one table of candidate splits, 32 MB


@dataclass(frozen=True)
class Tree:
    """A complete binary tree; node ``i`` has the children ``2 i + 1`` and ``2 i + 2``.

    Attributes:
        feature: The feature that an inner node looks at, ``2 ** depth - 1`` of them.
        threshold: Larger values go to the second child; infinite where nothing is to be split.
        value: What a leaf predicts, ``2 ** depth`` of them; 0 where no example can arrive.
    """

    feature: Int[Tensor, " inner"]
    threshold: Float[Tensor, " inner"]
    value: Float[Tensor, "leaves outputs"]


def grow_tree(
    features: Float[Tensor, "examples features"],
    targets: Float[Tensor, "examples outputs"],
    *,
    depth: int,
    leaf: int,
    weights: Float[Tensor, " examples"] | None = None,
) -> Tree:
    r"""Grow a tree for all outputs at once, by the splits that lower the squared error most.

    A split of :math:`n` examples with the weighted sums :math:`S_1, S_2` of targets and the
    weights :math:`w_1, w_2` on its sides is as good as :math:`|S_1|^2 / w_1 + |S_2|^2 / w_2`.
    Between equals, the first feature and the smallest threshold are taken.

    Args:
        features: What to split on, on the CPU.
        targets: What to predict; the sums are made in its type, so give float64.
        depth: Splits on the longest way.
        leaf: Fewest examples of a leaf.
        weights: Weight of each example, by default 1.

    Returns:
        The tree; its values are weighted means. Thresholds are in the type of ``features``.

    Source:
        Breiman et al., Classification and Regression Trees, 1984.
    """
    inner, outputs = 2**depth - 1, targets.shape[1]
    if weights is None:
        weights = targets.new_ones(len(targets))
    feature = torch.zeros(inner, dtype=torch.int64)
    threshold = torch.full((inner,), torch.inf, dtype=features.dtype)
    value = targets.new_zeros(inner + 1, outputs)
    waiting = [(0, torch.arange(len(targets)))]
    while waiting:
        node, rows = waiting.pop()
        if node >= inner:
            w = weights[rows]
            value[node - inner] = w @ targets[rows] / w.sum().clamp(min=torch.finfo(w.dtype).tiny)
            continue
        split = best_split(features[rows], targets[rows], weights[rows], leaf)
        if split is None:
            waiting.append((2 * node + 1, rows))
            continue
        feature[node], threshold[node] = split
        is_above = features[rows, split[0]] > threshold[node]
        waiting += [(2 * node + 2, rows[is_above]), (2 * node + 1, rows[~is_above])]
    return Tree(feature, threshold, value)


def best_split(
    features: Float[Tensor, "examples features"],
    targets: Float[Tensor, "examples outputs"],
    weights: Float[Tensor, " examples"],
    leaf: int,
) -> tuple[int, Tensor] | None:
    """Find the feature and the threshold, None if no split lowers the squared error."""
    count = len(targets)
    if count < 2 * leaf:
        return None
    centered = (targets - weights @ targets / weights.sum()) * weights[:, None]
    size = max(1, NUMBERS_AT_ONCE // (count * targets.shape[1]))
    best_gain = 1e-12 * float(centered.square().sum())  # below this it is rounding
    best: tuple[int, int] | None = None
    for start in range(0, features.shape[1], size):
        ordered, order = features[:, start : start + size].sort(dim=0, stable=True)
        below = centered[order].cumsum(0)[leaf - 1 : count - leaf]  # sums to 0 over all examples
        weight = weights[order].cumsum(0)
        w, rest = weight[leaf - 1 : count - leaf], weight[-1] - weight[leaf - 1 : count - leaf]
        gain = below.square().sum(-1) * (1 / w + 1 / rest)
        is_apart = ordered[leaf - 1 : count - leaf] < ordered[leaf : count - leaf + 1]
        gain = torch.where(is_apart & (w > 0) & (rest > 0), gain, -torch.inf)
        highest, place = gain.max(0)
        column = int(highest.argmax())
        if highest[column] > best_gain:
            best_gain, best = float(highest[column]), (start + column, int(place[column]))
    if best is None:
        return None
    column, place = best
    low, high = features[:, column].sort().values[leaf - 1 + place : leaf + 1 + place]
    middle = low + (high - low) / 2
    return column, torch.where(middle < high, middle, low)  # neighbors have no number between


def apply_tree(
    tree: Tree, features: Float[Tensor, "examples features"]
) -> Float[Tensor, "examples outputs"]:
    """Predict.

    Args:
        tree: The tree, on the device of the features.
        features: As those that it was grown on.

    Returns:
        The value of each example's leaf.
    """
    inner = len(tree.feature)
    node = torch.zeros(len(features), dtype=torch.int64, device=features.device)
    for _ in range((inner + 1).bit_length() - 1):
        seen = features.gather(1, tree.feature[node, None]).squeeze(1)
        node = 2 * node + 1 + (seen > tree.threshold[node])
    return tree.value[node - inner]
