"""The command line: list, show, run, report. Nothing heavy is imported before it is needed."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lowland import __version__
from lowland.commands import (
    UsageError,
    draw_report,
    list_recipes,
    run_recipes,
    say,
    show_recipe,
    stopped,
)

SCALES = "smoke, laptop, hour, gpu, paper"
EXAMPLES = """\
examples:
  lowland run demo                             all recipes on the embedded digits, one page
  lowland run draxler2018 --scale smoke        one paper, in seconds
  lowland run draxler2018 --scale hour --data ~/data --seeds 3
  lowland show draxler2018                     the recipe and all its values
  lowland run draxler2018 --set NAME=VALUE     with another value; a typo is answered with names
  lowland run --from lowland-out/draxler2018-smoke/record.json
                                               repeat a recorded run
  lowland report lowland-out/demo              draw saved records again

The same command goes on where it was stopped. LOWLAND_TRACEBACK=1 shows the whole error.

exit codes: 0 all claims met or none judged, 1 error, 2 usage, 3 a claim missed, 130 stopped
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after ``lowland``; those of this process if None.

    Returns:
        The exit code: 0 all claims met or none judged, 1 error, 2 usage, 3 a claim missed, 130
        stopped by Ctrl-C.

    Raises:
        Exception: What went wrong, if ``LOWLAND_TRACEBACK`` is set.

    Source:
        Ours.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.do is None:
        parser.print_help()
        return 2
    args.line = shlex.join(["lowland", *argv])
    try:
        code = args.do(args)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
        return code
    except KeyboardInterrupt:
        return stopped(args.line)
    except UsageError as error:
        say(f"lowland: {error}")
        return 2
    except BrokenPipeError:  # the reader of our output has gone, for instance `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("LOWLAND_TRACEBACK"):
            raise
        say(f"lowland: error: {in_a_sentence(error)}")
        return 1


def in_a_sentence(error: Exception) -> str:
    """What went wrong; the kind of an error that nobody expected, too."""
    from lowland.errors import LowlandError

    if isinstance(error, LowlandError | ValueError | OSError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (LOWLAND_TRACEBACK=1 shows where)"


def make_parser() -> argparse.ArgumentParser:
    """All commands with their options, examples and defaults."""
    parser = argparse.ArgumentParser(
        prog="lowland",
        description="Which claims of five papers on deep learning hold, measured and drawn.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lowland {__version__}")
    parser.set_defaults(do=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    what = "list the recipes: one per paper"
    commands.add_parser("list", help=what, description=what).set_defaults(do=list_recipes)

    what = "print the source and all values of a recipe"
    show = commands.add_parser("show", help=what, description=what, allow_abbrev=False)
    show.set_defaults(do=show_recipe)
    add_choice_options(show)
    show.add_argument("--json", action="store_true", help="print the values only")

    what = "run a recipe, judge the paper's claims, draw the page"
    run = commands.add_parser("run", help=what, description=what, allow_abbrev=False)
    run.set_defaults(do=run_recipes)
    add_choice_options(run)
    add_run_options(run)

    what = "draw the saved records of a folder: report.html, report.md, figures/"
    report = commands.add_parser("report", help=what, description=what)
    report.add_argument("folder", metavar="DIR", type=Path, help="holds record.json, or folders")
    report.set_defaults(do=draw_report)
    return parser


def add_choice_options(parser: argparse.ArgumentParser) -> None:
    """Which recipe, with which values."""
    add = parser.add_argument
    add("recipe", nargs="?", help="a name from `lowland list`; for `run` also demo: all recipes")
    add("--scale", help=f"{SCALES} (default: laptop)")
    add("--from", dest="source", metavar="JSON", type=Path,
        help="take recipe, scale, seeds and values from a record.json")  # fmt: skip
    add("--set", dest="changes", metavar="NAME=VALUE", nargs="+", action="extend", default=[],
        help="change values by dotted name, after everything else")  # fmt: skip


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """How to run, and where the results go."""
    add = parser.add_argument
    add("--seeds", metavar="N", type=positive, help="repetitions (default: the recipe's)")
    add("--out", metavar="DIR", type=Path,
        help="results and saved state (default: lowland-out/<recipe>-<scale>)")  # fmt: skip
    add("--data", metavar="DIR", type=Path, help="where data sets lie (default: $LOWLAND_DATA)")
    add("--download", action="store_true", help="fetch a data set that is not found")
    add("--restart", action="store_true", help="start over instead of going on")
    add("--threads", metavar="N", type=positive, help="CPU threads (default: torch's)")
    add("--json", action="store_true", help="print the record on stdout, the rest on stderr")
    add("--quiet", action="store_true", help="no progress display")


def positive(text: str) -> int:
    """A whole number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)
