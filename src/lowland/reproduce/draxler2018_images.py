"""The data of the recipe draxler2018, and the minima that are trained on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from lowland.data import Batches, Dataset, channel_statistics
from lowland.models import build
from lowland.reproduce.draxler2018_settings import Settings
from lowland.results import Status
from lowland.training import TrainResult, choose_device, train

__all__ = ["Images", "find_minimum", "losses", "stop_if_interrupted"]

# Images per batch where nothing is learned from them.
READ_AT_ONCE = 500


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example, in nats."""
    return cross_entropy(output, target, reduction="none")


@dataclass(frozen=True)
class Images:
    """A data set on its device, in all the ways the recipe reads it.

    Attributes:
        found: The data set.
        device: Where it lies.
        ordered: Training batches in the order of the data set.
        reading: Training images that reported losses are measured on.
        tests: Test images.
        augment: What is done to training images.
    """

    found: Dataset
    device: torch.device
    ordered: Batches
    reading: Batches
    tests: Batches
    augment: str | None

    @classmethod
    def of(cls, settings: Settings, found: Dataset) -> "Images":
        """Put a data set on its device, normalized by channel unless it is the digits."""
        device = choose_device(settings.device)
        mean, std = channel_statistics(found.images)
        if settings.data == "digits":  # gray levels between 0 and 1, as everywhere else
            mean, std = None, None
        ordered, tests = (
            Batches(*pair, READ_AT_ONCE, mean=mean, std=std, shuffle=False, device=device)
            for pair in (
                (found.images, found.labels),
                (found.test_images, found.test_labels),
            )
        )
        some = settings.reported_examples
        reading = ordered.subset(some) if some else ordered
        return cls(found, device, ordered, reading, tests, settings.training.augment)

    def training(self, batch_size: int, seed: int) -> Batches:
        """Training batches in an order of their own."""
        ordered = self.ordered
        return Batches(
            ordered.images,
            ordered.labels,
            batch_size,
            mean=ordered.mean,
            std=ordered.std,
            augment=self.augment,
            seed=seed,
        )


def find_minimum(
    name: str, settings: Settings, images: Images, seed: int, out: Path, display: Any
) -> tuple[nn.Module, TrainResult]:
    """Train one network; give it and how it was trained."""
    training = settings.training
    batches, found = images.training(training.batch_size, seed), images.found
    model = build(
        name, classes=len(found.classes), in_shape=found.in_shape, seed=seed, init=training.init
    ).to(images.device)
    steps = training.epochs * len(batches)
    milestones = [round(fraction * steps) for fraction in training.decay_at]
    result = train(
        model,
        losses,
        batches,
        epochs=training.epochs,
        optimizer=lambda params: SGD(params, training.learning_rate, training.momentum),
        schedule=lambda optimizer: MultiStepLR(optimizer, milestones),
        seed=seed,
        out=out / "minima" / f"{name}-{seed}",
        evaluation_batches=images.reading,
        test_batches=images.tests,
        evaluate_every=max(1, training.epochs // 20),
        progress=display,
    )
    stop_if_interrupted(result.status)
    result.raise_for_status()
    return model, result


def stop_if_interrupted(status: Status) -> None:
    """Pass a Ctrl-C that a driver has survived on to whoever runs the recipe."""
    if status is Status.INTERRUPTED:
        raise KeyboardInterrupt
