"""Every plotted array as CSV, in long form: one row per plotted point, a hole is an empty cell."""

import csv
import io
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any


def figure_csv(figure: Mapping[str, Any]) -> str:
    """The numbers behind one figure.

    Args:
        figure: A figure of a record, of kind ``lines``, ``heatmap`` or ``table``.

    Returns:
        CSV text with a header. ``lines``: series, x, y, low, high. ``heatmap``: layer (``grid``,
        ``path``, ``point``), name, x, y, value. ``table``: its own columns.

    Source:
        Ours.
    """
    rows = {"lines": line_rows, "heatmap": heatmap_rows, "table": table_rows}[figure["kind"]]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows(figure))
    return stream.getvalue()


def line_rows(figure: Mapping[str, Any]) -> Iterator[list[Any]]:
    """One row per point of a series, then one per mark."""
    yield ["series", "x", "y", "low", "high"]
    for series in figure["series"]:
        low, high = series.get("band") or (repeat(None), repeat(None))
        for point in zip(series["x"], series["y"], low, high, strict=False):
            yield [series["name"], *point]
    for mark in figure.get("marks") or ():
        yield [mark["text"], mark["x"], mark.get("y"), None, None]


def heatmap_rows(figure: Mapping[str, Any]) -> Iterator[list[Any]]:
    """One row per cell of the grid, then the paths and points drawn over it."""
    yield ["layer", "name", "x", "y", "value"]
    name = figure.get("value_label", "")
    for y, row in zip(figure["y"], figure["values"], strict=True):
        for x, value in zip(figure["x"], row, strict=True):
            yield ["grid", name, x, y, value]
    for path in figure.get("paths") or ():
        for x, y in zip(path["x"], path["y"], strict=True):
            yield ["path", path["name"], x, y, None]
    for point in figure.get("points") or ():
        yield ["point", point["name"], point["x"], point["y"], None]


def table_rows(figure: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The table as it stands."""
    yield figure["columns"]
    yield from figure["rows"]
