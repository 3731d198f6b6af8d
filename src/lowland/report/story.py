"""The short part of a page: stories, totals, what was missed and why, code for one's own model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CAUSE = "Likely cause of the miss:"  # as the notes of missed claims have it

# The names that the code of all stories goes by, in an example that runs as it stands.
PREAMBLE = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))


def network():
    return nn.Sequential(Block(), Block(), nn.Linear(8, 2))


def trained(model):
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for inputs, target in 20 * batches:
        optimizer.zero_grad()
        loss_fn(model(inputs), target).mean().backward()
        optimizer.step()
    return model


torch.manual_seed(0)
x = torch.randn(256, 8)
batches = list(zip(x.split(32), (x[:, 0] * x[:, 1] > 0).long().split(32)))
loss_fn = nn.CrossEntropyLoss(reduction="none")
model, start, end = network(), trained(network()), trained(network())
optimizer = torch.optim.SGD(model.parameters(), 0.1)
"""


def check_story(record: Mapping[str, Any], file: Path) -> None:
    """Refuse a story that cannot be told.

    Args:
        record: A record as plain values.
        file: Where it was read from.

    Raises:
        ValueError: If a part of the story is missing or of another kind, or its picture is none
            of the record's figures.

    Source:
        Ours.
    """
    story = record.get("story")
    if story is None:
        return
    parts = story if isinstance(story, Mapping) else {}
    wrong = [key for key in ("claimed", "figure", "own") if not is_text(parts.get(key))]
    measured = parts.get("measured")
    if not isinstance(measured, list) or not measured or not all(map(is_text, measured)):
        wrong.append("measured")
    if wrong:
        raise ValueError(
            "a story must have claimed, figure and own as texts and measured as a list of texts; "
            f"that of {file} has no such {', '.join(wrong)}. Run the recipe again."
        )
    names = [figure.get("id") for figure in record["figures"]]
    if parts["figure"] not in names:
        raise ValueError(
            f"the picture of a story must be one of the record's figures, {', '.join(names)}; "
            f"that of {file} is {parts['figure']!r}. Run the recipe again."
        )


def is_text(value: Any) -> bool:
    """Whether a value is a text that says something."""
    return isinstance(value, str) and bool(value.strip())


def describe_story(
    record: Mapping[str, Any], figures: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """A story with its picture, as the page shows it.

    Args:
        record: A record as plain values.
        figures: Its figures as the page shows them.

    Returns:
        ``claimed``, ``measured``, ``figure`` (the picture) and ``own``; None without a story.

    Source:
        Ours.
    """
    story = record.get("story")
    if story is None:
        return None
    (shown, *_) = (one for one in figures if one["id"] == story["figure"])
    return {**story, "figure": shown, "own": story["own"].strip("\n")}


def describe_misses(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The missed claims of one record, each with what we think is the cause.

    Args:
        claims: Claims as the page shows them.

    Returns:
        The missed ones; their notes come as ``beside``, what else was measured, and ``why``, the
        cause that the note names.

    Source:
        Ours.
    """
    found = []
    for claim in claims:
        if claim["verdict"] == "missed":
            beside, _, why = (part.strip() for part in claim["note"].partition(CAUSE))
            found.append({**claim, "beside": beside, "why": why or "not known."})
    return found


def own_code(sections: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The code for the user's own model, once for all runs of a recipe.

    Args:
        sections: What the page says about each record.

    Returns:
        By the name of each section with a story: its ``code``, its ``title``, and ``at``, the
        name of the first section that has this code.

    Source:
        Ours.
    """
    first: dict[str, str] = {}
    found = {}
    for section in sections:
        if section["story"]:
            code = section["story"]["own"]
            at = first.setdefault(code, section["name"])
            found[section["name"]] = {"code": code, "title": section["title"], "at": at}
    return found


def link_claims(sentence: str, section: Mapping[str, Any]) -> str:
    """A sentence whose claims lead to their rows.

    Args:
        sentence: From a record.
        section: What the page says about this record.

    Returns:
        HTML; everything else in the sentence is escaped.

    Source:
        Ours.
    """
    from markupsafe import Markup, escape

    known = {claim["id"] for claim in section["claims"]}

    def link(found: re.Match[str]) -> str:
        name = found[0]
        at = escape(f"#{section['name']}-{name}")
        return f'<a href="{at}">{name}</a>' if name in known else name

    return Markup(re.sub(r"\bC\d+[a-z]?\b", link, str(escape(sentence))))
