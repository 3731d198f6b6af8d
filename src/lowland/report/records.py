"""Find saved records in a folder, and say in words what is wrong with one that cannot be drawn."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lowland.leftovers import is_moved_aside
from lowland.report.story import check_story
from lowland.report.words import VERDICTS
from lowland.results import Status

NEEDED = ("recipe", "claims", "figures")


def find_records(folder: Path) -> list[Path]:
    """The records of a folder and of the two levels below it.

    Args:
        folder: Where to look.

    Returns:
        Every ``record.json``, the nearest first, then by name.

    Raises:
        FileNotFoundError: If the folder does not exist or holds none.

    Source:
        Ours.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"a report is made of a folder with results; {folder} is not a folder. "
            "Name the folder that a run wrote into."
        )
    files = [
        file
        for pattern in ("record.json", "*/record.json", "*/*/record.json")
        for file in sorted(folder.glob(pattern))
        if not any(is_moved_aside(part) for part in file.relative_to(folder).parts)
    ]
    if not files:
        raise FileNotFoundError(
            f"a report needs at least one record.json; found none in {folder} or two levels "
            "below. Run a recipe into this folder first (one that was stopped writes its record "
            "when the same command has ended), or name another folder."
        )
    return files


def read_record(file: Path) -> dict[str, Any]:
    """Read one record as plain values.

    Args:
        file: A ``record.json``.

    Returns:
        The record, with an empty value for each field that it does not have.

    Raises:
        ValueError: If the file is not a record, or its story cannot be told.

    Source:
        Ours.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"a record must be JSON; {file} is not ({error}). Run the recipe again."
        ) from None
    missing = [key for key in NEEDED if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(
            f"a record must have {', '.join(NEEDED)}; {file} lacks {', '.join(missing)}. "
            "Remove the file if it is not a record of this library."
        )
    for claim in record["claims"]:
        if claim.get("verdict") not in VERDICTS:
            raise ValueError(
                f"a verdict must be one of {', '.join(VERDICTS)}; claim {claim.get('id')} in "
                f"{file} says {claim.get('verdict')!r}. Run the recipe again."
            )
    check_story(record, file)
    empty = {"paper": {}, "scale": "", "settings": {}, "seeds": [], "runs": [], "environment": {}}
    words = {"seconds": None, "command": "", "status": "", "notes": [], "story": None}
    return empty | words | record


def check_figure(figure: Mapping[str, Any]) -> None:
    """Refuse a figure that cannot be drawn.

    Args:
        figure: A figure of a record.

    Raises:
        ValueError: If the kind is unknown, or arrays do not fit together.

    Source:
        Ours.
    """
    kinds = {
        "lines": ("x_label", "y_label", "series"),
        "heatmap": ("x_label", "y_label", "x", "y", "values"),
        "table": ("columns", "rows"),
        "text": ("text",),
    }
    kind, name = figure.get("kind"), figure.get("id")
    if kind not in kinds:
        raise ValueError(f"a figure is one of {', '.join(kinds)}; figure {name!r} is {kind!r}.")
    missing = [key for key in ("id", "title", *kinds[kind]) if key not in figure]
    if missing:
        raise ValueError(f"a figure of kind {kind} needs {', '.join(missing)}; {name!r} has none.")
    for what, expected, got in lengths(figure):
        if expected != got:
            raise ValueError(
                f"arrays of one curve must be equally long; figure {name!r} has {what} of length "
                f"{got}, not {expected}."
            )


def lengths(figure: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Pairs of lengths that must agree: what, expected, got."""
    pairs: list[tuple[str, int, int]] = []
    if figure["kind"] == "lines":
        for series in figure["series"]:
            expected = len(series["x"])
            pairs.append((f"y of {series['name']!r}", expected, len(series["y"])))
            for edge in series.get("band") or ():
                pairs.append((f"band of {series['name']!r}", expected, len(edge)))
    elif figure["kind"] == "heatmap":
        pairs.append(("values", len(figure["y"]), len(figure["values"])))
        pairs += [("a row of values", len(figure["x"]), len(row)) for row in figure["values"]]
        for path in figure.get("paths") or ():
            pairs.append((f"y of {path['name']!r}", len(path["x"]), len(path["y"])))
    elif figure["kind"] == "table":
        pairs += [("a row", len(figure["columns"]), len(row)) for row in figure["rows"]]
    return pairs


def unfinished(status: str) -> str:
    """Why a run did not finish.

    Args:
        status: The status of a record, as a sentence or as its name.

    Returns:
        What it did instead, in words; empty for a run that finished.

    Source:
        Ours.
    """
    words = {kind.name.lower(): kind.value for kind in Status}
    sentence = words.get(status, status)
    good = ("", Status.FINISHED.value, Status.CONVERGED.value)
    return "" if sentence in good else sentence


def flatten(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and values, the way ``--set`` takes them.

    Args:
        values: Nested mappings and lists.
        name: The name of ``values`` itself.

    Returns:
        Pairs such as ``("schedule.cycles.0.steps", "100")``.

    Source:
        Ours.
    """
    if isinstance(values, Mapping) and values:
        parts = list(values.items())
    elif isinstance(values, list) and any(isinstance(item, Mapping) for item in values):
        parts = list(enumerate(values))
    else:
        text = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)
        text = "none" if values is None else text
        return [(name, text)]
    return [
        line
        for key, value in parts
        for line in flatten(value, f"{name}.{key}" if name else str(key))
    ]


def scalars(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """The single numbers and words of every run as one table.

    Args:
        runs: The runs of a record, each with whatever it measured.

    Returns:
        Columns in order of appearance, and one row per run.

    Source:
        Ours.
    """
    columns = list(
        dict.fromkeys(
            key
            for run in runs
            for key, value in run.items()
            if value is None or isinstance(value, int | float | str)
        )
    )
    rows = [[run.get(key) for key in columns] for run in runs]
    return columns, rows


def file_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each record that its figures can carry: the recipe, and more where needed.

    Args:
        records: The records of one page.

    Returns:
        Distinct names safe for files and links: recipe, recipe-scale, or recipe-scale-2.

    Source:
        Ours.
    """
    recipes = [record["recipe"] for record in records]
    names: list[str] = []
    for record in records:
        name = safe(record["recipe"])
        if recipes.count(record["recipe"]) > 1:
            name = safe(f"{name}-{record['scale']}")
        candidate, number = name, 2
        while candidate in names:
            candidate, number = f"{name}-{number}", number + 1
        names.append(candidate)
    return names


def safe(text: str) -> str:
    """A text as a part of a file name: letters, digits, dot, dash and underscore only."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "unnamed"
