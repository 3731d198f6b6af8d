"""Which format holds or stores a weight: the smallest, the one measured fastest, or one named."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from time import perf_counter

import torch
from jaxtyping import Int8
from torch import Tensor, nn

from lowland.control.packing.formats import FORMATS, applicable, sizes
from lowland.control.packing.layers import PackedLinear
from lowland.control.packing.weight import PackedWeight

__all__ = ["Formats", "check_formats", "choose_format"]

Formats = str | Mapping[str, str]

RULES = ("size", "time", *FORMATS)
# Calls are timed in turns, and the fastest of each format counts: a busy machine only adds.
ROUNDS = 5
# Share of nonzero weights above which lists are not tried: they take 16 times as long as bits at
# 100 % (2048 x 2048, one example), so that both are even at 6 %.
LISTED = 0.25


def check_formats(formats: Formats, paths: Iterable[str]) -> None:
    """Refuse a choice that is none.

    Args:
        formats: What the user asked for.
        paths: Names of the layers.

    Raises:
        ValueError: If a rule is unknown, or a name meets no layer.
        TypeError: If a name is no text.
    """
    given = formats if isinstance(formats, Mapping) else {"*": formats}
    for rule in given.values():
        if rule not in RULES:
            raise ValueError(f"formats must be among {', '.join(RULES)}; got {rule!r}.")
    wrong = [name for name in given if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"formats must map names of layers to formats; got the name {wrong[0]!r}.")
    paths = list(paths)
    unmet = [name for name in given if not any(fnmatchcase(path, name) for path in paths)]
    if unmet and isinstance(formats, Mapping):
        raise ValueError(
            f"every name in formats must meet a packed layer; {unmet} met none of {paths}."
        )


def choose_format(
    signs: Int8[Tensor, "rows columns"],
    path: str,
    formats: Formats,
    layer: nn.Module,
    *,
    stored: bool = False,
) -> str:
    """Choose how a weight is held, or stored.

    Args:
        signs: -1, 0 and 1.
        path: Name of its layer.
        formats: A rule for all layers, or rules by name or pattern, of which the first that fits
            counts and ``"size"`` is taken where none does: ``"size"``, ``"time"`` or the name of
            a format.
        layer: What multiplies with it: ``"time"`` measures one example, or 64 pixels of a
            convolution.
        stored: In a file. What is held runs as it is, so it is entropy-coded only if asked by
            name; a file may always be.

    Returns:
        The name of a format.

    Raises:
        ValueError: If the format that was named cannot hold these signs.
    """
    rule = formats
    if isinstance(formats, Mapping):
        fitting = (value for name, value in formats.items() if fnmatchcase(path, name))
        rule = next(fitting, "size")
    fit = applicable(signs)
    found = fit if stored else tuple(name for name in fit if name != "gaps")
    if rule == "size":
        bytes_held = sizes(signs)
        return min(found, key=bytes_held.__getitem__)
    if rule == "time":
        is_dense = isinstance(layer, nn.Linear | nn.MultiheadAttention | PackedLinear)
        return fastest(signs, worth_timing(signs, found), 1 if is_dense else 64)
    if rule not in fit:
        raise ValueError(
            f"{path} can be held as {', '.join(fit)}; got {rule!r}. bit1 has no zeros, and "
            "sparse16 at most 65,536 columns."
        )
    return str(rule)


def worth_timing(signs: Tensor, formats: tuple[str, ...]) -> list[str]:
    """Leave out what cannot be the fastest, since to hold a weight in it takes time and memory."""
    kept = [name for name in formats if not (name == "bit2planes" and "bit1" in formats)]
    is_dense = int(signs.count_nonzero()) > LISTED * signs.numel()
    return [name for name in kept if not (is_dense and name == "sparse16")]


def fastest(signs: Tensor, formats: Iterable[str], examples: int) -> str:
    """Time a product in every format."""
    x = torch.ones(examples, signs.shape[1])
    held = {name: PackedWeight.of(signs, name) for name in formats}
    times = {name: float("inf") for name in held}
    for _ in range(ROUNDS):
        for name, weight in held.items():
            weight.multiply(x)  # else it pays for the caches that the format before has filled
            began = perf_counter()
            weight.multiply(x)
            times[name] = min(times[name], perf_counter() - began)
    return min(times, key=times.__getitem__)
