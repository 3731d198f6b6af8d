"""Figures as plain values: what a record holds and the report draws; see this folder's README."""

from collections.abc import Sequence
from typing import Any

__all__ = ["lines", "series", "table"]


def lines(
    name: str,
    title: str,
    caption: str,
    x: str,
    y: str,
    series: Sequence[dict[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    """Make a figure of lines.

    Args:
        name: Its id on the page and of its files.
        title: Heading.
        caption: What is shown, with data, number of runs and units.
        x: Label of the axis, with the unit.
        y: Likewise.
        series: From :func:`series`.
        **more: Further keys of a figure of lines, ``x_log`` and ``marks`` for instance.

    Returns:
        The figure.
    """
    figure = {
        "kind": "lines", "id": name, "title": title, "caption": caption, "x_label": x,
        "y_label": y, "x_log": False, "y_log": False, "series": list(series), "marks": [],
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
