"""Everything random inside a block repeats, and the user's generators are left as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lowland.seeds import generator, seed_from

__all__ = ["generator", "isolated_rng", "rng_states", "seed_from", "set_rng_states"]


@contextmanager
def isolated_rng(
    seed: int, *labels: int | str, batches: Any = None, epoch: int = 0
) -> Iterator[None]:
    """Make everything random inside a block repeat, and nothing outside of it change.

    Dropout, a shuffling ``DataLoader`` and a user's augmentation draw from global generators.
    Inside the block those of torch (CPU, and accelerators in use), Python and NumPy are seeded
    from ``seed`` and ``labels``; on exit they are put back as they were. Random transforms in a
    ``DataLoader`` with ``persistent_workers=True`` are out of reach.

    Args:
        seed: The seed of the run.
        *labels: What the block is; see :func:`seed_from`.
        batches: Batches read inside the block. If they, or their sampler, hold a ``generator`` or
            know ``set_epoch``, these are set too, and put back.
        epoch: Given to ``set_epoch``.

    Yields:
        Nothing.
    """
    parts = parts_of(batches)
    generators = [part.generator for part in parts if has_generator(part)]
    counters = [part for part in parts if callable(getattr(part, "set_epoch", None))]
    before = rng_states()
    states = [source.get_state() for source in generators]
    epochs = [getattr(part, "epoch", None) for part in counters]
    seed_everything(seed_from(seed, *labels), generators)
    try:
        for part in counters:
            part.set_epoch(epoch)
        yield
    finally:
        set_rng_states(before)
        for source, state in zip(generators, states, strict=True):
            source.set_state(state)
        for part, old in zip(counters, epochs, strict=True):
            if isinstance(old, int):
                part.set_epoch(old)


def parts_of(batches: Any) -> list[Any]:
    """List the objects that may decide the order of batches: a ``DataLoader`` has several."""
    batch_sampler = getattr(batches, "batch_sampler", None)
    parts = [
        batches,
        getattr(batches, "dataset", None),
        getattr(batches, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    ]
    return list({id(part): part for part in parts if part is not None}.values())


def has_generator(part: Any) -> bool:
    """Tell whether an object carries its own generator."""
    return isinstance(getattr(part, "generator", None), torch.Generator)


def seed_everything(seed: int, generators: list[torch.Generator]) -> None:
    """Seed the global generators and the given ones; accelerators only if they are in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (users' transforms draw from it)
    for source in generators:
        source.manual_seed(seed)


def rng_states() -> dict[str, Any]:
    """Copy the states of the global generators.

    Returns:
        States of torch (CPU, and accelerators in use), Python and NumPy, in types that
        ``torch.load(..., weights_only=True)`` reads.
    """
    state: Any = np.random.get_state()  # noqa: NPY002
    name, keys, *rest = state
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
    }


def set_rng_states(states: dict[str, Any]) -> None:
    """Put the global generators into states copied by :func:`rng_states`.

    Args:
        states: The states; those of accelerators that are not here are left out.
    """
    torch.set_rng_state(states["torch"])
    for index, state in enumerate(states["cuda"]):
        if index < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, index)
    if states["mps"] and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"][0])
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
