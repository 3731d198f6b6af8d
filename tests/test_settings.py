"""Settings by name: typed by the dataclass, refused in words, exact after a round trip."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowland.results import plain
from lowland.settings import apply_settings, from_plain, known_names


class Kind(Enum):
    FAST = "fast one"
    EXACT = "exact one"


@dataclass(frozen=True)
class Cycle:
    steps: int
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Schedule:
    cycles: tuple[Cycle, ...] = (Cycle(10), Cycle(20, 0.01))
    tangent: Literal["paper", "improved"] = "paper"
    alphas: tuple[float, ...] = (0.25, 0.5)


@dataclass(frozen=True)
class Settings:
    name: str
    schedule: Schedule = field(default_factory=Schedule)
    budget: int | None = None
    nothing: Schedule | None = None
    kind: Kind = Kind.FAST
    size: tuple[int, float] = (1, 2.0)
    where: Path = Path("a")
    verbose: bool = False
    either: int | str = 3


BASE = Settings("base")


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("name=a=b", lambda s: s.name == "a=b"),
        ("schedule.cycles.1.steps=5", lambda s: s.schedule.cycles == (Cycle(10), Cycle(5, 0.01))),
        ("schedule.cycles.0.learning_rate=1e-3",
         lambda s: s.schedule.cycles == (Cycle(10, 0.001), Cycle(20, 0.01))),
        ("schedule.cycles.0.steps=1e4", lambda s: s.schedule.cycles[0].steps == 10000),
        ("schedule.tangent=improved", lambda s: s.schedule.tangent == "improved"),
        ("schedule.alphas=(0.1, 0.9,)", lambda s: s.schedule.alphas == (0.1, 0.9)),
        ("schedule.alphas=", lambda s: s.schedule.alphas == ()),
        ("schedule.alphas.1=0.75", lambda s: s.schedule.alphas == (0.25, 0.75)),
        ("budget=10_000", lambda s: s.budget == 10000),
        ("budget=none", lambda s: s.budget is None),
        ("nothing=none", lambda s: s.nothing is None),
        ("kind=exact", lambda s: s.kind is Kind.EXACT),
        ("size=3,4", lambda s: s.size == (3, 4.0) and type(s.size[1]) is float),
        ("where=b/c d", lambda s: s.where == Path("b/c d")),
        ("verbose=yes", lambda s: s.verbose is True),
        (" verbose = FALSE ", lambda s: s.verbose is False),
        ("either=7", lambda s: s.either == 7),
        ("either=seven", lambda s: s.either == "seven"),
    ],
)  # fmt: skip
def test_a_value_is_read_as_the_type_of_its_field(change, read):
    changed = apply_settings(BASE, [change])
    assert read(changed)
    assert Settings("base") == BASE  # nothing is changed in place


def test_changes_apply_in_order():
    assert apply_settings(BASE, ["budget=1", "budget=2"]).budget == 2
    assert apply_settings(BASE, []) is BASE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("budgte=1", r"no setting 'budgte'\. Did you mean budget\? Known settings: name, "),
        ("schedul.tangent=paper", r"Did you mean schedule\.tangent"),
        ("steps=4", r"no setting 'steps'\. Did you mean schedule\.cycles\.0\.steps\?"),
        ("schedule.cycles.2.steps=4", r"no setting 'schedule\.cycles\.2\.steps'"),
        ("schedule.cycles.x.steps=4", "no setting"),
        ("schedule.cycles.-1.steps=4", "no setting"),
        ("name.first=4", r"no setting 'name\.first'"),
        ("xyzzy=4", r"no setting 'xyzzy'\. Known settings"),
        ("schedule=4", r"schedule is a group of settings; name one of them: schedule\.cycles\.0"),
        ("schedule.cycles=4", r"schedule\.cycles is a group"),
        ("schedule.cycles.0=4", r"schedule\.cycles\.0 is a group"),
        ("budget=much", "budget must be a whole number or none; got 'much'"),
        ("budget=1.5", "budget must be a whole number or none; got '1.5'"),
        ("verbose=maybe", "verbose must be true or false; got 'maybe'"),
        ("schedule.tangent=wild", r"schedule\.tangent must be one of paper, improved; got 'wild'"),
        ("schedule.alphas=1,b", "must be values separated by commas, each a number; got '1,b'"),
        ("size=1", "size must be values separated by commas, each a whole number then a number"),
        ("kind=slow", "kind must be one of fast, exact; got 'slow'"),
        ("name", "a setting is given as name=value; got 'name'"),
        ("=3", "no setting ''"),
    ],
)
def test_a_wrong_change_is_answered_in_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        apply_settings(BASE, [change])


def test_every_known_name_can_be_set():
    """What the error message lists is accepted, with the value it has."""
    values = {"name": "base", "schedule.tangent": "paper", "kind": "fast", "where": "a"}
    for name in known_names(BASE):
        if name not in ("schedule.alphas", "size", "budget", "nothing", "verbose", "either"):
            value = values.get(name, {"steps": 10, "learning_rate": 0.1}.get(name.split(".")[-1]))
            assert apply_settings(BASE, [f"{name}={value}"]) == BASE
    assert len(known_names(BASE)) == 12


cycles = st.builds(Cycle, st.integers(), st.floats(allow_nan=False, allow_infinity=False))
schedules = st.builds(
    Schedule,
    st.lists(cycles, max_size=3).map(tuple),
    st.sampled_from(["paper", "improved"]),
    st.lists(st.floats(0, 1), max_size=3).map(tuple),
)


@given(
    st.builds(
        Settings, st.text(), schedules, st.none() | st.integers(), st.none() | schedules,
        st.sampled_from(Kind), st.tuples(st.integers(), st.floats(-1, 1)), st.just(Path("x")),
        st.booleans(), st.integers() | st.text("abc"),
    )
)  # fmt: skip
def test_plain_values_come_back_exactly(settings):
    """from_plain undoes plain, whatever the base; types included."""
    back = from_plain(Settings, plain(settings))
    assert back == settings
    assert repr(back) == repr(settings)
    assert from_plain(Settings, plain(settings), BASE) == settings


def test_what_a_record_lacks_comes_from_the_base():
    """At any depth; without a base, from the defaults of the code."""
    base = Settings("base", Schedule(tangent="improved", alphas=()), budget=9)
    assert from_plain(Settings, {"schedule": {"alphas": [1]}}, base) == Settings(
        "base", Schedule(tangent="improved", alphas=(1.0,)), budget=9
    )
    assert from_plain(Settings, {"name": "n"}) == Settings("n")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "the settings must hold name; they do not"),
        ({"name": "n", "budgt": 1}, r"no setting 'budgt'\. Did you mean budget"),
        ({"name": "n", "schedule": {"tangnt": 1}}, r"Did you mean schedule\.tangent"),
        ({"name": "n", "budget": "much"}, "budget must be a whole number or none; got 'much'"),
        ({"name": "n", "budget": True}, "budget must be a whole number or none; got true"),
        ({"name": "n", "schedule": 3}, "schedule must be"),
        ({"name": "n", "verbose": None}, "verbose must be true or false; got null"),
        ({"name": "n", "schedule": {"cycles": [{"rate": 3}]}}, r"'schedule\.cycles\.0\.rate'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_plain(Settings, values)
