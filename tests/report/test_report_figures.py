"""A picture shows the plotted numbers and nothing else: CSV, limits, holes, logarithms, colors."""

import csv
import io

import numpy as np
import pytest

import conftest
from lowland.report import figures as make
from lowland.report.csv_files import figure_csv
from lowland.report.draw import draw, draw_legend, draw_lines, picture_size
from lowland.report.heatmap import color_scale, draw_heatmap
from lowland.report.records import check_figure
from lowland.report.theme import DARK, LIGHT, Theme
from lowland.report.ticks import tick_text


def axes_of(figure: dict, drawer=draw_lines):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    drawer(axes, figure, LIGHT)
    return axes


def test_csv_holds_every_plotted_number():
    """Reading the CSV back gives the arrays of the record to the last bit."""
    figure = conftest.profile_figure()
    rows = list(csv.DictReader(io.StringIO(figure_csv(figure))))
    for series in figure["series"]:
        mine = [row for row in rows if row["series"] == series["name"]]
        assert [float(row["x"]) for row in mine] == series["x"]
        assert [float(row["y"]) if row["y"] else None for row in mine] == series["y"]
        low = [float(row["low"]) for row in mine if row["low"]]
        assert low == (series["band"][0] if "band" in series else [])
    assert rows[-1] == {"series": "barrier of the line", "x": "0.5", "y": "0.9", "low": "",
                        "high": ""}  # fmt: skip


def test_csv_of_a_heatmap_keeps_rows_and_columns_apart():
    """values[row][column] stands beside y[row] and x[column]."""
    figure = conftest.slice_figure()
    rows = list(csv.DictReader(io.StringIO(figure_csv(figure))))
    grid = {(float(r["x"]), float(r["y"])): float(r["value"]) for r in rows if r["layer"] == "grid"}
    for j, y in enumerate(figure["y"]):
        for i, x in enumerate(figure["x"]):
            assert grid[x, y] == figure["values"][j][i]
    assert sum(row["layer"] == "path" for row in rows) == 2 + 13
    assert [row["name"] for row in rows if row["layer"] == "point"] == ["A", "B"]


def test_drawn_lines_are_the_numbers_of_the_record():
    figure = conftest.profile_figure()
    lines = axes_of(figure).get_lines()
    for line, series in zip(lines, figure["series"], strict=False):
        assert line.get_xdata().tolist() == series["x"]
        expected = [np.nan if value is None else value for value in series["y"]]
        np.testing.assert_array_equal(line.get_ydata(), expected)
    assert lines[2].get_color() == LIGHT.series[1]  # "color": 1 shares the path's color
    assert lines[2].get_marker() == "o"
    assert lines[0].is_dashed()


def test_heatmap_draws_rows_upward():
    """The first row lies at the first y, below; pcolormesh holds the values in that order."""
    figure = conftest.matrix_figure()
    figure["values"][0][3] = 7.0
    axes = axes_of(figure, draw_heatmap)
    drawn = axes.collections[0].get_array()
    assert drawn[0, 3] == 7.0
    assert drawn.mask[0, 0]
    assert axes.get_ylim() == (-0.5, 3.5)


def test_logarithmic_axes_leave_out_what_is_not_positive():
    figure = {"kind": "lines", "x_log": True, "y_log": True, "series": [
        {"name": "s", "x": [0, 1, 10, 100], "y": [1.0, 0.0, None, 0.5],
         "band": [[0.0] * 4, [2.0] * 4]}]}  # fmt: skip
    axes = axes_of(figure)
    (line,) = axes.get_lines()
    assert line.get_marker() == "o"  # a single point would be invisible as a line
    finite = np.isfinite(line.get_xdata() * line.get_ydata())
    assert finite.tolist() == [False, False, False, True]
    assert axes.get_xscale() == axes.get_yscale() == "log"


@pytest.mark.parametrize("values", [[[1.0, 1.0], [1.0, 1.0]], [[None, None], [None, None]],
                                    [[0.0, -1.0], [-2.0, 0.0]], [[5.0]]])  # fmt: skip
def test_degenerate_heatmaps_are_drawn(values):
    """Constant, empty, never positive or a single cell: a picture and no warning."""
    n = len(values)
    figure = {"kind": "heatmap", "x_label": "x", "y_label": "y", "x": list(range(n)), "log": True,
              "y": list(range(n)), "values": values, "contours": True}  # fmt: skip
    assert draw(figure, [(LIGHT, "png")])[0].startswith(b"\x89PNG")


@pytest.mark.parametrize("series", [[], [{"name": "", "x": [], "y": []}],
                                    [{"name": "a", "x": [1, 2], "y": [None, None]}]])  # fmt: skip
def test_empty_lines_say_so(series):
    figure = {"kind": "lines", "x_label": "x", "y_label": "y", "y_log": True, "series": series}
    assert axes_of(figure).texts[0].get_text() == "no finite values"
    assert draw(figure, [(DARK, "svg")])[0].startswith(b"<?xml")


def test_color_scale_spans_the_finite_values():
    scale = color_scale(np.array([[1.0, np.nan], [100.0, 10.0]]), log=True)
    assert [float(scale(v)) for v in (1, 10, 100)] == pytest.approx([0, 0.5, 1], abs=1e-12)


def test_many_series_share_a_ramp_and_few_do_not():
    figure = conftest.learning_figure()
    colors = [line.get_color() for line in axes_of(figure).get_lines()]
    brightness = [sum(color[:3]) for color in colors]
    assert len(colors) == 8
    assert brightness == sorted(brightness, reverse=True)
    figure["series"] = figure["series"][:6]
    assert [line.get_color() for line in axes_of(figure).get_lines()] == list(LIGHT.series)


def test_equal_axes_set_the_height():
    """One unit is equally long on both axes, so a wide plane gets a low picture."""
    figure = conftest.slice_figure()
    wide = figure | {"y": [0.0, 0.5]}
    assert picture_size(wide)[1] < picture_size(figure)[1]
    assert axes_of(figure, draw_heatmap).get_aspect() == 1.0


def test_the_readers_matplotlib_settings_neither_matter_nor_change():
    import matplotlib

    figure = conftest.cycles_figure()
    expected = draw(figure, [(LIGHT, "png")])
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": None}):
        before = dict(matplotlib.rcParams)
        assert draw(figure, [(LIGHT, "png")]) == expected
        assert dict(matplotlib.rcParams) == before
    assert draw(figure, [(DARK, "png")]) != expected


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_ground_of_a_picture_is_the_ground_of_the_page(theme):
    """To the last bit, or a faint box would show; at twice the CSS size."""
    from PIL import Image, ImageColor

    figure = conftest.matrix_figure()
    (drawn,) = draw(figure, [(theme, "png")])
    picture = Image.open(io.BytesIO(drawn)).convert("RGB")
    corners = [(0, 0), (picture.width - 1, 0), (0, picture.height - 1)]
    assert {picture.getpixel(corner) for corner in corners} == {ImageColor.getrgb(theme.page)}
    assert picture.size == tuple(round(200 * inches) for inches in picture_size(figure))


def test_legend_names_read_row_by_row():
    """Three columns of seven names: matplotlib fills columns, so they are handed over reordered."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    names = [f"a long name {i}" for i in range(7)]
    for name in names:
        axes.plot([0, 1], label=name)
    draw_legend(axes)
    (legend,) = figure.legends
    figure.draw_without_rendering()
    boxes = [(text.get_window_extent(), text.get_text()) for text in legend.get_texts()]
    by_rows = sorted(boxes, key=lambda one: (-round(one[0].y0), one[0].x0))
    assert [name for _, name in by_rows] == names


def luminance(color: str) -> float:
    """Relative luminance of an sRGB color as WCAG 2 defines it."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: str, other: str) -> float:
    """Contrast ratio as WCAG 2 defines it, between 1 and 21."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_text_can_be_read(theme: Theme):
    """Every color of text reaches the WCAG ratio of 4.5 on both grounds, every ramp is monotone."""
    for word in ("ink", "muted", "link", "met", "missed", "unjudged"):
        for ground in (theme.page, theme.panel):
            assert contrast(getattr(theme, word), ground) >= 4.5, word
    ramp = [luminance(color) for color in theme.ramp]
    assert ramp == sorted(ramp, reverse=theme.name == "light")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "pie"}, "a figure is one of lines, heatmap, table, text; .* is 'pie'"),
        ({"series": None, "kind": "heatmap"}, "kind heatmap needs x, y, values"),
        ({"series": [{"name": "s", "x": [1, 2], "y": [1]}]}, "has y of 's' of length 1, not 2"),
        ({"series": [{"name": "s", "x": [1], "y": [1], "band": [[1], []]}]}, "band of 's'"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_figure(conftest.profile_figure() | change)


def test_ticks_read_as_numbers():
    assert [tick_text(v) for v in (1e-3, 0.02, 0.5, 1, 10, 2000, 1e5, 2e-5)] == [
        "0.001", "0.02", "0.5", "1", "10", "2,000", "$10^{5}$", "$2\\times10^{-5}$"]  # fmt: skip


def test_what_has_nothing_to_show_is_left_out():
    def drawn(name, *lines):
        return make.lines(name, "", "", "x", "y", lines)

    empty = [None, drawn("a", None), drawn("b", make.series("", [], []))]
    empty.append(make.table("c", "", "", ["n"], []))
    whole = [drawn("d", make.series("", [1], [2]), None), make.text("e", "", "words")]
    whole.append(make.table("f", "", "", ["n"], [[1]]))
    assert make.shown(empty + whole) == whole
    assert len(whole[0]["series"]) == 1


def test_a_band_goes_from_the_least_to_the_most():
    found = make.banded("mean", [1, 2], [[1.0, 2.0, 6.0], [4.0]], color=3)
    assert (found["y"], found["band"], found["color"]) == ([3.0, 4.0], [[1.0, 4.0], [6.0, 4.0]], 3)
