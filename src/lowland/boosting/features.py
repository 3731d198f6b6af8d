"""Read a data set once as it enters a chain, and decide where its features are kept."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.boosting.cached import Builder, CachedFeatures
from lowland.boosting.feature_set import Features
from lowland.boosting.reading import Fingerprints, check_labels, one_pass
from lowland.boosting.recomputed import RecomputedFeatures
from lowland.boosting.storage import PLACES
from lowland.errors import FallbackWarning, NoEffectWarning
from lowland.training import as_pair, check_batches, kept_mode, to_device
from lowland.training.memory import free_bytes, free_disk

__all__ = ["Features", "read_features"]

LARGEST_CHUNK = 500  # examples that go through a part at a time, however large batches are
CACHES = ("auto", *PLACES, "recompute")
DTYPES = {
    None: None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def read_features(
    batches: Any,
    values_of: Callable[[Any], tuple[Tensor, ...]],
    *,
    device: torch.device,
    cache: str = "auto",
    views: int | None = None,
    dtype: str | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    sample_weights: Any = None,
    parts: Sequence[nn.Module] = (),
    classes: int | None = None,
) -> Features:
    """Read a data set as it enters a chain of parts.

    The batches are read twice with different random numbers, and each example is fingerprinted:
    data that is the same in both passes can be kept, random data (augmentation, sampling with
    replacement, a last batch that is left out of a shuffled set) cannot. The user's generators are
    left as they were.

    ``"auto"`` wants room for twice the largest layer among ``parts``, as two are there while a
    part is frozen, in half of the memory that is free: on the device, else on the host, else on
    disk, else nothing is kept.

    Args:
        batches: Re-iterable of ``(inputs, target)``, the target one class for each example.
        values_of: From a batch's inputs to what enters the first part, a tuple of tensors with
            the batch as first axis.
        device: Where values are handed out.
        cache: ``"auto"``, ``"device"``, ``"host"``, ``"disk"`` or ``"recompute"``.
        views: Versions of each example to keep where data is random: so many passes are read. None
            never keeps random data.
        dtype: What floating-point features are kept as: ``"float32"``, ``"bfloat16"``,
            ``"float16"``; None keeps what the parts compute.
        folder: For ``"disk"``; None takes the system's folder for temporary files.
        seed: Decides what is random in reading.
        sample_weights: A weight for each example, in the order of the batches, or None.
        parts: What the features will go through; only to know their largest size.
        classes: Number of classes C that the model tells apart; None counts those of the data.

    Returns:
        The features.

    Raises:
        ValueError: If an argument is not what it must be, the labels are not classes, or weights
            come with data that has no stable order.
        FloatingPointError: If a value is not finite.

    Source:
        Ours, specification section 3.5.
    """
    check_arguments(batches, cache, views, dtype)
    again, first = Fingerprints(), None
    for batch in one_pass(batches, seed, "features", "again", epoch=1):
        again.add(batch)
        first = batch if first is None else first
    if first is None or not again.count:
        raise ValueError("batches must hold at least one example; got none. Is the loader empty?")
    largest = row_bytes(first, values_of, parts, device, DTYPES[dtype])
    needed = 2 * largest * again.count * (views or 1)
    place, reason = choose(cache, needed, device, folder)
    if len(again.shapes) > 1 and place != "recompute":
        place, reason = "recompute", "examples differ in shape from batch to batch"
        warn(f"features are recomputed for every batch, as {reason}. Pad all to one length.")
    plan = Reading(batches, values_of, device, seed, place, DTYPES[dtype], folder, again)
    seen, features = read(plan, 1)
    is_random = not seen.has_same_examples(again)
    is_stable = seen.has_same_order(again)
    check_labels(seen.target, int(seen.target.max()) + 1 if classes is None else classes)
    weights = checked_weights(sample_weights, seen.count, is_stable)
    if features is not None and is_random and views is None:
        reason, features = "two passes over the data give different examples", None
        warn(
            f"features are recomputed for every batch, as {reason} (augmentation, or a loader "
            "that leaves some out). Pass views=R to keep R versions of each."
        )
    if views is not None and views > 1:
        if place == "recompute" or not is_random:
            why = reason if place == "recompute" else "two passes over the data are the same"
            warn(f"views={views} has no effect, as {why}.", NoEffectWarning)
        else:
            features = None  # let go before there is room for all views
            features = read(plan, views)[1]
    if features is None:
        features = RecomputedFeatures(
            batches, values_of, seen.target, reason, device=device, seed=seed
        )
    features.weights = None if weights is None else weights.to(device)
    features.is_random, features.is_stable = is_random, is_stable
    return features


@dataclass(frozen=True)
class Reading:
    """What is read, where it goes, and what a pass looks like."""

    batches: Any
    values_of: Callable[[Any], tuple[Tensor, ...]]
    device: torch.device
    seed: int
    place: str
    dtype: torch.dtype | None
    folder: str | Path | None
    before: Fingerprints


@torch.no_grad()
def read(plan: Reading, views: int) -> tuple[Fingerprints, CachedFeatures | None]:
    """Read some passes; keep them if that was planned and they have the length that was."""
    count, chunk = plan.before.count, min(plan.before.largest, LARGEST_CHUNK)
    features = CachedFeatures(
        plan.place,
        plan.device,
        views=views,
        chunk=chunk,
        dtype=plan.dtype,
        folder=plan.folder,
    )
    builder, passes = Builder(features, count * views), []
    for view in range(views):
        passes.append(Fingerprints())
        for batch in one_pass(plan.batches, plan.seed, "features", view, epoch=view):
            passes[-1].add(batch)
            if plan.place != "recompute" and passes[-1].count <= count:
                inputs, target = to_device(as_pair(batch), plan.device)
                builder.add(checked_values(plan.values_of(inputs), len(target)))
    if any(seen.count != count for seen in passes):
        if views == 1:
            return passes[0], None
        raise ValueError(
            "every pass must hold the same number of examples to keep views of them; got "
            f"{[seen.count for seen in passes]} after {count}. Keep the last batch of the loader "
            "(drop_last=False), or leave views out."
        )
    if plan.place == "recompute":
        return passes[0], None
    features.fill(torch.cat([seen.target for seen in passes]), builder.stores("at the input"))
    return passes[0], features


def checked_values(values: Any, count: int) -> tuple[Tensor, ...]:
    """Refuse what is no tuple of tensors with the batch as first axis."""
    if not isinstance(values, tuple) or not all(isinstance(value, Tensor) for value in values):
        raise ValueError(
            f"what enters the chain must be a tuple of tensors; got a {type(values).__name__}."
        )
    for value in values:
        if value.ndim == 0 or len(value) != count:
            raise ValueError(
                f"what enters the chain must have the batch, {count} examples, as first axis; got "
                f"shape {tuple(value.shape)}."
            )
    return values


@torch.no_grad()
def row_bytes(
    batch: Any,
    values_of: Callable[[Any], tuple[Tensor, ...]],
    parts: Sequence[nn.Module],
    device: torch.device,
    dtype: torch.dtype | None,
) -> int:
    """Find the bytes of one example in the largest layer, by sending one batch through all."""
    inputs, target = to_device(as_pair(batch), device)
    values = tuple(value.clone() for value in checked_values(values_of(inputs), len(target)))
    sizes = [kept_bytes(values, dtype)]
    for part in parts:
        with kept_mode(part):
            part.eval()
            values = part(*values)
        sizes.append(kept_bytes(values, dtype))
    return -(-max(sizes) // len(target))


def kept_bytes(values: tuple[Tensor, ...], dtype: torch.dtype | None) -> int:
    """Count the bytes of values as they would be kept."""
    kinds = [dtype if dtype and value.is_floating_point() else value.dtype for value in values]
    return sum(value.numel() * kind.itemsize for value, kind in zip(values, kinds, strict=True))


def choose(
    cache: str, needed: int, device: torch.device, folder: str | Path | None
) -> tuple[str, str]:
    """Choose a place, and say why where nothing is kept."""
    if cache != "auto":
        return cache, "cache is 'recompute'"
    if 2 * needed <= free_bytes(device):
        return "device", ""
    if device.type != "cpu" and 2 * needed <= free_bytes(torch.device("cpu")):
        return "host", ""
    room = free_disk(folder)
    if 2 * needed <= room:
        return "disk", ""
    reason = (
        f"two layers need {needed / 2**30:.1f} GiB, more than half of what is free in memory and "
        f"on disk ({room / 2**30:.1f} GiB)"
    )
    warn(f"features are recomputed for every batch, as {reason}. Pass a folder on a larger disk.")
    return "recompute", reason


def checked_weights(weights: Any, count: int, is_stable: bool) -> Float[Tensor, " examples"] | None:
    """Refuse weights that are none, or that nobody can tell the examples of."""
    if weights is None:
        return None
    weights = torch.as_tensor(weights).detach()
    if not weights.is_floating_point():
        weights = weights.double()
    if weights.shape != (count,):
        raise ValueError(
            f"sample_weights must have shape ({count},), one for each example; got "
            f"{tuple(weights.shape)}."
        )
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
        raise ValueError("sample_weights must be finite, not negative and not all zero.")
    if not is_stable:
        raise ValueError(
            "sample_weights need a stable index: examples must come in the same order in every "
            "pass; got batches that shuffle. Pass shuffle=False, the features are shuffled here."
        )
    return weights


def check_arguments(batches: Any, cache: str, views: int | None, dtype: str | None) -> None:
    """Refuse arguments that are not among the known ones."""
    check_batches(batches)
    if cache not in CACHES:
        raise ValueError(f"cache must be one of {CACHES}; got {cache!r}.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {tuple(DTYPES)}; got {dtype!r}.")
    if views is not None and views < 1:
        raise ValueError(f"views must be at least 1, or None; got {views}.")


def warn(message: str, kind: type[Warning] = FallbackWarning) -> None:
    """Tell the user, at the line that called the library."""
    warnings.warn(message, kind, stacklevel=3)
