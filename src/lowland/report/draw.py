"""Draw one figure of a record as a picture whose bytes repeat, without pyplot.

matplotlib is imported inside the functions: the command line lists recipes without it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from lowland.report.heatmap import draw_heatmap
from lowland.report.theme import Theme, plot_settings
from lowland.report.ticks import label_log_axis, label_whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.6  # inches; at 100 points per inch these are the CSS pixels on the page
PNG_DPI = 200  # twice the CSS pixels, for dense screens
LABEL_LENGTHS = (64, 40)  # letters that fit below and beside the axes


def draw(figure: Mapping[str, Any], pictures: Sequence[tuple[Theme, str]]) -> list[bytes]:
    """Draw a figure of kind ``lines`` or ``heatmap``.

    Args:
        figure: The figure, as the README of this folder describes it.
        pictures: The colors and the format of each file: "png" (at twice the size of the page) or
            "svg".

    Returns:
        The files; the same figure gives the same bytes.

    Source:
        Ours.
    """
    import matplotlib

    drawn: dict[Theme, Figure] = {}
    files = []
    for theme, file_format in pictures:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # the reader's own matplotlibrc must not change our bytes
            matplotlib.rcParams.update(plot_settings(theme))
            if theme not in drawn:
                drawn[theme] = compose(figure, theme, next(iter(drawn.values()), None))
            files.append(save(drawn[theme], theme, file_format))
    return files


def compose(figure: Mapping[str, Any], theme: Theme, like: Figure | None) -> Figure:
    """A picture whose axes lie where those of another theme do: layout costs as much as drawing."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    drawers: dict[str, Callable[..., None]] = {"lines": draw_lines, "heatmap": draw_heatmap}
    picture = Figure(figsize=picture_size(figure), dpi=PNG_DPI)
    axes = picture.subplots()
    drawers[figure["kind"]](axes, figure, theme)
    axes.set_xlabel(fill(figure["x_label"], LABEL_LENGTHS[0]))
    axes.set_ylabel(fill(figure["y_label"], LABEL_LENGTHS[1]))
    draw_legend(axes)
    if like is None:
        ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06).execute(picture)
    else:
        axes.set_position(like.axes[0].get_position(original=True))
    return picture


def save(picture: Figure, theme: Theme, file_format: str) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    if file_format == "svg":
        picture.savefig(stream, format="svg", metadata={"Date": None})
        return stream.getvalue()
    picture.savefig(stream, format="rgba")
    width, height = (round(PNG_DPI * inches) for inches in picture.get_size_inches())
    return with_palette(stream.getvalue(), (width, height), theme)


def with_palette(pixels: bytes, size: tuple[int, int], theme: Theme) -> bytes:
    """A PNG of 256 colors, a quarter of the size; the ground stays exactly the page's."""
    from PIL import Image, ImageColor  # comes with matplotlib

    picture = Image.frombytes("RGBA", size, pixels).convert("RGB")
    picture = picture.quantize(method=Image.Quantize.FASTOCTREE)
    ground = picture.getpixel((0, 0))
    palette = picture.getpalette()
    assert isinstance(ground, int)  # a picture with a palette has numbers for pixels
    assert palette is not None
    palette[3 * ground : 3 * ground + 3] = ImageColor.getrgb(theme.page)
    picture.putpalette(palette)
    small = io.BytesIO()
    picture.save(small, "png", optimize=True)
    return small.getvalue()


def picture_size(figure: Mapping[str, Any]) -> tuple[float, float]:
    """Width and height of a picture; one with equal axes is as high as it needs to be.

    Args:
        figure: A figure of kind ``lines`` or ``heatmap``.

    Returns:
        Inches, a hundredth for each CSS pixel on the page.

    Source:
        Ours.
    """
    if figure["kind"] == "lines":
        return WIDTH, 3.7
    x, y = figure["x"], figure["y"]
    if not figure.get("equal") or len(x) < 2 or len(y) < 2:
        return WIDTH, 4.3
    ratio = (max(y) - min(y)) / (max(x) - min(x))
    return WIDTH, round(0.9 + 4.2 * min(max(ratio, 0.4), 1.2), 2)  # 0.9 for labels and legend


def draw_lines(axes: Axes, figure: Mapping[str, Any], theme: Theme) -> None:
    """Lines, bands, points and steps over one axis, linear or logarithmic."""
    log_x, log_y = bool(figure.get("x_log")), bool(figure.get("y_log"))
    colors = series_colors(figure["series"], theme)
    drawn = [
        draw_series(axes, series, color, log_x, log_y)
        for series, color in zip(figure["series"], colors, strict=True)
    ]
    x = np.concatenate([np.empty(0), *(part[0] for part in drawn)])
    y = np.concatenate([np.empty(0), *(part[1] for part in drawn)])
    if not (np.isfinite(x) & np.isfinite(y)).any():
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center")
        return
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    (label_log_axis if log_x else label_whole_numbers)(axes.xaxis, x)
    (label_log_axis if log_y else label_whole_numbers)(axes.yaxis, y)
    axes.margins(x=0.02, y=0.1 if figure.get("marks") else 0.06)
    draw_marks(axes, figure.get("marks") or (), theme)


def draw_series(
    axes: Axes, series: Mapping[str, Any], color: Any, log_x: bool, log_y: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One series; what a logarithmic axis cannot show becomes a hole."""
    x, y = positive(series["x"], log_x), positive(series["y"], log_y)
    style = series.get("style", "line")
    name = series["name"]
    step = "post" if style == "steps" else None
    if series.get("band"):
        low, high = (numbers(edge) for edge in series["band"])
        if log_y:  # a band that reaches zero goes on to the bottom of what is shown
            low = np.where(low > 0, low, np.nanmin(y) if np.isfinite(y).any() else np.nan)
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0, step=step)
    if style == "points" or np.isfinite(x * y).sum() == 1:
        axes.plot(x, y, "o", color=color, label=name, markersize=4.5, markeredgewidth=0)
    elif step:
        axes.step(x, y, where="post", color=color, label=name)
    else:
        dashes = (0, (4, 2.2)) if style == "dashed" else "-"
        axes.plot(x, y, linestyle=dashes, color=color, label=name)
    return x, y


def series_colors(series: Sequence[Mapping[str, Any]], theme: Theme) -> list[Any]:
    """A color per series: its own number if it names one; a ramp where the palette ends."""
    from matplotlib.colors import LinearSegmentedColormap

    if len(series) > len(theme.series) and not any("color" in one for one in series):
        ramp = LinearSegmentedColormap.from_list("ramp", theme.ramp)
        return [ramp(place) for place in np.linspace(0.3, 1.0, len(series))]
    return [
        theme.series[one.get("color", place) % len(theme.series)]
        for place, one in enumerate(series)
    ]


def draw_marks(axes: Axes, marks: Sequence[Mapping[str, Any]], theme: Theme) -> None:
    """Named points; a mark without ``y`` is a vertical line. Text stays inside the axes."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground=theme.page)]
    for mark in marks:
        if mark.get("x") is None:
            continue
        y = mark.get("y")
        if y is None:
            axes.axvline(mark["x"], color=theme.muted, linewidth=0.9, linestyle=(0, (1, 1.5)))
            anchor, across = (mark["x"], 0.97), axes.get_xaxis_transform()
        else:
            axes.plot([mark["x"]], [y], "o", markersize=6, color=theme.page,
                      markeredgecolor=theme.ink, markeredgewidth=1.4, zorder=5)  # fmt: skip
            anchor, across = (mark["x"], y), axes.transData
        place = axes.transAxes.inverted().transform(across.transform(anchor))
        left, below = place[0] > 0.6, y is None or place[1] > 0.93
        axes.annotate(
            mark["text"], anchor, xycoords=across, xytext=(-7 if left else 7, -7 if below else 7),
            textcoords="offset points", ha="right" if left else "left",
            va="top" if below else "bottom", fontsize=8.5, color=theme.ink, path_effects=halo,
        )  # fmt: skip


def draw_legend(axes: Axes) -> None:
    """Names above the axes, in as many columns as fit; none for a single unnamed line."""
    handles, labels = axes.get_legend_handles_labels()
    if not any(labels):
        return
    longest = max(len(label) for label in labels)
    columns = min(len(labels), max(1, 72 // (longest + 7)))
    # matplotlib fills columns first; we read rows first
    order = [place for start in range(columns) for place in range(start, len(labels), columns)]
    axes.figure.legend(  # type: ignore[union-attr]
        [handles[place] for place in order], [labels[place] for place in order],
        loc="outside upper left", ncols=columns,
    )  # fmt: skip


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Floats with a hole for every ``None``."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def positive(values: Sequence[float | None], log: bool) -> np.ndarray:
    """Floats; on a logarithmic axis what is not positive becomes a hole."""
    array = numbers(values)
    return np.where(array > 0, array, np.nan) if log else array
