"""Grow the networks of the recipe, and look at what came out."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lowland.boosting import BoostResult, as_chain, train_boosted
from lowland.data import channel_statistics
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.huang2018_settings import Growth, Variant
from lowland.reproduce.images import Images, Task, channels_last, losses
from lowland.training import evaluate, save_state

__all__ = [
    "adam", "boost", "boosted", "depths", "falling", "images_of", "network", "summary",
]  # fmt: skip


def images_of(task: Task, **source: Any) -> Images:
    """Read a data set; each channel has mean 0 and variance 1, gray levels too.

    Args:
        task: What is learned.
        **source: ``device``, ``data`` and ``download``.

    Returns:
        The images.
    """
    images = Images.of(task, normalize=False, **source)
    mean, std = channel_statistics(images.train[0])
    return replace(images, mean=mean, std=std)


def boosted(
    growth: Growth, images: Images, seed: int, folder: Path, display: Any
) -> dict[str, Any]:
    """Grow the network; its weights remain in the folder."""
    out = folder if growth.keep_state else None
    model = network(images, seed)
    keys = list(model.state_dict())
    result = boost(model, images, growth.variant, seed, display, out)
    save_state(folder / "model.safetensors", model)
    fresh = network(images, seed)
    inputs = next(iter(images.reading))[0]
    found = evaluate(model, losses, images.to_read(images.train))
    return summary(result) | {
        "depths": depths(result, inputs, growth.variant.module_size),
        "is_plain": type(model) is type(fresh) and keys == list(fresh.state_dict()),
        "train_error": found.error,
        "test_error": evaluate(model, losses, images.testing).error,
        "parts": len(as_chain(model, inputs).parts),
    }


def boost(
    model: nn.Module,
    images: Images,
    variant: Variant,
    seed: int,
    display: Any = False,
    out: Path | None = None,
) -> BoostResult:
    """Grow a network in one of the ways.

    Args:
        model: Changed in place.
        images: Data.
        variant: The way.
        seed: Of order and heads.
        display: Progress display.
        out: Folder for the state to resume from.

    Returns:
        The result, with the heads of all rounds.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with the state saved.
    """
    batches = images.training(seed)
    result = train_boosted(
        model,
        batches,
        objective=variant.objective,
        alpha=variant.alpha,
        head=variant.head,
        init=variant.init,
        stop=variant.stop,
        epochs=variant.epochs,
        check_every=variant.check_every,
        gamma_threshold=variant.gamma_threshold,
        edge_start=variant.edge_start,
        optimizer=adam(variant.learning_rate),
        rate_schedule=falling(variant.decay),
        batch_size=images.task.batch_size,
        module_size=variant.module_size,
        schedule=variant.schedule,
        transport=variant.transport,
        l1=variant.l1,
        recalibrate=variant.recalibrate,
        exits=True,
        views=variant.views,
        evaluation_batches=batches.evaluation() if images.task.augment else None,
        test_batches=images.testing,
        seed=seed,
        out=out,
        progress=display,
    )
    pass_ctrl_c_on(result.status)
    return result


def summary(result: BoostResult) -> dict[str, Any]:
    """What the report needs of a grown network."""
    found = result.record()
    rounds = [{k: v for k, v in one.items() if k != "curve"} for one in found["rounds"]]
    for one, known in zip(rounds, found["rounds"], strict=True):
        one["epochs"] = known["curve"][-1]["epoch"] if known["curve"] else 0
    names = ("status", "message", "cache")
    return {name: found[name] for name in names} | {
        "rounds": rounds,
        "module_updates": sum(one["module_updates"] for one in rounds),
        "seconds": sum(one["seconds"] for one in rounds),
    }


@torch.no_grad()
def depths(result: BoostResult, inputs: Tensor, module_size: int = 1) -> list[dict[str, Any]]:
    """Add up the weak module classifiers of a grown network (Lemma 3.2), from its outputs.

    Args:
        result: With the heads of all rounds.
        inputs: Some images.
        module_size: Blocks of a round.

    Returns:
        For float64 and float32 the largest relative error of the sum beside the output of the
        head, over all depths, and of the last sum beside the softmax of the model itself.
    """
    found = []
    for dtype in (torch.float64, torch.float32):
        model = deepcopy(result.model).to(dtype).eval()
        heads = [deepcopy(head).to(dtype).eval() for head in result.exits]
        chain = as_chain(model, inputs.to(dtype))
        values = chain.values(inputs.to(dtype))
        total, previous, errors = torch.zeros(()), torch.zeros(()), [0.0]
        starts = range(0, len(chain.parts), module_size)
        groups = [chain.parts[start : start + module_size] for start in starts]
        for one, head, parts in zip(result.rounds, heads, groups, strict=True):
            for part in parts:
                values = part(*values)
            if not one.counts:
                continue
            output = head(*values).softmax(1)
            weak = one.alpha * output - previous  # h_t = alpha_{t+1} o_{t+1} - alpha_t o_t
            total, previous = total + weak, one.alpha * output
            if one.alpha > 0:
                errors.append(relative(total / one.alpha, output))
        row: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "error": max(errors)}
        certified = result.certified
        if certified is not None and certified.alpha > 0:
            last = model(inputs.to(dtype)).softmax(1)
            row["model"] = relative(total / certified.alpha, last)
        found.append(row)
    return found


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference, over the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def network(images: Images, seed: int) -> nn.Module:
    """Build a task's network; convolutions on a CPU are faster with channels last.

    Args:
        images: Data, and the task.
        seed: Of its weights.

    Returns:
        The network, on the device.
    """
    return channels_last(images.network(seed))


def adam(learning_rate: float) -> Callable[[list[nn.Parameter]], Optimizer]:
    """Adam at a learning rate."""
    return lambda params: Adam(params, learning_rate)


def falling(decay: float) -> Callable[[Optimizer], LambdaLR] | None:
    """Torch7's decay, over 1 + k d after k updates."""
    if not decay:
        return None
    return lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + decay * step))
