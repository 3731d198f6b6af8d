"""Training on chosen rows, in a process that dies by SIGKILL in mid-epoch.

It calls ``killed`` and leaves its folder in ``out``.
"""

import os
import signal

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.importance import ImportanceSampling, train_with_importance
from small_networks import class_batches, mlp, seeded

STEPS = 40


def run(out=None, at_step=lambda step: None, presample=2.5, **options):
    """Uneven batches and pools, so that rows are left over between steps."""
    parts = zip(*class_batches(4, sizes=(8,) * 12 + (5,)), strict=True)
    loader = DataLoader(TensorDataset(*map(torch.cat, parts)), 8, shuffle=True)
    model = nn.Sequential(seeded(mlp, 1), nn.Dropout(0.1))
    sampling = ImportanceSampling(
        model,
        nn.CrossEntropyLoss(reduction="none"),
        presample=presample,
        tau_threshold=1.02,
        smoothing=0.5,
        costs="modelled",
        amortize=2,
        on_sample=lambda step, index, weight: at_step(step),
    )
    return train_with_importance(
        model,
        sampling.loss_fn,
        loader,
        optimizer=lambda params: torch.optim.SGD(params, 0.3, momentum=0.5),
        steps=STEPS,
        sampling=sampling,
        out=out,
        save_every=0.0,
        **options,
    )


def die(step):
    if step > STEPS // 2:
        os.kill(os.getpid(), signal.SIGKILL)


def killed(out):
    run(out, die)
