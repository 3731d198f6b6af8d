"""Work in processes of its own, forked from one that has imported torch and computed nothing yet.

Each process that runs tests has one such server: nothing that is forked here costs more than the
import of torch.
"""

import warnings
from multiprocessing import get_context

import torch

SERVER = get_context("forkserver")
# torch leaves its compiler to the first optimizer: no child shall pay for that
SERVER.set_forkserver_preload(
    ["torch._dynamo", "lowland.connectivity", "lowland.dynamics", "lowland.importance",
     "lowland.boosting", "lowland.control", "lowland.training"]
)  # fmt: skip


def run(work, *arguments):
    """Call ``work`` in another process; its exit code, or minus the signal that ended it."""
    return together(work, [arguments])[0]


def run_ranks(work, *arguments):
    """Call ``work(rank, *arguments)`` in two processes at a time; both must end well."""
    assert together(work, [(rank, *arguments) for rank in range(2)]) == [0, 0]


def together(work, calls):
    """One process for each tuple of arguments; the codes with which they end."""
    processes = [SERVER.Process(target=quietly, args=(work, *arguments)) for arguments in calls]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    finally:  # also where a test took too long
        for process in processes:
            process.kill()
    return [process.exitcode for process in processes]


def quietly(work, *arguments):
    """On one thread, and without the warnings that tests take for errors."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    work(*arguments)
