"""Search the paths of several pairs: in this process, or wherever an executor sends them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

from torch import Tensor, nn

from lowland.connectivity.autoneb import find_path
from lowland.connectivity.claims import Claims
from lowland.connectivity.edge import name_of, pair_folder
from lowland.connectivity.folder import load_result
from lowland.connectivity.graph import Pair
from lowland.connectivity.path_result import PathResult
from lowland.results import Status, read_json
from lowland.training import broadcast, device_of, is_main_process, save_state, use_threads

__all__ = ["Workshop", "claims_of", "refuse_executor"]

# Seconds between two looks at what another machine is doing.
POLL = 0.2


@dataclass
class Workshop:
    """Where the pairs of an exploration are searched.

    Attributes:
        model: The architecture.
        loss_fn: From output and target to one loss per example.
        batches: Training batches.
        states: State dicts of the minima.
        options: Further arguments of :func:`lowland.connectivity.find_path`.
        threads: CPU threads for a job of the executor.
        folder: Of the exploration, or None.
        claims: Who works on what in it, or None.
        executor: Runs jobs in other processes, or None.
        display: Progress display.
        results: Finished pairs.
        jobs: Pairs that the executor has been given.
        searched: Pairs whose search has ended here or on the executor, not on another machine.
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batches: Any
    states: Sequence[Mapping[str, Tensor]]
    options: dict[str, Any]
    threads: int | None = None
    folder: FilePath | None = None
    claims: Claims | None = None
    executor: Any = None
    display: Any = False
    results: dict[Pair, PathResult] = field(default_factory=dict)
    jobs: dict[Pair, Any] = field(default_factory=dict)
    searched: set[Pair] = field(default_factory=set)

    def finish_first(self, pairs: Sequence[Pair], until: int | None = None) -> PathResult:
        """Work on some pairs until the first of them is finished.

        Args:
            pairs: Those under way.
            until: Cycles that are enough for now; None for all. Needs a folder to go on in.

        Returns:
            The path of the first pair.

        Raises:
            KeyboardInterrupt: If a search was interrupted.
        """
        while not self.is_finished(pairs[0], until):
            if self.executor is not None:
                self.hand_out(pairs, until)
                if pairs[0] in self.jobs:
                    self.collect(pairs[0], until)
                    continue
            else:
                pair = broadcast(self.choose(pairs, until) if is_main_process() else None)
                if pair is not None:
                    self.search_here(pair, until)
                    continue
            sleep(POLL)  # another machine has it
        if self.jobs.pop(pairs[0], None) is not None:
            self.release(pairs[0])
        if self.folder is None:
            return self.results[pairs[0]]
        return self.results.pop(pairs[0])  # it lies on disk, and many paths fill the memory

    def result(self, pair: Pair) -> PathResult:
        """The path of a finished pair, from memory or from disk."""
        if pair in self.results or self.folder is None:
            return self.results[pair]
        return load_result(pair_folder(self.folder, pair), str(device_of(self.model)))

    def is_finished(self, pair: Pair, until: int | None) -> bool:
        """Whether the path of a pair is there; it may have come from another machine."""
        if pair not in self.results and self.folder is not None:
            folder = pair_folder(self.folder, pair)
            if broadcast(is_main_process() and finished_on_disk(self.folder, pair, until)):
                self.results[pair] = load_result(folder, str(device_of(self.model)))
        return pair in self.results

    def choose(self, pairs: Sequence[Pair], until: int | None) -> Pair | None:
        """The first pair that is neither finished nor worked on by another machine."""
        for pair in pairs:
            done = pair in self.results or finished_on_disk(self.folder, pair, until)
            if not done and self.take(pair):
                return pair
        return None

    def take(self, pair: Pair) -> bool:
        """Claim a pair where others could want it too."""
        return self.claims is None or self.claims.take(name_of(pair))

    def release(self, pair: Pair) -> None:
        """Give the claim of a pair back."""
        if self.claims is not None:
            self.claims.release(name_of(pair))

    def search_here(self, pair: Pair, until: int | None) -> None:
        """Find the path of a pair in this process."""
        a, b = pair
        result = find_path(
            self.model, self.loss_fn, self.batches, self.states[a], self.states[b],
            out=None if self.folder is None else pair_folder(self.folder, pair),
            progress=self.display,
            until_cycle=until,
            **self.options,
        )  # fmt: skip
        self.keep(pair, result, until)

    def hand_out(self, pairs: Sequence[Pair], until: int | None) -> None:
        """Give the executor every pair that nobody works on."""
        for pair in pairs:
            if pair in self.jobs or self.is_finished(pair, until) or not self.take(pair):
                continue
            folder = None if self.folder is None else pair_folder(self.folder, pair).resolve()
            self.jobs[pair] = self.executor.submit(
                search,
                deepcopy(self.model),  # a process pool moves what it sends into shared memory
                self.loss_fn,
                self.batches,
                *(as_file(self.states[k]) for k in pair),
                self.options | {"until_cycle": until},
                self.threads,
                folder,
            )

    def collect(self, pair: Pair, until: int | None) -> None:
        """Wait for a job."""
        files = self.jobs[pair].result()
        self.keep(pair, from_files(files, str(device_of(self.model))), until)

    def keep(self, pair: Pair, result: PathResult, until: int | None) -> None:
        """Keep a finished path; give its claim back."""
        self.release(pair)
        if not is_enough(result.status, len(result.cycles), until):
            raise KeyboardInterrupt
        self.results[pair] = result
        if result.status is not Status.INTERRUPTED:
            self.searched.add(pair)

    def stop(self) -> None:
        """Call off the jobs that have not begun."""
        for job in self.jobs.values():
            if hasattr(job, "cancel"):
                job.cancel()


def search(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    start: bytes,
    end: bytes,
    options: Mapping[str, Any],
    threads: int | None,
    folder: FilePath | None,
) -> dict[str, bytes]:
    """Find the path of a pair in a process that an executor has chosen.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example.
        batches: Training batches.
        start: A ``.safetensors`` file.
        end: Another one.
        options: Further arguments of :func:`lowland.connectivity.find_path`.
        threads: CPU threads.
        folder: For finished cycles, on a disk that all processes see; or None.

    Returns:
        The files of the result, by name.
    """
    with TemporaryDirectory() as place, use_threads(threads):
        ends = []
        for name, content in (("start", start), ("end", end)):
            ends.append(FilePath(place) / f"{name}.safetensors")
            ends[-1].write_bytes(content)
        result = find_path(model, loss_fn, batches, *ends, out=folder, **options)
        saved = result.save(FilePath(place) / "result")
        return {file.name: file.read_bytes() for file in saved.iterdir()}


def from_files(files: Mapping[str, bytes], device: str) -> PathResult:
    """Read a result that has travelled."""
    with TemporaryDirectory() as place:
        for name, content in files.items():
            (FilePath(place) / name).write_bytes(content)
        return load_result(FilePath(place), device)


def as_file(state: Mapping[str, Tensor]) -> bytes:
    """Write a state for the way to another process."""
    with TemporaryDirectory() as place:
        return save_state(FilePath(place) / "state.safetensors", state).read_bytes()


def finished_on_disk(folder: FilePath | None, pair: Pair, until: int | None) -> bool:
    """Whether a folder holds the path of a pair, and not only that of an interrupted search."""
    if folder is None or not (pair_folder(folder, pair) / "result.json").exists():
        return False
    values = read_json(pair_folder(folder, pair) / "result.json")
    return is_enough(Status[values["status"].upper()], len(values["cycles"]), until)


def is_enough(status: Status, cycles: int, until: int | None) -> bool:
    """Whether a search is over, or has come as far as was asked; the straight line counts."""
    return status is not Status.INTERRUPTED or (until is not None and cycles > until)


def claims_of(folder: FilePath | None) -> Any:
    """A context with the claims in a folder; without a folder, or on another rank, with None."""
    if folder is None or not is_main_process():
        return nullcontext()
    return Claims(folder / "claims")


def refuse_executor(executor: Any, world: int) -> None:
    """Refuse an executor that cannot run a search.

    Args:
        executor: What the user has brought.
        world: Number of processes of this ``torchrun`` job.

    Raises:
        TypeError: If it cannot be given jobs.
        ValueError: If its jobs would disturb each other.
    """
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "executor must have submit(function, *arguments), as a process pool has; got a "
            f"{type(executor).__name__}."
        )
    if isinstance(executor, ThreadPoolExecutor):
        raise ValueError(
            "executor must run its jobs in processes of their own, because a search sets random "
            "generators and the mode of the model; got a pool of threads. Pass "
            'ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")).'
        )
    if world > 1:
        raise ValueError(
            f"executor must be None where {world} processes share out the pivots; got a "
            f"{type(executor).__name__}. Start one process, or leave it out."
        )
