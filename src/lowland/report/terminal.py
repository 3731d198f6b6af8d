"""The claims of a record as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lowland.report.words import headline, mean_and_count

if TYPE_CHECKING:
    from rich.table import Table

WIDEST = 120  # columns; wider lines are hard to follow
STYLES = {"met": "green", "missed": "bold red"}


def print_claims(records: Sequence[Mapping[str, Any]], stream: Any) -> None:
    """Print one table per record, each under a sentence with its counts.

    Args:
        records: Records as plain values.
        stream: Text stream to write to; colors and width follow it.

    Source:
        Ours.
    """
    from rich.console import Console

    console = Console(file=stream, highlight=False, markup=False)
    console.width = min(console.width, WIDEST)
    for record in records:
        console.print()
        console.print(f"{record['recipe']}, {record['scale']} scale", style="bold", end=": ")
        console.print(headline(record["claims"]))
        if record["claims"]:
            console.print(claims_table(record["claims"]))


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """The table; a verdict is a word first and a color second."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
    table.add_column("", no_wrap=True)
    table.add_column("verdict", max_width=10)
    table.add_column("claim", ratio=5)
    table.add_column("paper", ratio=3)
    table.add_column("here", ratio=4)
    for claim in claims:
        table.add_row(
            Text(claim["id"]),
            Text(claim["verdict"], style=STYLES.get(claim["verdict"], "dim")),
            Text(claim["statement"]),
            Text(claim["paper"] or "no number"),
            Text("\n".join(filter(None, mean_and_count(claim["values"], claim["unit"])))),
        )
    return table
