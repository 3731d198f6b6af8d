"""Draw a function of two coordinates: cells or a smooth surface, contours, paths and points."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.report.theme import Theme
from lowland.report.ticks import label_log_axis, label_whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

NUM_BANDS = 20


def draw_heatmap(axes: Axes, figure: Mapping[str, Any], theme: Theme) -> None:
    """The grid of values with its color scale, then what lies on it.

    Args:
        axes: Where to draw.
        figure: A figure of kind ``heatmap``. With ``contours`` (the default where paths are
            drawn) the grid samples a smooth function; without, each cell stands for itself.
        theme: The colors.

    Source:
        Ours.
    """
    x, y = (np.asarray(figure[axis], dtype=float) for axis in ("x", "y"))
    values = np.array(figure["values"], dtype=float).reshape(len(y), len(x))  # None becomes nan
    log = bool(figure.get("log")) and bool((values > 0).any())
    if log:
        values = np.where(values > 0, values, np.nan)
    varied = len(np.unique(values[np.isfinite(values)])) > 1 and min(values.shape) > 1
    smooth = varied and figure.get("contours", bool(figure.get("paths")))
    scale = color_scale(values, log)
    draw_grid(axes, (x, y, values), scale, theme, smooth, figure.get("value_label", ""))
    draw_paths(axes, figure, theme)
    draw_points(axes, figure, theme)
    axes.grid(False)
    label_whole_numbers(axes.xaxis, x)
    label_whole_numbers(axes.yaxis, y)
    if figure.get("equal"):
        axes.set_aspect("equal")


def color_scale(values: np.ndarray, log: bool) -> Normalize:
    """From the lowest to the highest finite value, never of zero width."""
    from matplotlib.colors import LogNorm, Normalize

    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (1.0, 2.0)
    if low == high:
        high = low * 2 if log else low + 1
    return LogNorm(low, high) if log else Normalize(low, high)


def draw_grid(
    axes: Axes,
    grid: tuple[np.ndarray, np.ndarray, np.ndarray],
    scale: Normalize,
    theme: Theme,
    smooth: bool,
    label: str,
) -> None:
    """The values as color, as bands between contours or cell by cell, and the explaining bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    x, y, values = grid
    ramp = LinearSegmentedColormap.from_list("ramp", theme.ramp)
    axes.patch.set(facecolor=theme.page, edgecolor=theme.hole, hatch="////")  # seen through holes
    if smooth:
        levels = scale.inverse(np.linspace(0, 1, NUM_BANDS + 1))
        levels[0], levels[-1] = scale.vmin, scale.vmax  # the ends, without rounding
        holed = np.ma.masked_invalid(values)
        axes.contourf(x, y, holed, levels, norm=scale, cmap=ramp)
        lines = {"colors": theme.ink, "linewidths": 0.5, "alpha": 0.35}
        axes.contour(x, y, holed, levels[1:-1:2], **lines)
    else:
        axes.pcolormesh(
            x, y, np.ma.masked_invalid(values), norm=scale, cmap=ramp, shading="nearest"
        )
    beside = axes.inset_axes((1.025, 0, 0.035, 1))  # as high as the axes, whatever their aspect
    bar = axes.figure.colorbar(ScalarMappable(scale, ramp), cax=beside, label=fill(label, 40))
    bar.outline.set_visible(False)  # type: ignore[operator]
    if isinstance(scale, LogNorm):
        label_log_axis(beside.yaxis, np.array([scale.vmin, scale.vmax]))


def draw_paths(axes: Axes, figure: Mapping[str, Any], theme: Theme) -> None:
    """Polylines with a halo; a line of two vertices is dashed, pivots are dots."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=4.2, foreground=theme.page, alpha=0.85)]
    bent = 0
    for path in figure.get("paths") or ():
        x, y = np.array(path["x"], dtype=float), np.array(path["y"], dtype=float)
        if len(x) <= 2:
            line = {"color": theme.ink, "linestyle": (0, (3, 2)), "linewidth": 1.4}
        else:
            line = {"color": theme.overlay[bent % len(theme.overlay)], "linewidth": 2.2}
            line |= {"marker": "o", "markersize": 3.6} if len(x) <= 40 else {}
            bent += 1
        axes.plot(x, y, label=path["name"], path_effects=halo, zorder=3, **line)


def draw_points(axes: Axes, figure: Mapping[str, Any], theme: Theme) -> None:
    """Named points, each with its name beside it on the side that has room."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground=theme.page)]
    low, high = axes.get_xlim()
    for point in figure.get("points") or ():
        x, y = point["x"], point["y"]
        if x is None or y is None:
            continue
        axes.plot([x], [y], "o", markersize=7, color=theme.page, markeredgecolor=theme.ink,
                  markeredgewidth=1.5, zorder=5)  # fmt: skip
        left = (x - low) > 0.6 * (high - low)
        axes.annotate(
            point["name"], (x, y), xytext=(-8 if left else 8, -8), textcoords="offset points",
            ha="right" if left else "left", va="top", color=theme.ink, path_effects=halo, zorder=6,
        )  # fmt: skip
