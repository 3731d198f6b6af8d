"""Train deep residual perceptrons end to end from several starts: whether they collapse (C5)."""

from typing import Any

import torch

from lowland.models import build
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.huang2018_growth import adam
from lowland.reproduce.huang2018_settings import Collapse
from lowland.reproduce.images import Images, losses
from lowland.results import plain
from lowland.training import train

__all__ = ["measure_collapse"]


def measure_collapse(
    collapse: Collapse, images: Images, display: Any = False
) -> list[dict[str, Any]]:
    """Train every depth from every start.

    Args:
        collapse: Depths, starts and learning rates.
        images: The digits.
        display: Progress display.

    Returns:
        One dict per start, learning rate and depth, with errors along the training.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    found = []
    for init in collapse.inits:
        for rate in collapse.rates:
            for name in collapse.models:
                shape = tuple(images.train[0].shape[1:])
                model = build(name, classes=images.classes, in_shape=shape, seed=0, init=init)
                blocks = len(model) - 2  # pyright: ignore[reportArgumentType]
                with torch.no_grad():
                    inputs, _ = next(iter(images.testing))
                    spread = float(model[:-1](inputs).std() / inputs.std())  # pyright: ignore[reportIndexIssue]
                result = train(
                    model,
                    losses,
                    images.training(0),
                    epochs=collapse.epochs,
                    optimizer=adam(rate),
                    test_batches=images.testing,
                    evaluation_batches=images.reading,
                    evaluate_every=max(1, collapse.epochs // 4),
                    progress=display,
                )
                pass_ctrl_c_on(result.status)
                names = ("step", "train_error", "test_error")
                curve = [{key: row[key] for key in names} for row in result.curve]
                found.append(
                    {"init": init, "rate": rate, "blocks": blocks, "spread": spread,
                     "status": result.status, "curve": curve,
                     "train_error": curve[-1]["train_error"] if curve else None,
                     "test_error": curve[-1]["test_error"] if curve else None}
                )  # fmt: skip
    return plain(found)
