"""Grow one network in many ways, each kept when finished (section 9 of the specification)."""

from functools import partial
from typing import Any

from lowland.reproduce.huang2018_growth import boost, network, summary
from lowland.reproduce.huang2018_settings import Table, Variant
from lowland.reproduce.images import Images, percent
from lowland.reproduce.kept import Kept

__all__ = ["try_variants"]


def try_variants(table: Table, images: Images, kept: Kept, display: Any) -> list[dict[str, Any]]:
    """Grow the network in every way.

    Args:
        table: What to do.
        images: Its data.
        kept: Keeps finished parts.
        display: Progress display.

    Returns:
        One dict per variant and seed.
    """
    runs = []
    for variant in table.variants:
        for seed in range(table.seeds):
            words = "".join(letter if letter.isalnum() else " " for letter in variant.name).split()
            name = f"variants/{'-'.join(words)}-{seed}"
            label = {"growth": "table", "way": variant.name, "variant": variant.name, "seed": seed}
            found = kept(name, partial(one_variant, variant, images, seed, display))
            last = found["rounds"][-1] if found["rounds"] else {}
            accuracy = {
                f"{part}_accuracy": percent(last.get(f"{part}_error")) for part in ("train", "test")
            }
            runs.append(label | found | accuracy)
    return runs


def one_variant(variant: Variant, images: Images, seed: int, display: Any) -> dict[str, Any]:
    """Grow the network in one way."""
    return summary(boost(network(images, seed), images, variant, seed, display))
