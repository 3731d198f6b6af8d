"""Two training runs, one after the other, in a process that ends by SIGKILL.

It calls ``killed``, which does 7 steps of both runs, goes on with the first one, and dies in the
15th step of it.
"""

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from lowland.data import Batches
from lowland.training import train

EPOCHS, STEPS = 4, 20


class Noisy(Dataset):
    """40 examples with noise from each global generator, as users' augmentations draw it."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        noise = torch.rand(6) + random.random() + np.random.rand()  # noqa: NPY002
        return torch.arange(6.0) * index / 40 + 0.1 * noise, index % 3


def small_model(inputs):
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, 3),
    )


def train_small(folder, batches, inputs, before_step, **options):
    def loss_fn(output, target):
        if output.requires_grad:
            before_step()
        return nn.functional.cross_entropy(output, target, reduction="none")

    return train(
        small_model(inputs),
        loss_fn,
        batches,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
        schedule=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.2, total_steps=STEPS
        ),
        weight_average=lambda model: AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
        ),
        seed=3,
        out=folder,
        save_every=0.0,
        test_batches=batches,
        **options,
    )


def both_runs(out, before_step=lambda: None, **options):
    """Train from a shuffling loader of noisy data, and from our batches."""
    loader = DataLoader(Noisy(), batch_size=8, shuffle=True)
    pixels = torch.Generator().manual_seed(1)
    images = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8, generator=pixels)
    batches = Batches(images, torch.arange(40) % 3, 8, augment="crop-flip")
    first, second = Path(out) / "loader", Path(out) / "batches"
    return [
        train_small(first, loader, 6, before_step, epochs=EPOCHS, **options),
        train_small(second, batches, 16, before_step, steps=STEPS - 2, **options),
    ]


def killed(out):
    both_runs(out, max_steps_now=7)
    steps = iter(range(8))
    both_runs(out, before_step=lambda: next(steps) < 7 or os.kill(os.getpid(), signal.SIGKILL))
