"""Write the page: every record of a folder becomes one HTML file, its Markdown twin and figures."""

import multiprocessing
import re
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from lowland import __version__
from lowland.report.csv_files import figure_csv
from lowland.report.records import (
    check_figure,
    file_names,
    find_records,
    flatten,
    read_record,
    safe,
    scalars,
    unfinished,
)
from lowland.report.story import (
    PREAMBLE,
    describe_misses,
    describe_story,
    link_claims,
    own_code,
)
from lowland.report.theme import DARK, LIGHT, css_variables
from lowland.report.words import (
    count_verdicts,
    format_measured,
    format_number,
    format_seconds,
    headline,
    mean_and_count,
)
from lowland.results import write_bytes

MOST_VALUES_SHOWN = 6


def write_report(folder: str | Path, *, processes: int = 1) -> Path:
    """Draw all records of a folder into one page that opens offline.

    Beside the page it writes ``report.md`` and, for each figure, ``figures/<recipe>-<id>`` as
    ``.csv`` (every plotted number), ``.png`` (twice the size of the page) and ``.svg``. The same
    records give the same bytes.

    Args:
        folder: Holds a ``record.json`` itself or up to two levels below.
        processes: Draw that many records at a time. More than one starts Python anew: call it from
            a main module that is guarded by ``if __name__ == "__main__"``.

    Returns:
        The page, ``report.html``.

    Raises:
        FileNotFoundError: If there is no record.
        ValueError: If no ``record.json`` is a record.

    Source:
        Ours.
    """
    folder = Path(folder)
    files, records, unreadable = [], [], []
    for file in find_records(folder):
        try:
            records.append(read_record(file))
            files.append(file.relative_to(folder))
        except ValueError as error:
            unreadable.append(str(error).replace(str(file), str(file.relative_to(folder))))
    if not records:
        raise ValueError(unreadable[0])
    names = file_names(records)
    whole = (records, names, files, [folder / "figures"] * len(records))
    workers = min(processes, len(records))
    if workers > 1:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            sections = list(pool.map(describe, *whole))
    else:
        sections = [describe(*parts) for parts in zip(*whole, strict=True)]
    own = own_code(sections)
    page = {
        "title": f"lowland: {sections[0]['headline']}" if len(sections) == 1 else "lowland report",
        "version": __version__,
        "sections": sections,
        "unreadable": unreadable,
        "told": bool(own),
        "own": own,
        "preamble": PREAMBLE.strip(),
        "totals": count_verdicts([claim for one in sections for claim in one["claims"]]),
        "light": css_variables(LIGHT),
        "dark": css_variables(DARK),
    }
    write_bytes(folder / "report.md", render("page.md.jinja", page).encode())
    return write_bytes(folder / "report.html", render("page.html.jinja", page).encode())


def render(template: str, page: Mapping[str, Any]) -> str:
    """Fill a template of this folder; HTML is escaped, Markdown cells are kept in their cell."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    is_html = template.endswith(".html.jinja")
    jinja = Environment(loader=loader, autoescape=is_html, undefined=StrictUndefined)
    jinja.filters["cell"] = cell if is_html else markdown_cell
    jinja.filters["unbroken"] = unbroken
    jinja.filters["link_claims"] = link_claims
    return jinja.get_template(template).render(page)


def cell(value: Any) -> str:
    """A table cell as text: few digits, words for truth values, a dash for a hole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_number(value) if value is None or isinstance(value, int | float) else str(value)


def unbroken(text: str) -> str:
    """A measurement that does not break between its mean, its spread and its count."""
    return re.sub(r" ([±×]) |\bn (=) (?=\d)| (%)", hold_together, text)


def hold_together(found: re.Match[str]) -> str:
    """The same with blanks at which no line ends."""
    return found[0].replace(" ", "\u00a0")


def markdown_cell(value: Any) -> str:
    """A table cell as Markdown, where a bar or a line break would end the cell."""
    return cell(value).replace("|", "\\|").replace("\n", " ")


def describe(record: Mapping[str, Any], name: str, file: Path, figures: Path) -> dict[str, Any]:
    """What the page says about one record, and its figures written to disk."""
    paper = record["paper"]
    columns, runs = scalars(record["runs"])
    count = len(record["seeds"])
    claims = [describe_claim(claim) for claim in record["claims"]]
    shown = [describe_figure(figure, name, figures) for figure in record["figures"]]
    facts = [record["recipe"], f"{record['scale']} scale" if record["scale"] else ""]
    facts += [f"{count} seed{'s' if count > 1 else ''}" if count else ""]
    facts += [format_seconds(record["seconds"]) if record["seconds"] else ""]
    return {
        "record": record,
        "name": name,
        "file": file.as_posix(),
        "title": paper.get("title") or record["recipe"],
        "citation": citation(paper),
        "arxiv": paper.get("arxiv", ""),
        "facts": [fact for fact in facts if fact],
        "headline": headline(record["claims"]),
        "unfinished": unfinished(record["status"]),
        "claims": claims,
        "counts": count_verdicts(claims),
        "misses": describe_misses(claims),
        "figures": shown,
        "story": describe_story(record, shown),
        "duration": format_seconds(record["seconds"]) if record["seconds"] else "",
        "settings": flatten(record["settings"]) if record["settings"] else [],
        "environment": flatten(record["environment"]) if record["environment"] else [],
        "columns": columns,
        "runs": runs if columns else [],
    }


def citation(paper: Mapping[str, Any]) -> str:
    """Authors, year and venue in one line."""
    authors = paper.get("authors", "")
    text = authors if isinstance(authors, str) else ", ".join(authors)
    year = f"({paper['year']})" if paper.get("year") else ""
    end = f"{paper['venue']}." if paper.get("venue") else ""
    return " ".join(part for part in (text, year, end) if part)


def describe_claim(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A claim with its numbers in words."""
    values = claim.get("values") or []
    tone = claim["verdict"] if claim["verdict"] in ("met", "missed") else "unjudged"
    mean, count = mean_and_count(values, claim.get("unit", ""))
    each = ", ".join(format_number(value) for value in values)
    listed = 1 < len(values) <= MOST_VALUES_SHOWN
    return {
        "id": claim.get("id", ""),
        "statement": claim.get("statement", ""),
        "paper": claim.get("paper", ""),
        "rule": claim.get("rule", ""),
        "note": claim.get("note", ""),
        "verdict": claim["verdict"],
        "tone": tone,
        "mean": mean,
        "count": f"{count}: {each}" if listed else count,
        "measured": format_measured(values, claim.get("unit", "")),
    }


def describe_figure(figure: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """A figure as the page shows it; its files are written, a broken one says why."""
    shown = {"kind": "", "id": "", "title": "", "caption": "", "problem": "", "files": []}
    shown |= figure
    try:
        check_figure(figure)
    except ValueError as error:
        return shown | {"problem": str(error)}
    stem = f"{name}-{safe(figure['id'])}"
    if figure["kind"] == "text":
        return shown
    write_bytes(folder / f"{stem}.csv", figure_csv(figure).encode())
    if figure["kind"] == "table":
        return shown | {"files": [f"{stem}.csv"]}
    return shown | draw_files(figure, folder / stem)


def draw_files(figure: Mapping[str, Any], stem: Path) -> dict[str, Any]:
    """Draw a picture for light and dark pages, and as files beside the page."""
    from lowland.report.draw import draw, picture_size

    light, vectors, dark = draw(figure, [(LIGHT, "png"), (LIGHT, "svg"), (DARK, "png")])
    write_bytes(stem.with_name(f"{stem.name}.png"), light)
    write_bytes(stem.with_name(f"{stem.name}.svg"), vectors)
    width, height = picture_size(figure)
    return {
        "files": [f"{stem.name}.{ending}" for ending in ("csv", "png", "svg")],
        "light": b64encode(light).decode(),
        "dark": b64encode(dark).decode(),
        "width": round(100 * width),
        "height": round(100 * height),
    }
