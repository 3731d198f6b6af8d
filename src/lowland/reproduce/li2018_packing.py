"""Claim C9 of li2018 in files: a trained network packed, weighed and run beside its float form."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowland.control import find_codes, load_packed, nonzero_share, pack, sweep_dead_weights
from lowland.data import Batches
from lowland.training import evaluate, save_state

__all__ = ["KINDS", "measure_packing"]

KINDS = {
    "binary": ("bit1", "1 bit per weight"),
    "sparse16": ("sparse16", "lists of 16-bit indices"),
    "entropy": ("gaps", "entropy-coded gaps"),
}
IMAGES = 1000  # that both forms are run on


def measure_packing(
    model: nn.Module, loss_fn: Any, train: Batches, tests: Batches, folder: Path
) -> list[dict[str, Any]]:
    """Write a trained network as packed files, and run what they hold.

    Dead ternary weights are swept first.

    Args:
        model: A network with binary or ternary weights; its dead weights become zero.
        loss_fn: One loss per example.
        train: Training images whose outputs the sweep must not change.
        tests: Test images.
        folder: For the files.

    Returns:
        Plain values, a row per kind of file: bytes of the file and of the float32 checkpoint, the
        largest difference of outputs relative to the largest output, nonzero share and dead
        weights, test error of the packed network.
    """
    weights = [p.detach() for p in model.parameters() if p.ndim > 1]
    is_binary = all(bool(w.all()) for w in weights if find_codes(w.flatten(1)) is not None)
    dead = 0
    if not is_binary:
        dead = sum(sweep_dead_weights(model, train).dead.values())
    model.eval()
    plain = save_state(folder / "float32.safetensors", model).stat().st_size
    inputs = first_images(tests)
    with torch.no_grad():
        expected = model(inputs)
        rows, packed = [], pack(model)
        for kind in ("binary",) if is_binary else ("sparse16", "entropy"):
            file = packed.save(folder / f"{kind}.safetensors", formats=KINDS[kind][0])
            loaded = load_packed(file)
            difference = (loaded(inputs) - expected).abs().max() / expected.abs().max()
            size = file.stat().st_size
            rows.append(
                {
                    "kind": kind,
                    "weights": sum(w.numel() for w in weights),
                    "nonzero": nonzero_share(model),
                    "dead": dead,
                    "bytes": size,
                    "float_bytes": plain,
                    "times_smaller": plain / size,
                    "error": float(difference),
                    "test_error": evaluate(loaded, loss_fn, tests).error,
                }
            )
    return rows


def first_images(tests: Batches) -> torch.Tensor:
    """The first images of a data set."""
    found: list[torch.Tensor] = []
    for inputs, _ in tests:
        found.append(inputs)
        if sum(map(len, found)) >= IMAGES:
            break
    return torch.cat(found)[:IMAGES]
