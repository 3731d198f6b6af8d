"""The arithmetic of a band: slide its pivots along the path, and take a step across it.

On a GPU, and for small bands, all pivots go together. A large band on a CPU goes pivot by pivot, so
that what one operation leaves in the cache the next one finds there, and no memory is asked for.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.path import places_of, wide_type

__all__ = ["descend", "slide"]

# Numbers of a band that a CPU handles together; from here on pivot by pivot is faster.
NUMBERS_AT_ONCE = 2**17


def goes_together(path: Float[Tensor, "pivots params"]) -> bool:
    """Whether all pivots are handled in one operation."""
    return path.device.type != "cpu" or path.numel() <= NUMBERS_AT_ONCE


def slide(
    path: Float[Tensor, "pivots params"],
    lengths: Float[Tensor, " segments"],
    weights: Float[Tensor, " segments"],
    *,
    out: Float[Tensor, "pivots params"],
) -> None:
    """Redistribute the interior pivots, as :func:`lowland.connectivity.redistribute` does.

    Args:
        path: Old pivots, ends included.
        lengths: Of its segments.
        weights: Share of each new segment.
        out: New pivots; its ends are left alone.
    """
    segment, alpha = places_of(lengths, weights)
    if goes_together(path):
        here, there = path.index_select(0, segment), path.index_select(0, segment + 1)
        torch.lerp(here, there, alpha.to(path.dtype).unsqueeze(1), out=out[1:-1])
        return
    old, new = path.unbind(), out[1:-1].unbind()
    for row, k, share in zip(new, segment.tolist(), alpha.tolist(), strict=True):
        torch.lerp(old[k], old[k + 1], share, out=row)


def descend(
    path: Float[Tensor, "pivots params"],
    grads: Float[Tensor, "interior params"],
    velocity: Float[Tensor, "interior params"],
    mix: Float[Tensor, "two interior"],
    removed: Float[Tensor, " interior"],
    pull: Float[Tensor, " interior"],
    *,
    learning_rate: float,
    momentum: float,
    force: Float[Tensor, " interior"] | None = None,
    out: Float[Tensor, "pivots params"],
) -> Float[Tensor, " segments"]:
    r"""Take an SGD step with momentum down what is left of the gradients.

    With the direction :math:`d_i = a_i (p_{i+1} - p_i) + b_i (p_i - p_{i-1})`, which needs no unit
    length, what is left is :math:`g_i - (r_i \, g_i \cdot d_i / |d_i|^2 + f_i / |d_i|) \, d_i`.

    Args:
        path: Pivots, ends included.
        grads: Gradients of the interior ones.
        velocity: Theirs; written.
        mix: Weights a and b, see :func:`lowland.connectivity.tangent.tangent_mix`.
        removed: How often r the part along the path is taken out; once for a nudged band.
        pull: Force f of the springs along the path.
        learning_rate: Step size.
        momentum: Without dampening.
        force: Is given the norm of what is left, if there.
        out: Pivots after the step; its ends are left alone.

    Returns:
        Lengths of the segments after the step.
    """
    each = together if goes_together(path) else one_by_one
    return each(path, grads, velocity, mix, removed, pull, learning_rate, momentum, force, out)


def together(
    path: Tensor,
    grads: Tensor,
    velocity: Tensor,
    mix: Tensor,
    removed: Tensor,
    pull: Tensor,
    learning_rate: float,
    momentum: float,
    force: Tensor | None,
    out: Tensor,
) -> Float[Tensor, " segments"]:
    """All pivots in every operation."""
    ahead, behind = mix.to(path.dtype).unsqueeze(2)
    differences = path[1:] - path[:-1]
    direction = (differences[1:] * ahead).addcmul_(differences[:-1], behind)
    squared = (direction * direction).sum(1)
    taken = removed * (grads * direction).sum(1) / squared + pull.to(path.dtype) * squared.rsqrt()
    taken = torch.where(squared > 0, taken, 0).unsqueeze(1)  # pivots may coincide
    if force is not None:
        force.copy_(torch.linalg.vector_norm(grads - taken * direction, dim=1))
    torch.add(grads, velocity, alpha=momentum, out=velocity).addcmul_(direction, taken, value=-1)
    torch.sub(path[1:-1], velocity, alpha=learning_rate, out=out[1:-1])
    differences = torch.sub(out[1:], out[:-1], out=differences)
    return differences.square_().sum(1, dtype=wide_type(path.device)).sqrt_()


def one_by_one(
    path: Tensor,
    grads: Tensor,
    velocity: Tensor,
    mix: Tensor,
    removed: Tensor,
    pull: Tensor,
    learning_rate: float,
    momentum: float,
    force: Tensor | None,
    out: Tensor,
) -> Float[Tensor, " segments"]:
    """Each operation on one pivot; numbers on the host."""
    old, new, room = path.unbind(), out.unbind(), torch.empty_like(path[0])
    squares, columns = [], zip(*mix.tolist(), removed.tolist(), pull.tolist(), strict=True)
    rows = zip(grads.unbind(), velocity.unbind(), columns, strict=True)
    for i, (grad, speed, (ahead, behind, often, spring)) in enumerate(rows, start=1):
        if ahead and behind:
            torch.sub(old[i + 1], old[i], out=room).mul_(ahead)
            room.add_(old[i], alpha=behind).sub_(old[i - 1], alpha=behind)
        else:  # only the direction matters, not the length
            torch.sub(old[i + bool(ahead)], old[i - bool(behind)], out=room)
        squared, taken = float(torch.dot(room, room)), 0.0
        if squared:  # pivots may coincide
            taken = often * float(torch.dot(grad, room)) / squared + spring / squared**0.5
        torch.add(grad, speed, alpha=momentum, out=speed).sub_(room, alpha=taken)
        if force is not None:
            force[i - 1] = torch.linalg.vector_norm(grad - taken * room)
        torch.sub(old[i], speed, alpha=learning_rate, out=new[i])
        torch.sub(new[i], new[i - 1], out=room)
        squares.append(torch.dot(room, room))
    torch.sub(new[-1], new[-2], out=room)
    squares.append(torch.dot(room, room))
    return torch.stack(squares).to(wide_type(path.device)).sqrt_()
