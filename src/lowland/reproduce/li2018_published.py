"""What the official code of Li & Hao 2018 logged: accuracies and nonzero shares by epoch.

Read from the logs stored in the notebooks (one run each), not from the tables of the paper; as
collected in the specification, section 5. Epochs are counted from 0, so that epoch e is what a run
has after e + 1 passes.
"""

from typing import Any

__all__ = ["ENDS", "LOGS", "SOURCE", "WEIGHTS", "at_epoch"]

SOURCE = "official logs, one run"

# Epoch, training and test accuracy (%), nonzero weights (%; None for binary ones).
LOGS: dict[tuple[str, str], tuple[tuple[int, float, float, float | None], ...]] = {
    ("mnist", "binary"): (
        (0, 95.3, 95.2, None), (4, 98.0, 97.3, None), (9, 99.2, 97.8, None),
        (29, 99.9, 98.3, None), (49, 99.9, 98.5, None),
    ),
    ("mnist", "ternary"): (
        (0, 97.6, 97.3, 85.7), (4, 98.8, 97.9, 28.6), (9, 99.2, 98.2, 9.2), (29, 99.7, 98.3, 6.9),
        (49, 99.99, 98.7, 3.8), (99, 100.0, 98.8, 2.1),
    ),
    ("cifar10", "binary"): (
        (0, 19.8, 20.0, None), (4, 63.9, 60.7, None), (9, 77.9, 71.1, None),
        (29, 95.5, 80.9, None), (49, 97.1, 80.8, None), (80, 99.1, 82.6, None),
    ),
    ("cifar10", "ternary"): (
        (0, 26.0, 25.8, 86.7), (4, 69.0, 65.2, 44.0), (9, 83.9, 75.9, 8.3), (29, 87.4, 74.6, 11.7),
        (49, 95.1, 79.8, 11.0),
    ),
    ("svhn", "binary"): (
        (0, 61.9, 59.2, None), (4, 89.7, 88.8, None), (9, 92.5, 91.7, None),
        (29, 98.8, 94.4, None), (99, 100.0, 95.3, None),
    ),
    ("svhn", "ternary"): (
        (0, 40.1, 38.1, 85.2), (4, 76.2, 74.2, 10.2), (9, 94.8, 93.2, 8.2), (29, 99.1, 94.2, 7.4),
        (99, 100.0, 95.1, 2.9),
    ),
}  # fmt: skip

# Best epoch (counted from 1) by validation, test accuracy there, final test accuracy (%), final
# nonzero weights (%).
ENDS: dict[tuple[str, str], tuple[int, float, float, float]] = {
    ("mnist", "binary"): (209, 98.92, 98.79, 100.0),
    ("mnist", "ternary"): (91, 98.77, 98.83, 1.79),
    ("cifar10", "binary"): (326, 86.49, 86.81, 100.0),
    ("cifar10", "ternary"): (141, 86.61, 86.42, 1.30),
    ("svhn", "binary"): (198, 95.44, 95.31, 100.0),
    ("svhn", "ternary"): (79, 95.24, 94.91, 2.54),
}

# Discrete weights of the three networks, and the final nonzero share (%) of the ternary one.
WEIGHTS = {
    "MNIST, 784-2048-2048-2048-10": (10_014_720, 1.79),
    "CIFAR-10, six convolutions of 128 to 512": (14_022_016, 1.30),
    "SVHN, six convolutions of 64 to 256": (6_397_632, 2.54),
}


def at_epoch(run: dict[str, Any], epoch: int) -> dict[str, Any] | None:
    """Find what a run had at an epoch of the logs.

    Args:
        run: Plain values of a run, with its ``curve``.
        epoch: Counted from 0.

    Returns:
        The row of the curve after ``epoch + 1`` passes, None if there is none.
    """
    return next((row for row in run["curve"] if row["epoch"] == epoch + 1), None)
