"""Training of discrete weights in a process that dies by SIGKILL in mid-epoch.

It calls ``killed`` and leaves its folder in ``out``.
"""

import os
import signal

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.control import train_msa
from small_networks import class_batches, norm_mlp, seeded

STEPS = 30
loss_fn = nn.CrossEntropyLoss(reduction="none")


def run(out=None, at_step=lambda step: None, **options):
    """Dropout, shuffling, a ragged last batch, a target for the nonzero share."""
    parts = zip(*class_batches(4, sizes=(8,) * 6 + (5,)), strict=True)
    loader = DataLoader(TensorDataset(*map(torch.cat, parts)), 8, shuffle=True)
    model = nn.Sequential(seeded(norm_mlp, 1), nn.Dropout(0.1))
    steps = []

    def watched(output, target):
        if output.requires_grad:
            steps.append(1)
            at_step(len(steps))
        return loss_fn(output, target)

    settings = {"steps": STEPS, "target_nonzero": 0.3, "skip": ["0.6"]} | options
    return train_msa(model, watched, loader, out=out, save_every=0.0, **settings)


def die(step):
    if step > STEPS // 2:
        os.kill(os.getpid(), signal.SIGKILL)


def killed(out):
    run(out, die)
