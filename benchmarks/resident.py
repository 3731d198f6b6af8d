"""Resident memory of a network that runs in a process of its own, read from outside the process.

The child imports, loads and runs a toy of the same kind and says so; its memory is read; it loads
and runs the network 20 times and says so; its memory is read again. It holds no other network.

python benchmarks/resident.py KIND TOY FILE SHAPE TOY_SHAPE   (the child, shapes as 3x32x32)
"""

import ctypes
import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Resident", "open_network", "resident"]

PASSES = 20


@dataclass(frozen=True)
class Resident:
    """Bytes of a process by the kernel's count.

    Attributes:
        before: Resident with the toy loaded.
        growth: By how much loading and running the network raised it.
        peak_growth: Highest point on the way above ``before``.
        private_growth: Part of ``growth`` that is no file mapped into memory.
    """

    before: int
    growth: int
    peak_growth: int
    private_growth: int


def resident(kind: str, toy: Path, file: Path, shape: str, toy_shape: str) -> Resident:
    """Measure a network: as :func:`open_network` takes it, and the shape of one input."""
    command = [sys.executable, "-W", "ignore", __file__, kind, str(toy), str(file), shape]
    with subprocess.Popen(
        [*command, toy_shape], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        await_word(child.stdout, "warm")
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")  # the peak starts anew
        before = status(child.pid)
        print("go", file=child.stdin, flush=True)
        await_word(child.stdout, "ready")
        after = status(child.pid)
        child.stdin.close()
    return Resident(
        before["VmRSS"],
        after["VmRSS"] - before["VmRSS"],
        after["VmHWM"] - before["VmRSS"],
        after["RssAnon"] - before["RssAnon"],
    )


def await_word(stream: Any, word: str) -> None:
    """Read until the child says a word."""
    for line in stream:
        if line.strip() == word:
            return
    raise RuntimeError(f"the child must say {word!r}; it ended before.")


def status(process: int) -> dict[str, int]:
    """Read the memory of a process, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {
        name: 1024 * int(value.split()[0])
        for name, value in pairs
        if name.startswith(("Vm", "Rss"))
    }


def open_network(
    kind: str, file: str | Path, threads: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """Load a network from a file, as somebody would who has nothing else.

    Args:
        kind: ``"torch"`` for a pickled module, ``"packed"``, ``"packed to run"`` (other formats
            are chosen on loading), ``"onnx"`` or ``"onnx expanded"``.
        file: Where from.
        threads: Of ONNX Runtime; torch's are the process's.

    Returns:
        The network as a function.
    """
    if kind.startswith("onnx"):
        import onnxruntime

        from lowland.control import load_onnx

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Else its threads go on spinning into the turn of the peer.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = load_onnx(file, expand=kind == "onnx expanded", options=options)
        (name,) = (one.name for one in session.get_inputs())
        return lambda x: session.run(None, {name: x})[0]
    import torch

    from lowland.control import load_packed

    if kind == "torch":
        network = torch.load(file, weights_only=False)
    else:
        network = load_packed(file, formats="time" if kind == "packed to run" else None)

    @torch.inference_mode()
    def run(x: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(x)).numpy()

    return run


def child(kind: str, toy: str, file: str, shape: str, toy_shape: str) -> None:
    """Warm up, wait, load, run, wait."""
    import torch

    torch.set_num_threads(1)
    run_some(open_network(kind, toy), toy_shape)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else the network hides in what imports have freed
    print("warm", flush=True)
    sys.stdin.readline()
    network = open_network(kind, file)
    run_some(network, shape)
    print("ready", flush=True)
    sys.stdin.readline()


def run_some(network: Callable[[np.ndarray], np.ndarray], shape: str) -> None:
    """Run a network on one example, 20 times."""
    x = np.ones((1, *map(int, shape.split("x"))), np.float32)
    for _ in range(PASSES):
        network(x)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    child(*sys.argv[1:])
