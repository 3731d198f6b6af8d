"""Figures as plain values: what a record holds and the report draws; see this folder's README."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

__all__ = ["banded", "lines", "series", "shown", "table", "text"]


def shown(figures: Iterable[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Leave out what has nothing to show.

    Args:
        figures: From the functions below, or None.

    Returns:
        Those with a point, a row or words.
    """
    return [one for one in figures if one and has_content(one)]


def has_content(figure: dict[str, Any]) -> bool:
    """Whether a table has a row, and one of the lines a point."""
    if figure["kind"] == "lines":
        return any(one["x"] for one in figure["series"])
    return figure["kind"] != "table" or bool(figure["rows"])


def lines(
    name: str,
    title: str,
    caption: str,
    x: str,
    y: str,
    series: Iterable[dict[str, Any] | None],
    **more: Any,
) -> dict[str, Any]:
    """Make a figure of lines.

    Args:
        name: Its id on the page and of its files.
        title: Heading.
        caption: What is shown, with data, number of runs and units.
        x: Label of the axis, with the unit.
        y: Likewise.
        series: From :func:`series` or :func:`banded`; None is left out.
        **more: Further keys of a figure of lines, ``x_log`` and ``marks`` for instance.

    Returns:
        The figure.
    """
    figure = {
        "kind": "lines", "id": name, "title": title, "caption": caption, "x_label": x,
        "y_label": y, "x_log": False, "y_log": False, "series": [one for one in series if one],
        "marks": [],
    }  # fmt: skip
    return figure | more


def series(name: str, x: Sequence, y: Sequence, style: str = "line", **more: Any) -> dict[str, Any]:
    """Make one line of a figure.

    Args:
        name: In the legend.
        x: Where the points lie.
        y: Their heights, None for a gap.
        style: ``"line"``, ``"dashed"``, ``"points"`` or ``"steps"``.
        **more: Further keys of a line, ``band`` (two lists, low and high) for instance.

    Returns:
        The line.
    """
    return {"name": name, "x": list(x), "y": list(y), "style": style} | more


def banded(
    name: str, x: Sequence, values: Sequence[Sequence[float]], style: str = "line", **more: Any
) -> dict[str, Any]:
    """Make a line of means with the range around it.

    Args:
        name: In the legend.
        x: Where the points lie.
        values: Of every repetition, for each point.
        style: As for :func:`series`.
        **more: Likewise.

    Returns:
        The line.
    """
    band = [[min(each) for each in values], [max(each) for each in values]]
    return series(name, x, [fmean(each) for each in values], style, band=band, **more)


def table(
    name: str, title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """Make a figure that is a table.

    Args:
        name: Its id on the page and of its files.
        title: Heading.
        caption: What is shown.
        columns: Their heads, with units.
        rows: Cells of every row: texts, numbers or None.

    Returns:
        The figure.
    """
    return {
        "kind": "table", "id": name, "title": title, "caption": caption, "columns": list(columns),
        "rows": [list(row) for row in rows],
    }  # fmt: skip


def text(name: str, title: str, words: str) -> dict[str, Any]:
    """Make a figure that is a text.

    Args:
        name: Its id on the page.
        title: Heading.
        words: Paragraphs, with an empty line between them.

    Returns:
        The figure.
    """
    return {"kind": "text", "id": name, "title": title, "caption": "", "text": words}
