"""Boosting in a process that dies by SIGKILL in mid-block.

It calls ``killed`` and leaves its folder in ``out``.
"""

import os
import signal

from boosted import adam, examples, tower
from torch.utils.data import DataLoader, TensorDataset

from lowland.boosting import train_boosted

UPDATES = 3 * 2 * 6  # blocks, epochs, batches


def run(out=None, at_update=lambda number: None, **options):
    """Dropout, batch norm, a loader that shuffles, a ragged last batch."""
    loader = DataLoader(TensorDataset(*examples(45)), 8, shuffle=True)
    model, count = tower(2, drop=0.2), 0

    def optimizer(params):
        def counted(*_):
            nonlocal count
            count += 1
            at_update(count)

        made = adam()(params)
        made.register_step_post_hook(counted)
        return made

    settings = {"epochs": 2, "batch_size": 8, "optimizer": optimizer, "exits": True} | options
    return train_boosted(model, loader, out=out, save_every=0.0, **settings)


def die(number):
    if number > UPDATES // 2 + 2:
        os.kill(os.getpid(), signal.SIGKILL)


def killed(out):
    run(out, die)
