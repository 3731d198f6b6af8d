"""Ticks that read as plain numbers: on logarithmic axes, and where only whole numbers occur."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axis import Axis


def label_log_axis(axis: Axis, values: np.ndarray) -> None:
    """Put ticks on a logarithmic axis, at 1, 2 and 5 where it spans less than two decades.

    Args:
        axis: The axis, already logarithmic.
        values: What is shown on it; holes are allowed.

    Source:
        Ours.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    finite = values[np.isfinite(values)]
    decades = log10(finite.max() / finite.min()) if len(finite) else 1.0
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    axis.set_minor_formatter(NullFormatter())


def label_whole_numbers(axis: Axis, values: np.ndarray) -> None:
    """Keep the ticks of a linear axis at whole numbers where only those are shown.

    Args:
        axis: The axis, linear.
        values: What is shown on it; holes are allowed.

    Source:
        Ours.
    """
    from matplotlib.ticker import MaxNLocator

    finite = values[np.isfinite(values)]
    if len(finite) and (finite == np.round(finite)).all():
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=2))


def tick_text(value: float) -> str:
    """One tick: 0.001, 0.2, 10,000; powers of ten beyond.

    Args:
        value: Where the tick stands, positive.

    Returns:
        Text for matplotlib.

    Source:
        Ours.

    Example:
        >>> tick_text(0.02), tick_text(20000.0), tick_text(1e-5)
        ('0.02', '20,000', '$10^{-5}$')
    """
    power = floor(log10(value) + 1e-9)
    if -4 < power < 5:
        return f"{value:,.{max(0, -power)}f}"
    factor = round(value / 10.0**power)
    return f"$10^{{{power}}}$" if factor == 1 else f"${factor}\\times10^{{{power}}}$"
