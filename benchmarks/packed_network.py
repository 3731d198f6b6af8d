"""Whole networks, packed, against torch float32 and int8 and ONNX Runtime: time, bytes, memory.

python benchmarks/packed_network.py [--threads 1 2] [--batch 1 64] [--rounds 9] [--only binary]
    [--toy] [--skip-memory] [--skip-times]
    [--out packed_network.json] [--markdown packed_network.md]
"""

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from discrete_networks import CASES, Case
from resident import Resident, open_network, resident
from timing import Comparison, compare, table
from torch import nn

from lowland.control import export_onnx, pack
from lowland.results import environment, write_json

Network = Callable[[np.ndarray], np.ndarray]
LONG = 0.3  # seconds of a call, beyond which a third of the rounds must do


@dataclass(frozen=True)
class Way:
    """A way to hold and run a network.

    Attributes:
        name: For the tables.
        kind: As :func:`resident.open_network` takes it.
        file: Name of its file.
    """

    name: str
    kind: str
    file: str


PEER = Way("torch float32", "torch", "float32.pt")
WAYS = (
    Way("packed, formats by time", "packed", "time.safetensors"),
    Way("packed, formats by size", "packed", "size.safetensors"),
    Way("packed, by size, loaded by time", "packed to run", "size.safetensors"),
    Way("torch dynamic int8", "torch", "int8.pt"),
    Way("ONNX Runtime float32", "onnx", "float.onnx"),
    Way("ONNX Runtime int2", "onnx", "int2.onnx"),
    Way("ONNX Runtime int2, expanded", "onnx expanded", "int2.onnx"),
    Way("ONNX Runtime MatMulNBits, int8 activations", "onnx", "nbits.onnx"),
)


def main() -> None:
    """Measure every case in every way."""
    arguments = parse()
    warnings.simplefilter("ignore")  # torch's quantization and exporter announce their successors
    torch.set_num_threads(1)
    records = []
    for case in CASES:
        if arguments.only in case.name:
            with TemporaryDirectory() as folder:
                found = measure(case, Path(folder), arguments)
            records.append(found)
            print(sheet([found], arguments), flush=True)
            if arguments.out:
                about = {"environment": environment(), "load": os.getloadavg()}
                write_json(arguments.out, about | {"cases": records})
            if arguments.markdown:
                Path(arguments.markdown).write_text(sheet(records, arguments) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument(
        "--rounds", type=int, default=9, help="ratios per row; a third of long ones"
    )
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--toy", action="store_true", help="tiny networks, to try this file")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--skip-times", action="store_true")
    parser.add_argument("--out", help="JSON file")
    parser.add_argument("--markdown", help="Markdown file")
    return parser.parse_args()


def measure(case: Case, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the files of a network, then time and weigh it in every way."""
    big, small = folder / "network", folder / "toy"
    formats = write_files(case, big, toy=arguments.toy)
    write_files(case, small, toy=True)
    x = case.inputs(64, toy=arguments.toy).numpy()
    right = open_network(PEER.kind, big / PEER.file)(x)
    rows = []
    for way in (PEER, *WAYS):
        row: dict[str, object] = {"way": way.name, "bytes": (big / way.file).stat().st_size}
        made = open_network(way.kind, big / way.file)(x)
        row["error"] = float(np.abs(made - right).max() / np.abs(right).max())
        row["agreement"] = float((made.argmax(-1) == right.argmax(-1)).mean())
        if not arguments.skip_memory:
            shapes = [size(case.shape(toy=arguments.toy)), size(case.shape(toy=True))]
            row["memory"] = resident(way.kind, small / way.file, big / way.file, *shapes)
        skip = way is PEER or arguments.skip_times
        row["times"] = {} if skip else times(way, big, x, arguments)
        rows.append(row)
    return {"case": case, "formats": formats, "ways": rows}


def write_files(case: Case, folder: Path, *, toy: bool) -> dict[str, list[str]]:
    """Write a network in all ways; give the formats of its packed layers."""
    folder.mkdir()
    network, example = case.make(toy=toy), case.inputs(2, toy=toy)
    formats = {}
    for rule in ("time", "size"):
        packed = pack(network, formats=rule)
        packed.save(folder / f"{rule}.safetensors")
        formats[rule] = [row.format for row in packed.summary().layers if row.format != "-"]
    export_onnx(network, folder / "float.onnx", example, mode="float")
    export_onnx(network, folder / "int2.onnx", example, mode="int2")
    nbits = folder / "nbits.onnx"
    export_onnx(network, nbits, example, mode="matmulnbits", int8_activations=True)
    torch.save(network, folder / PEER.file)
    torch.save(torch.ao.quantization.quantize_dynamic(network, {nn.Linear}), folder / "int8.pt")
    return formats


def times(
    way: Way, folder: Path, x: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Comparison]:
    """Compare one way with the peer, for every number of threads and batch."""
    found = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        ours = open_network(way.kind, folder / way.file, threads)
        peer = open_network(PEER.kind, folder / PEER.file)
        for batch in arguments.batch:
            some = np.resize(x, (batch, *x.shape[1:]))
            began = perf_counter()
            peer(some)
            short = perf_counter() - began < LONG
            found[setting(batch, threads)] = compare(
                repeated(ours, some),
                repeated(peer, some),
                rounds=arguments.rounds if short else -(-arguments.rounds // 3),
                block_seconds=0.05,
            )
    torch.set_num_threads(1)
    return found


def repeated(network: Network, x: np.ndarray) -> Callable[[int], None]:
    """Run a network a given number of times."""

    def run(count: int) -> None:
        for _ in range(count):
            network(x)

    return run


def setting(batch: int, threads: int) -> str:
    """Name a column."""
    return f"batch {batch}, {threads} thread{'s' * (threads > 1)}"


def size(shape: tuple[int, ...]) -> str:
    """Write a shape as resident.py reads it."""
    return "x".join(map(str, shape))


def sheet(records: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """Lay out everything but milliseconds of ours: a row for each network and way."""
    settings = [setting(b, t) for b in arguments.batch for t in arguments.threads]
    settings = [] if arguments.skip_times else settings
    rows = [
        line(record["case"].name, row, record["ways"], settings)
        for record in records
        for row in record["ways"]
    ]
    return table(["network", "held and run as", "file [MB]", "resident [MB] (peak)", "error",
                  *settings], rows)  # fmt: skip


def line(name: str, row: dict, ways: list[dict], settings: list[str]) -> list[object]:
    """Write one way: ratios with quartiles, or of the peer its milliseconds."""
    memory: Resident | None = row.get("memory")
    cells = [
        "{:.2f} ({:.2f} to {:.2f})".format(row["times"][at].ratio, *row["times"][at].quartiles)
        if row["times"]
        else f"{1e3 * min(way['times'][at].peer_seconds for way in ways if way['times']):.2f} ms"
        for at in settings
    ]
    weighed = f"{memory.growth / 1e6:.1f} ({memory.peak_growth / 1e6:.1f})" if memory else "-"
    return [name, row["way"], f"{row['bytes'] / 1e6:.2f}", weighed, f"{row['error']:.0e}", *cells]


if __name__ == "__main__":
    main()
