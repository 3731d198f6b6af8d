"""What the commands do: find a recipe, settle its values, run it, show what came out."""

import json
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from lowland.errors import LowlandError

WRONG_USAGE, MISSED, INTERRUPTED = 2, 3, 130  # exit codes

# In this order two cores are done with the recipes of the demo at about the same time.
ORDER = ("katharopoulos2018", "draxler2018", "li2018", "baityjesi2018", "huang2018")


class UsageError(Exception):
    """The command asks for something that does not exist."""


class Choice(NamedTuple):
    """A recipe with all its values settled."""

    name: str
    module: ModuleType
    settings: Any
    scale: str
    seeds: int | None


def say(text: str) -> None:
    """Tell the person at the terminal, beside whatever reads the output."""
    print(text, file=sys.stderr, flush=True)


def stopped(line: str) -> int:
    """Say how to go on after Ctrl-C."""
    say(f"\nStopped. The same command goes on from the last saved state:\n  {line}")
    return INTERRUPTED


def list_recipes(args: Namespace) -> int:
    """``lowland list``: a line for each recipe."""
    from lowland.reproduce import RECIPES

    lines = {**RECIPES, "demo": "all of these on the embedded digits, on one page"}
    width = max(map(len, lines))
    for name, description in lines.items():
        print(f"{name:{width}}  {description}")
    return 0


def show_recipe(args: Namespace) -> int:
    """``lowland show``: the source of the settings, then every value as JSON."""
    import inspect

    from lowland.results import plain

    choice = choose(args, args.recipe)
    if not args.json:
        print(f"# lowland.reproduce.{choice.name}\n{inspect.getsource(choice.module.settings)}")
    print(json.dumps(plain(choice.settings), indent=1, ensure_ascii=False))
    return 0


def draw_report(args: Namespace) -> int:
    """``lowland report``: draw saved records again."""
    from lowland.report import write_report

    print(write_report(args.folder, processes=os.cpu_count() or 1).resolve())
    return 0


def run_recipes(args: Namespace) -> int:
    """``lowland run``: one recipe, or all of them as the demo."""
    from lowland.side_by_side import has_parent

    refuse_torchrun()
    if args.recipe == "demo":
        return run_demo(args)
    choice = choose(args, args.recipe)
    out = args.out or Path("lowland-out") / f"{choice.name}-{choice.scale}"
    record = run_one(args, choice, out, args.line)
    if not has_parent():  # which draws all pages as one
        finish(args, [record], out)
    if interrupted(record):
        return stopped(args.line)
    if did_not_finish(record):
        return 1
    return MISSED if any(claim.verdict == "missed" for claim in record.claims) else 0


def refuse_torchrun() -> None:
    """Refuse to do the same work in several processes, all in one folder."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise UsageError(
            f"a recipe runs in one process; torchrun started {world}. Start it without torchrun; "
            "in a script of your own, find_path shares its pivots out over an open process group."
        )


def run_demo(args: Namespace) -> int:
    """``lowland run demo``: every recipe into one folder and one page."""
    from lowland.reproduce import RECIPES

    if args.source or args.changes:
        raise UsageError("--from and --set belong to one recipe; the demo runs all of them.")
    out = args.out or Path("lowland-out") / "demo"
    cores = os.cpu_count() or 1
    if len(RECIPES) > 1 and cores > 1 and args.threads is None:
        records = run_together(args, out, cores)
    else:
        records = run_in_turn(args, [choose(args, name) for name in RECIPES], out)
    if any(map(interrupted, records)):
        return stopped(args.line)
    finish(args, records, out)
    # a missed claim is a result of the demo, not its failure
    return 1 if any([did_not_finish(record) for record in records]) else 0


def line_of(args: Namespace, name: str) -> list[str]:
    """The words that repeat one recipe of the demo."""
    seeds = [] if args.seeds is None else ["--seeds", str(args.seeds)]
    return ["run", name, "--scale", args.scale or "laptop", *seeds]


def run_in_turn(args: Namespace, choices: Sequence[Choice], out: Path) -> list[Any]:
    """Run recipes one after the other, in this process."""
    from lowland.reproduce import RECIPES

    records = []
    for number, choice in enumerate(choices, 1):
        if not args.quiet:
            say(f"{number} of {len(choices)}  {choice.name}: {RECIPES[choice.name]}")
        line = shlex.join(["lowland", *line_of(args, choice.name)])
        records.append(run_one(args, choice, out / choice.name, line))
        if interrupted(records[-1]):
            break
    return records


def run_together(args: Namespace, out: Path, cores: int) -> list[Any]:
    """Run recipes side by side, one on each core; no recipe is imported here, to begin at once."""
    from lowland.reproduce import RECIPES
    from lowland.results import Record
    from lowland.side_by_side import Job, run_side_by_side

    common = ["--threads", "1", "--quiet"]
    common += [f"--{name}" for name in ("download", "restart") if getattr(args, name)]
    common += [] if args.data is None else ["--data", str(args.data)]
    jobs = []
    for number, (name, what) in enumerate(RECIPES.items(), 1):
        if not args.quiet:
            say(f"{number} of {len(RECIPES)}  {name}: {what}")
        words = [*line_of(args, name), "--out", str(out / name), *common]
        jobs.append(Job(name, tuple(words)))
    jobs.sort(key=lambda job: ORDER.index(job.name) if job.name in ORDER else 0)
    ended = run_side_by_side(jobs, cores, progress=not args.quiet)
    if any(code == INTERRUPTED for code, _ in ended.values()):
        raise KeyboardInterrupt
    records = []
    for name in RECIPES:
        code, words = ended[name]
        if code == WRONG_USAGE:
            raise UsageError(words.removeprefix("lowland: "))
        if code not in (0, MISSED):
            raise LowlandError(f"{name} ended with code {code}: {words or 'without a word'}")
        file = out / name / "record.json"
        line = shlex.join(["lowland", *line_of(args, name)])
        records.append(replace(Record.load(file), command=line))
        records[-1].save(file)
    return records


def choose(args: Namespace, name: str | None) -> Choice:
    """Settle all values: code default < recipe < ``--from`` < ``--set``."""
    from lowland.settings import apply_settings, from_plain

    source = read_source(args.source)
    name = name or source.get("recipe")
    if not name:
        raise UsageError("name a recipe first, as in `lowland run demo`; `lowland list` has all.")
    for what, asked in (("recipe", name), ("scale", args.scale or source.get("scale"))):
        if source.get(what, asked) != asked:
            raise UsageError(f"{args.source} holds {what} {source[what]}, not {asked}.")
    scale = args.scale or source.get("scale") or "laptop"
    module = find_recipe(name)
    try:
        settings = module.settings(scale)
        if source:
            settings = from_plain(type(settings), source["settings"], settings)
        settings = apply_settings(settings, args.changes)
    except ValueError as error:
        raise UsageError(str(error)) from None
    # a record's settings already hold its repetitions, which may differ between its parts
    return Choice(name, module, settings, scale, getattr(args, "seeds", None))


def read_source(file: Path | None) -> Mapping[str, Any]:
    """The record that ``--from`` names; plain settings count as a record that holds only them."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--from must name a record.json; cannot read {file}: {error}.") from None
    if not isinstance(found, dict):
        raise UsageError(f"--from must name a record.json; {file} does not hold a record.")
    return found if isinstance(found.get("settings"), dict) else {"settings": found}


def find_recipe(name: str) -> ModuleType:
    """The module of a recipe."""
    from difflib import get_close_matches
    from importlib import import_module

    from lowland.reproduce import RECIPES

    if name == "demo":
        raise UsageError(f"demo stands for all recipes; name one of {', '.join(RECIPES)}.")
    if name not in RECIPES:
        near = get_close_matches(name, [*RECIPES, "demo"], n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"there is no recipe {name!r}.{hint} Recipes: {', '.join(RECIPES)}.")
    return import_module(f"lowland.reproduce.{name}")


def run_one(args: Namespace, choice: Choice, out: Path, line: str) -> Any:
    """Run one recipe and keep its record."""
    threads = nullcontext()
    if args.threads is not None:
        from lowland.training.device import use_threads

        threads = use_threads(args.threads)
    with threads:
        record = choice.module.run(
            choice.settings,
            seeds=choice.seeds,
            out=out,
            progress=not args.quiet,
            data=args.data,
            download=args.download,
            restart=args.restart,
            command=line,
        )
    record.save(out / "record.json")
    return record


def finish(args: Namespace, records: Sequence[Any], out: Path) -> None:
    """Draw the page, print the claims and, as the last line, where the page is."""
    from lowland.report import write_report
    from lowland.report.terminal import print_claims
    from lowland.results import plain

    page = write_report(out, processes=os.cpu_count() or 1)
    values = [plain(record) for record in records]
    stream = sys.stderr if args.json else sys.stdout
    print_claims(values, stream)
    print(f"\n{page.resolve()}", file=stream, flush=True)
    if args.json:
        whole = values if args.recipe == "demo" else values[0]
        print(json.dumps(whole, indent=1, ensure_ascii=False))


def interrupted(record: Any) -> bool:
    """Whether a recipe ended early because it was told to."""
    from lowland.results import Status

    return record.status in (Status.INTERRUPTED.value, Status.INTERRUPTED.name.lower())


def did_not_finish(record: Any) -> bool:
    """Whether a run ended before it could judge its claims; says so."""
    from lowland.report.records import unfinished

    reason = unfinished(record.status)
    if reason:
        say(f"lowland: error: {record.recipe} did not finish: it {reason}.")
    return bool(reason)
