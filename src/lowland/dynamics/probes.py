"""Random starts of Lanczos: signs, drawn as their turn comes."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.lanczos import Tridiagonal, lanczos, most_steps, together
from lowland.dynamics.operators import Operator
from lowland.training import generator

__all__ = ["lanczos_of_probes", "probe_vectors"]

# Numbers that are drawn at once: the generator gives them as whole numbers of 64 bits.
CHUNK = 2**22


def probe_vectors(
    operator: Operator, probes: range | list[int], seed: int
) -> Float[Tensor, "probes params"]:
    """Draw vectors of plus and minus one; the same for a seed whatever the device.

    Args:
        operator: Decides size, dtype and device.
        probes: Numbers of the probes.
        seed: Seed of all of them.

    Returns:
        One row per probe.
    """
    found = torch.empty(len(probes), operator.size, dtype=operator.dtype, device=operator.device)
    for row, number in zip(found, probes, strict=True):
        draws = generator(seed, "probe", number)
        for part in row.split(CHUNK):
            part.copy_(torch.randint(0, 2, part.shape, generator=draws))
    return found.mul_(2).sub_(1)


def lanczos_of_probes(
    operator: Operator,
    probes: int,
    steps: int,
    *,
    seed: int,
    max_steps: int | None = None,
    until: Callable[[Tridiagonal], bool] | None = None,
    max_bytes: int = 2**31,
) -> list[Tridiagonal]:
    """Take the steps of :func:`lanczos` from some probes, drawn as their turn comes.

    Args:
        operator: A symmetric operator.
        probes: How many, at least one.
        steps: As for :func:`lanczos`.
        seed: Of the probes.
        max_steps: As for :func:`lanczos`.
        until: Likewise.
        max_bytes: Likewise.

    Returns:
        One matrix per probe.
    """
    group = together(operator, most_steps(operator, steps, max_steps), max_bytes)[0]
    found: list[Tridiagonal] = []
    for first in range(0, probes, group):
        starts = probe_vectors(operator, range(first, min(first + group, probes)), seed)
        found += lanczos(
            operator, starts, steps, max_steps=max_steps, until=until, max_bytes=max_bytes
        )
    return found
