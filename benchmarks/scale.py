"""How time and memory grow in every room: laws measured over decades, and a power fitted to each.

python benchmarks/scale.py [--law NAME ...] [--list] [--out scale.json]

``--law`` takes names or their beginnings: ``--law control`` measures one room. All on one thread,
in CPU time and in bytes that torch asks for, so that other jobs change constants but not slopes. In
a file that is there, laws that are measured again take the place of the old ones.
"""

import argparse
from pathlib import Path

import torch
from laws import LAWS
from laws.law import record_of
from timing import table

from lowland.results import environment, read_json, write_json

COLUMNS = ["law", "unit", "expected", "exponent", "from", "to", "constant", "CPU s"]


def main() -> None:
    """Measure the laws that were asked for."""
    arguments = parse()
    laws = [law for law in LAWS if any(map(law.name.startswith, arguments.law))]
    if not laws:
        raise SystemExit(f"no law begins with {' or '.join(arguments.law)}; see --list.")
    if arguments.list:
        rows = [[law.name, law.quantity, law.variable] for law in laws]
        print(table(["law", "what", "grows with"], rows))
        return
    torch.set_num_threads(1)
    found = []
    for law in laws:
        found.append(record_of(law))
        print(table(COLUMNS, [cells(found[-1])]), flush=True)
    print(table(COLUMNS, [cells(one) for one in found]))
    if arguments.out:
        write(Path(arguments.out), found)


def write(file: Path, found: list[dict]) -> None:
    """Put laws on disk, in the order of the list."""
    known = {law["name"]: law for law in read_json(file)["laws"]} if file.exists() else {}
    known |= {law["name"]: law for law in found}
    laws = [known[law.name] for law in LAWS if law.name in known]
    command = "python benchmarks/scale.py --out scale.json"
    write_json(file, {"environment": environment(), "command": command, "laws": laws})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--law", nargs="+", default=[""], help="names, or their beginnings")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--out", help="JSON file")
    return parser.parse_args()


def cells(found: dict) -> list[object]:
    """Write one law."""
    first, last = found["range"]
    return [
        found["name"], found["unit"], found["expected"],
        f"{found['exponent']:.3f} ± {found['error']:.3f}", f"{first:.3g}", f"{last:.3g}",
        f"{found['constant']:.3g} {found['constant_is']}", f"{found['cpu_seconds']:.1f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
