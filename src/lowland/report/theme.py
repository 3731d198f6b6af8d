"""Every color of the page and of the pictures, for a light and a dark screen.

The series colors are those of Okabe and Ito (2008), which stay apart for every kind of color
vision; the dark theme lifts the same hues until they read on a dark ground.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Theme:
    """One set of colors, as hexadecimal sRGB.

    Attributes:
        name: "light" or "dark".
        page: The ground of the page and of every picture.
        panel: A ground a little apart from ``page``, for code and table heads.
        ink: Text.
        muted: Text of second rank, axis labels.
        rule: Thin lines, frames, the grid.
        link: Links.
        met: A claim that was met.
        missed: A claim that was missed.
        unjudged: A claim that was not judged.
        series: Lines, in the order of their series.
        overlay: Paths drawn over a heatmap.
        ramp: The color scale of heatmaps and of ordered series, from low to high.
        hole: Hatching where a heatmap has no value.
    """

    name: str
    page: str
    panel: str
    ink: str
    muted: str
    rule: str
    link: str
    met: str
    missed: str
    unjudged: str
    series: tuple[str, ...]
    overlay: tuple[str, ...]
    ramp: tuple[str, ...]
    hole: str


LIGHT = Theme(
    name="light",
    page="#ffffff",
    panel="#f5f6f4",
    ink="#1c2321",
    muted="#5a6561",
    rule="#dde1de",
    link="#00629b",
    met="#00714f",
    missed="#b84a00",
    unjudged="#5a6561",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    overlay=("#d55e00", "#f0b400", "#cc79a7", "#009e73"),
    ramp=("#f4f8f6", "#c9e0e3", "#8fbfd3", "#4b93bd", "#1f6299", "#12386b"),
    hole="#b9beba",
)

DARK = Theme(
    name="dark",
    page="#12171a",
    panel="#1b2226",
    ink="#e8ecea",
    muted="#a2aeaa",
    rule="#2f393e",
    link="#7cc4f0",
    met="#3fce9f",
    missed="#ff9a57",
    unjudged="#a2aeaa",
    series=("#5eb1e8", "#f58a42", "#2dc596", "#e39cc6", "#f2bb3a", "#a5dcfa"),
    overlay=("#ff8f4a", "#ffd24d", "#f0a6d2", "#4be0b3"),
    ramp=("#141d24", "#17384f", "#1d5a80", "#3884b0", "#76b3d3", "#c4e2ee"),
    hole="#4a555b",
)

WORDS = ("page", "panel", "ink", "muted", "rule", "link", "met", "missed", "unjudged")


def css_variables(theme: Theme) -> str:
    """The colors of a page as CSS custom properties.

    Args:
        theme: The colors.

    Returns:
        Declarations such as ``--ink: #1c2321;`` on one line.

    Source:
        Ours.
    """
    return " ".join(f"--{word}: {getattr(theme, word)};" for word in WORDS)


def plot_settings(theme: Theme) -> dict[Any, Any]:
    """The matplotlib settings of every picture.

    Args:
        theme: The colors.

    Returns:
        Names and values for ``matplotlib.rcParams``. The font is the one that comes with
        matplotlib, and the SVG salt is fixed, so that bytes repeat.

    Source:
        Ours.
    """
    return {
        "figure.facecolor": theme.page,
        "savefig.facecolor": theme.page,
        "axes.facecolor": theme.page,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.muted,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.rule,
        "grid.linewidth": 0.7,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "lines.linewidth": 1.9,
        "lines.solid_capstyle": "round",
        "lines.solid_joinstyle": "round",
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "legend.handlelength": 1.7,
        "legend.columnspacing": 1.5,
        "legend.borderpad": 0.1,
        "hatch.linewidth": 0.7,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "svg.hashsalt": "lowland",
        "svg.fonttype": "path",
    }
