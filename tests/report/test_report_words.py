"""Numbers in words carry the right digits: the spread decides how many of the mean are shown."""

import doctest
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowland.report import ticks, words
from lowland.report.records import file_names, flatten, scalars
from lowland.report.words import format_measured, format_number, format_seconds, headline


@pytest.mark.parametrize("module", [words, ticks])
def test_the_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3, "3"), (-2.0, "−2"), (0.906, "0.906"), (12.345, "12.3"), (274042, "274,042"),
     (123456.7, "123,457"), (9.9e-6, "9.90 × 10⁻⁶"), (-2.5e12, "−2.50 × 10¹²"), (None, "–"),
     (float("nan"), "–"), (float("inf"), "–")],
)  # fmt: skip
def test_numbers(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ([1.0, 2.0, 3.0], "", "2.0 ± 1.0 (n = 3)"),
        ([0.0162 - 0.0009, 0.0162, 0.0162 + 0.0009], "nats", "0.01620 ± 0.00090 nats (n = 3)"),
        ([1e-7, 3e-7], "nats", "(2.0 ± 1.4) × 10⁻⁷ nats (n = 2)"),
        ([100.0, 100.001], "%", "100.0 ± 0.0 % (n = 2)"),
        ([-1.0, 1.0], "", "0.0 ± 1.4 (n = 2)"),
        ([25.0, 25.0], "%", "25 % (n = 2)"),
        ([0.5], "", "0.500 (n = 1)"),
        ([], "nats", "not measured"),
        ([1.0, None, 3.0], "", "2.0 ± 1.4 (n = 3, 1 not finite)"),
        ([None], "nats", "– (n = 1, 1 not finite)"),
    ],
)
def test_measurements(values, unit, text):
    """The spread is the sample standard deviation: 1 for 1, 2, 3 and sqrt(2) for -1, 1."""
    assert format_measured(values, unit) == text


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=2, max_size=5))
def test_the_mean_in_words_is_the_mean(values):
    """What is printed differs from the mean by half of the last digit that is printed."""
    text = format_measured(values).split(" (n")[0]
    digits = text.replace("(", "").split(" ±")[0].split(" ×")[0]
    shown = float(digits.replace(",", "").replace("−", "-"))
    if "×" in text:
        power = text.split("× 10")[1].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
        shown *= 10.0 ** int(power)
    mean, spread = fmean(values), stdev(values)
    # two digits of the spread, four of the larger of the two, three of a mean without spread
    error = max(0.05 * spread, 5e-4 * max(abs(mean), spread), 0 if spread else 5e-3 * abs(mean))
    assert shown == pytest.approx(mean, rel=0, abs=error * (1 + 1e-9))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (8.31, "8.3 s"), (59.4, "59 s"), (59.9, "1 min 0 s"), (102, "1 min 42 s"),
     (3599.9, "1 h 0 min"), (7500, "2 h 5 min"), (None, "–")],
)  # fmt: skip
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ("", "This run makes no claim."),
        ("u", "The one claim cannot be judged at this scale."),
        ("uu", "None of the 2 claims can be judged at this scale."),
        ("m", "The one judged claim was met."),
        ("mmu", "All 2 judged claims met; 1 not judged at this scale."),
        ("mx", "1 of 2 judged claims met, 1 missed."),
        ("xxu", "0 of 2 judged claims met, 2 missed; 1 not judged at this scale."),
    ],
)
def test_headlines(verdicts, sentence):
    names = {"m": "met", "x": "missed", "u": "not judged at this scale"}
    assert headline([{"verdict": names[letter]} for letter in verdicts]) == sentence


def test_settings_flatten_to_the_names_that_set_takes():
    settings = {"a": {"b": [1, 2], "c": None}, "cycles": [{"steps": 5}, {"steps": 6}], "e": {},
                "on": True}  # fmt: skip
    assert flatten(settings) == [("a.b", "[1, 2]"), ("a.c", "none"), ("cycles.0.steps", "5"),
                                 ("cycles.1.steps", "6"), ("e", "{}"), ("on", "true")]  # fmt: skip


def test_runs_become_one_table():
    columns, rows = scalars([{"a": 1, "curve": [1, 2]}, {"a": 2, "b": "x"}])
    assert columns == ["a", "b"]
    assert rows == [[1, None], [2, "x"]]


def test_file_names_are_distinct():
    records = [{"recipe": r, "scale": s} for r, s in [("a", "x"), ("a", "x"), ("b/c", "x")]]
    assert file_names(records) == ["a-x", "a-x-2", "b-c"]
