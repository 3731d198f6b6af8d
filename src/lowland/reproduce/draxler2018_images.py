"""The data of the recipe draxler2018, and the minima that are trained on it."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from lowland.reproduce.draxler2018_settings import Settings
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images, Task
from lowland.training import TrainResult, train

__all__ = ["find_minimum", "images_of", "losses"]


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example, in nats; saved paths know it by this name.

    Over many networks at once (``vmap``) a step is a quarter faster than with torch's own, which
    is taken apart in Python there.

    Args:
        output: Logits.
        target: Classes.

    Returns:
        One loss per example.
    """
    return output.logsumexp(1) - output.gather(1, target.unsqueeze(1)).squeeze(1)


def images_of(settings: Settings, **source: Any) -> Images:
    """Read the data set, normalized by channel unless it is the digits.

    Args:
        settings: Of the recipe.
        **source: ``device``, ``data`` and ``download``.

    Returns:
        The images; the task's network is that of the first architecture.
    """
    training = settings.training
    task = Task(
        settings.data,
        settings.networks[0].name,
        training.batch_size,
        init=training.init,
        augment=training.augment,
        evaluated=settings.reported_examples,
    )
    return Images.of(task, normalize=settings.data != "digits", **source)


def find_minimum(
    name: str, settings: Settings, images: Images, seed: int, out: Path, display: Any
) -> tuple[nn.Module, TrainResult]:
    """Train one network; give it and how it was trained."""
    training = settings.training
    batches, model = images.training(seed), images.network(seed, name)
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
        test_batches=images.testing,
        evaluate_every=max(1, training.epochs // 20),
        progress=display,
    )
    pass_ctrl_c_on(result.status)
    result.raise_for_status()
    return model, result
