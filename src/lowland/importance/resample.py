"""Choose the examples worth a backward pass, and weigh them so the gradient stays unbiased."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from lowland.training.floats import wide_type

__all__ = ["check_options", "draw", "focus", "merge"]

SCHEMES = ("systematic", "multinomial", "residual")


def draw(
    scores: Float[Tensor, " pool"],
    size: int,
    scheme: str = "systematic",
    generator: Generator | None = None,
    *,
    mixing: float = 0.0,
) -> tuple[Int[Tensor, " size"], Float[Tensor, " size"]]:
    r"""Draw examples in proportion to their scores, with the weights that undo the bias.

    With :math:`p_i \propto s_i` over a pool of :math:`B` examples, the weight
    :math:`w_i = 1 / (B p_i)` makes :math:`\tfrac1b \sum_j w_j g_j` an unbiased estimate of the
    pool mean of any per-example quantity. In every scheme example i is drawn :math:`b p_i` times
    on average:

    - ``"systematic"``: equally spaced points with one random shift over a random order of the
      pool; the count differs from :math:`b p_i` by less than 1, so the variance is smallest;
    - ``"multinomial"``: independent draws, as in the paper;
    - ``"residual"``: :math:`\lfloor b p_i \rfloor` times for certain, independent draws of the
      rest.

    Args:
        scores: Importance of each example of the pool; non-negative, any scale.
        size: Number of draws b.
        scheme: One of the above.
        generator: Source of randomness; None takes fresh randomness, not the global generator's.
        mixing: Share of uniform probability mixed in; it keeps weights below ``1 / mixing``.

    Returns:
        Positions in the pool, with repetitions, and the weight of each.

    Raises:
        ValueError: If a score is negative or not finite, if all are zero, or an argument is out of
            range.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.1; Douc, Cappe & Moulines, 2005, for the
        schemes.
    """
    check(scores, size, scheme, mixing)
    if generator is None:
        generator = Generator()
        generator.seed()
    p = scores.detach().to(wide_type(scores.device))
    p = p / p.max()  # the sum of very large scores has no number
    p = p / p.sum()
    if mixing:
        p = (1 - mixing) * p + mixing / len(p)
    index = positions(p, size, scheme, generator)
    weight = 1 / (len(p) * p[index])
    return index, weight.to(torch.promote_types(scores.dtype, torch.float32))


def positions(p: Tensor, size: int, scheme: str, generator: Generator) -> Tensor:
    """Draw from probabilities."""
    if scheme == "multinomial":
        return invert(p, random(size, p, generator))
    if scheme == "residual":
        counts = (size * p + 1e-12).floor()  # a product that is whole but for rounding is whole
        certain = torch.repeat_interleave(counts.long())
        left = size - len(certain)
        if left <= 0:
            return certain[:size]
        rest = (size * p - counts).clamp(min=0)
        return torch.cat([certain, invert(rest / rest.sum(), random(left, p, generator))])
    order = torch.randperm(len(p), generator=generator, device=generator.device).to(p.device)
    steps = torch.arange(size, dtype=p.dtype, device=p.device)
    return order[invert(p[order], (steps + random(1, p, generator)) / size)]


def random(count: int, like: Tensor, generator: Generator) -> Tensor:
    """Uniform numbers, drawn where the generator lives."""
    numbers = torch.rand(count, generator=generator, dtype=like.dtype, device=generator.device)
    return numbers.to(like.device)


def invert(p: Tensor, u: Tensor) -> Tensor:
    """Find the example in whose part of the unit interval each number falls."""
    edges = p.cumsum(0)
    edges = edges / edges[-1]  # ends at 1 exactly, so that nobody of probability 0 is found
    last = 1 - torch.finfo(u.dtype).eps
    return torch.searchsorted(edges, u.clamp(max=last), right=True)


def check(scores: Tensor, size: int, scheme: str, mixing: float) -> None:
    """Refuse what cannot be drawn from."""
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores must have shape (pool,); got {tuple(scores.shape)}.")
    if size < 1:
        raise ValueError(f"size must be at least 1 draw; got {size}.")
    check_options(scheme, mixing)
    good = scores.isfinite() & (scores >= 0)
    if not good.all():
        first = int((~good).nonzero()[0])
        raise ValueError(
            f"scores must be finite and not negative; got {scores[first].item()} at index {first}."
        )
    if not scores.any():
        raise ValueError(
            "scores must not all be zero; got zeros. Every example is learned: draw uniformly."
        )


def check_options(scheme: str, mixing: float) -> None:
    """Refuse unknown schemes and shares that are none.

    Args:
        scheme: Of :func:`draw`.
        mixing: Likewise.

    Raises:
        ValueError: If one of them is wrong.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {SCHEMES}; got {scheme!r}.")
    if not 0 <= mixing < 1:
        raise ValueError(f"mixing must lie in [0, 1); got {mixing}.")


def merge(
    index: Int[Tensor, " size"], weight: Float[Tensor, " size"]
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Put repeated draws together: fewer rows, the same weighted sum.

    Args:
        index: Positions in the pool, as drawn.
        weight: Their weights.

    Returns:
        Each position once, in rising order, and the sum of its weights. The batch loss is still
        divided by the number of draws.

    Source:
        Ours: the weighted sum over draws, grouped by example.
    """
    rows, place = index.unique(return_inverse=True)
    return rows, weight.new_zeros(len(rows)).index_add_(0, place, weight)


def focus(
    weight: Float[Tensor, " draws"], score: Float[Tensor, " draws"], power: float
) -> Float[Tensor, " draws"]:
    r"""Trade unbiasedness for attention to hard examples, as an earlier paper did.

    Weights :math:`w^k`, rescaled so that :math:`\sum_j w_j s_j` over the batch is unchanged.

    Args:
        weight: Weights of the drawn examples.
        score: Their scores.
        power: k; 1 changes nothing, less than 1 is biased towards hard examples.

    Returns:
        New weights.

    Source:
        Katharopoulos & Fleuret, 2017, arXiv 1706.00043.
    """
    if power == 1:
        return weight
    powered = weight**power
    total = (powered * score).sum()  # 0 where only uniform probability chose
    return torch.where(total > 0, powered * ((weight * score).sum() / total), weight)
