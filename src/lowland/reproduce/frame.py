"""One frame for all recipes: read, measure and keep, judge and draw, leave a record."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowland.reproduce.images import Images
from lowland.reproduce.kept import Kept
from lowland.results import Claim, Record, Status, environment, open_folder, plain
from lowland.training import choose_device, open_progress, use_threads

__all__ = ["Measured", "Recipe", "pass_ctrl_c_on", "unfinished"]


@dataclass(frozen=True)
class Measured:
    """What the experiments of a recipe gave.

    Attributes:
        parts: Plain values by name: all that claims and figures go by.
        runs: Numbers of each repetition, with its ``"seed"`` or ``"seeds"``.
        notes: Sentences the reader should see.
        status: How the experiments ended.
    """

    parts: dict[str, Any]
    runs: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    status: Status = Status.FINISHED


@dataclass(frozen=True)
class Recipe:
    """What is a recipe's own; :meth:`run` is the same for all.

    Attributes:
        name: As the command line knows it.
        paper: Title, authors, year and arXiv number.
        repeat: Of settings and a number, settings with this number of repetitions.
        read: Of settings and ``device``, ``data`` and ``download``, all images by name; what
            cannot run is refused here, before anything is written.
        measure: Of settings, these images, what keeps finished parts and a display, what came out.
        judge: Of plain settings and parts, the claims.
        draw: Likewise, the figures as the report reads them.
        tell: Of these, claims and figures, the story: ``claimed``, ``measured``, ``figure`` and
            ``own`` of :class:`lowland.results.Record`.
    """

    name: str
    paper: dict[str, Any]
    repeat: Callable[[Any, int], Any]
    read: Callable[..., Mapping[str, Images]]
    measure: Callable[[Any, Any, Kept, Any], Measured]
    judge: Callable[[Any, dict[str, Any]], list[Claim]]
    draw: Callable[[Any, dict[str, Any]], list[dict[str, Any]]]
    tell: Callable[[Any, dict[str, Any], list[Claim], list[dict[str, Any]]], dict[str, Any]]

    def run(
        self,
        settings: Any,
        *,
        seeds: int | None = None,
        out: str | Path,
        progress: Any = False,
        data: str | Path | None = None,
        download: bool = False,
        restart: bool = False,
        command: str = "",
    ) -> Record:
        """Run every experiment of a scale, and judge the claims.

        Whatever is finished lies in ``out`` and is not done again; a training that keeps its state
        goes on in the middle.

        Args:
            settings: From the recipe's ``settings``, changed at will.
            seeds: Repetitions of every experiment, instead of those of the settings.
            out: Folder for finished parts and the record.
            progress: As for :func:`lowland.training.open_progress`.
            data: Folder to look for data sets in, first.
            download: Whether a data set may be downloaded.
            restart: Begin anew; what lies in ``out`` is moved to ``<out>.old-1``, ``-2`` and so on.
            command: What to print for whoever wants to repeat the run.

        Returns:
            The record, also written to ``record.json``. Ctrl-C passes through, with everything
            finished saved; wrong settings are refused by ValueError.
        """
        if seeds is not None:
            settings = self.repeat(settings, seeds)
        device = choose_device(settings.device)
        images = self.read(settings, device=device, data=data, download=download)
        values = plain(settings)
        kept = Kept(open_folder(out, values, restart))
        with use_threads(settings.threads), open_progress(progress) as display:
            used = environment(str(device))
            found = self.measure(settings, images, kept, display)
        claims, figures = self.judge(values, found.parts), self.draw(values, found.parts)
        notes = [one.note for one in images.values() if one.note] + found.notes
        record = Record(
            recipe=self.name,
            paper=self.paper,
            scale=settings.scale,
            settings=values,
            seeds=seeds_of(found.runs),
            runs=found.runs,
            claims=claims,
            figures=figures,
            environment=used,
            seconds=kept.seconds,
            command=command,
            status=plain(found.status),
            notes=list(dict.fromkeys(notes)),
            story=self.tell(values, found.parts, claims, figures),
        )
        record.save(kept.folder / "record.json")
        return record


def seeds_of(runs: Iterable[dict[str, Any]]) -> list[int]:
    """The seeds of all repetitions, each once."""
    return sorted({seed for one in runs for seed in one.get("seeds") or [one["seed"]]})


def unfinished(runs: Sequence[dict[str, Any]], words: Callable[[dict[str, Any]], str]) -> list[str]:
    """Say which runs did not do all their steps, and why.

    Args:
        runs: Each with its ``"status"`` and maybe a ``"message"``.
        words: What to call a run.

    Returns:
        A sentence for each of them.
    """
    return [
        f"{words(one)}: {one.get('message') or Status[one['status'].upper()].value + '.'}"
        for one in runs
        if one["status"] != plain(Status.FINISHED)
    ]


def pass_ctrl_c_on(status: Status) -> None:
    """Pass a Ctrl-C that a driver has survived on to whoever runs the recipe.

    Args:
        status: How the driver ended.

    Raises:
        KeyboardInterrupt: If it was interrupted.
    """
    if status is Status.INTERRUPTED:
        raise KeyboardInterrupt
