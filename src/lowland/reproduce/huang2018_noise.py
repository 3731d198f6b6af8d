"""Grow networks on partly wrong labels, with and without the l1 constraint of the theory (C13)."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lowland.boosting import generalization_bound, l1_norms
from lowland.reproduce.huang2018_growth import boost, network, summary
from lowland.reproduce.huang2018_settings import Noise
from lowland.reproduce.images import Images, losses
from lowland.training import evaluate, generator

__all__ = ["measure_noise", "wrong_labels"]

THETA = 0.5


def measure_noise(
    noise: Noise, images: Images, seed: int, display: Any = False
) -> list[dict[str, Any]]:
    """Grow a network on clean and on noisy labels, for every radius of the l1 ball.

    Args:
        noise: What to do.
        images: With right labels.
        seed: Of weights, order and noise.
        display: Progress display.

    Returns:
        One dict per radius: errors by depth, the error on the right
        training labels, and the generalization bound with its terms.
    """
    labels = wrong_labels(images.train[1], images.classes, noise.share, seed)
    noisy = replace(images, train=(images.train[0], labels))
    found = []
    for radius in noise.radii:
        model = network(noisy, seed)
        result = boost(model, noisy, replace(noise.variant, l1=radius), seed, display)
        clean = evaluate(model, losses, images.to_read(images.train))
        found.append(
            {"seed": seed, "radius": radius, "clean_error": clean.error}
            | {"changed": float((labels != images.train[1]).double().mean())}
            | {"bound": bound(model, noisy, result.rounds[-1].margins)}
            | summary(result)
        )
    return found


def wrong_labels(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """Draw some labels anew, evenly among all classes.

    Args:
        labels: The right ones.
        classes: Their number.
        share: Of labels that are drawn; some of them stay right by chance.
        seed: Of the draws.

    Returns:
        Labels.
    """
    draws = generator(seed, "noise")
    count = round(share * len(labels))
    chosen = torch.randperm(len(labels), generator=draws)[:count]
    noisy = labels.clone()
    noisy[chosen] = torch.randint(classes, (count,), generator=draws).to(labels)
    return noisy


def bound(model: nn.Module, images: Images, margins: list[list[float | None]]) -> dict[str, Any]:
    """Compute Corollary 4.3, as if each block were one layer of binary outputs."""
    norms: dict[str, float] = {}
    for name, norm in l1_norms(model).items():  # of two layers the product bounds the output
        block = name.split(".")[0]
        norms[block] = norms.get(block, 1.0) * norm
    inputs, _ = next(iter(images.reading))
    head = norms.pop("linear")
    share = next(share for theta, share, _ in margins if theta == THETA)
    found = generalization_bound(
        examples=len(images.train[1]),
        channels=inputs[0].numel(),
        norms=list(norms.values()),
        theta=THETA,
        margin_share=share or 0.0,
        head_norm=head,
        input_norm=float(inputs.abs().flatten(1).amax(1).mean()),
    )
    names = ("margin_share", "complexity", "depth", "confidence", "total", "vacuous")
    return {"norms": list(norms.values()), "head_norm": head} | {
        name: getattr(found, name) for name in names
    }
