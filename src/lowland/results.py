"""How a run ended, what it measured, and how both reach the disk whole."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from lowland.errors import CheckpointError
from lowland.leftovers import move_aside, remove_temporaries, temporary_for

__all__ = [
    "Claim",
    "Record",
    "Status",
    "environment",
    "open_folder",
    "plain",
    "read_json",
    "read_tensors",
    "write_bytes",
    "write_json",
    "write_tensors",
]

NOT_JUDGED = "not judged at this scale"


class Status(Enum):
    """How a driver ended: an outcome is a value, not an accident."""

    FINISHED = "did all the steps it was asked for"
    CONVERGED = "met its tolerance"
    MAX_STEPS = "stopped at max_steps before the tolerance was met"
    NOT_FINITE = "a loss or a parameter is no longer finite"
    INTERRUPTED = "was interrupted; the same call goes on from the last saved state"


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, judged by a rule that was fixed before the run.

    Attributes:
        id: The claim's name in the specification, for instance ``"C1"``.
        statement: What is claimed, in one sentence.
        paper: The paper's number, as text with its unit.
        rule: When we call it met.
        values: Ours, one per repetition (seed, pair of minima); None where not finite.
        unit: Unit of ``values``.
        verdict: ``"met"``, ``"missed"`` or ``"not judged at this scale"``.
        note: For a miss, what we think is the cause; else anything a reader should know.
    """

    id: str
    statement: str
    paper: str
    rule: str
    values: tuple[float | None, ...] = ()
    unit: str = ""
    verdict: str = NOT_JUDGED
    note: str = ""

    @property
    def n(self) -> int:
        """Number of repetitions."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean over the repetitions, None without any or if one is not finite."""
        known = [value for value in self.values if value is not None]
        return sum(known) / self.n if known and len(known) == self.n else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the repetitions, None for fewer than two or no mean."""
        mean, known = self.mean, [value for value in self.values if value is not None]
        if mean is None or self.n < 2:
            return None
        return sqrt(sum((value - mean) ** 2 for value in known) / (self.n - 1))


@dataclass(frozen=True)
class Record:
    """What one run of a recipe leaves behind: plain values, enough to judge and to repeat it.

    Attributes:
        recipe: Name of the recipe.
        paper: ``title``, ``authors``, ``year`` and ``arxiv`` of the paper.
        scale: Scale that was asked for.
        settings: Every resolved value of the recipe.
        seeds: Seeds of the repetitions.
        runs: Numbers of each repetition.
        claims: The paper's claims with our verdicts.
        figures: Plain descriptions of figures, for the report.
        environment: Versions, device, threads, commit.
        seconds: Wall time of its parts, over all calls that shared the folder.
        command: The command that repeats the run.
        status: How the run ended.
        notes: Sentences the reader should see.
        story: The run in a few sentences: ``claimed`` (what the paper claims), ``measured`` (a
            list of sentences), ``figure`` (the id of the picture that tells it) and ``own``
            (Python code for the user's own model); None for records older than stories.
    """

    recipe: str
    paper: dict[str, Any]
    scale: str
    settings: dict[str, Any]
    seeds: list[int]
    runs: list[dict[str, Any]]
    claims: list[Claim]
    figures: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    command: str = ""
    status: str = Status.FINISHED.value
    notes: list[str] = field(default_factory=list)
    story: dict[str, Any] | None = None

    def save(self, file: str | Path) -> Path:
        """Write the record as JSON, atomically.

        Args:
            file: Where to.

        Returns:
            The file.
        """
        return write_json(file, self)

    @classmethod
    def load(cls, file: str | Path) -> "Record":
        """Read a record.

        Args:
            file: A file written by :meth:`save`.

        Returns:
            The record.
        """
        values = {"story": None} | read_json(file)
        known = {f.name for f in fields(Claim)}
        claims = [{k: v for k, v in claim.items() if k in known} for claim in values["claims"]]
        values["claims"] = [
            Claim(**{**claim, "values": tuple(claim["values"])}) for claim in claims
        ]
        return cls(**{f.name: values[f.name] for f in fields(cls)})


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Args:
        value: Dataclasses, enums, tensors, arrays, paths and containers of them.

    Returns:
        Dicts, lists, strings, numbers, booleans and None. A number that is not finite becomes
        None, an enum its lower-case name, a :class:`Claim` also shows ``mean``, ``std``, ``n``.

    Raises:
        TypeError: If the value is of another kind.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, Claim):
        summary = {"mean": value.mean, "std": value.std, "n": value.n}
        return plain(asdict(value) | summary)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)  # tensors and arrays
    if to_list is not None:
        return plain(to_list())
    raise TypeError(f"a record holds plain values; got {type(value).__name__}.")


def write_bytes(file: str | Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        file: Where to; its folder is made if needed.
        data: Content.

    Returns:
        The file.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_for(file)
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def write_json(file: str | Path, value: Any) -> Path:
    """Write :func:`plain` of a value as JSON, atomically.

    Args:
        file: Where to.
        value: What :func:`plain` can treat.

    Returns:
        The file.
    """
    return write_bytes(file, (json.dumps(plain(value), indent=1) + "\n").encode())


def read_json(file: str | Path) -> Any:
    """Read a JSON file.

    Args:
        file: Where from.

    Returns:
        Its value.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return json.loads(Path(file).read_text())
    except ValueError as error:
        raise ValueError(f"{file} must hold JSON; it is damaged ({error}). Delete it.") from error


def write_tensors(
    file: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors as one ``.safetensors`` file, atomically.

    Args:
        file: Where to.
        tensors: Tensors by name; they may be views, and are stored contiguously.
        metadata: Strings to keep beside them.

    Returns:
        The file.
    """
    from safetensors.torch import save

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    storages: set[int] = set()
    for name, tensor in whole.items():  # safetensors refuses tensors that share memory
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages:
            whole[name] = tensor.clone()
        storages.add(storage.data_ptr())
    return write_bytes(file, save(whole, dict(metadata or {})))


def read_tensors(file: str | Path, device: str = "cpu") -> tuple[dict[str, Any], dict[str, str]]:
    """Read a ``.safetensors`` file.

    Args:
        file: Where from.
        device: Where to.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        CheckpointError: If the file is damaged, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt", device=device) as stream:
            names = stream.keys()
            return {name: stream.get_tensor(name) for name in names}, stream.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} must be a .safetensors file; it is damaged or of another kind ({error})."
        ) from error


def environment(device: str = "cpu") -> dict[str, Any]:
    """Say on what a number was measured.

    Args:
        device: Where it was computed, as torch spells it.

    Returns:
        Versions, platform, processor or accelerator, threads and the commit of this library if it
        runs from a checkout.
    """
    import numpy
    import torch

    from lowland import __version__

    on_cuda = device.startswith("cuda")
    return {
        "lowland": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if on_cuda else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def processor() -> str:
    """Name the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Name the git commit this library runs from, with ``+`` if files differ from it."""
    here = Path(__file__).parent
    try:
        run = {"cwd": here, "capture_output": True, "text": True, "check": True, "timeout": 10}
        subprocess.run(["git", "ls-files", "--error-unmatch", Path(__file__).name], **run)
        head = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--", "."], **run).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed.strip() else "")


def open_folder(out: str | Path, settings: Mapping[str, Any], restart: bool = False) -> Path:
    """Make the folder of a run, or return to it if it belongs to the same settings.

    Args:
        out: The folder.
        settings: What decides the numbers of the run.
        restart: Begin anew: a folder of ours, one with a ``lowland.json``, becomes
            ``<name>.old-1``, or the next free number; nothing is deleted.

    Returns:
        The folder, with the settings written to ``lowland.json``.

    Raises:
        ValueError: If it is a file or another run's, or a restart would move what is yours.
    """
    out = Path(out)
    if out.is_file():
        raise ValueError(f"out must be a folder; {out} is a file. Choose another name.")
    file = out / "lowland.json"
    wanted = json.loads(json.dumps(plain(settings)))
    if restart and file.exists():
        move_aside(out)
    found = read_json(file) if file.exists() else None
    if found not in (None, wanted) and any(other != file for other in out.iterdir()):
        name, old, new = first_difference(found, wanted)
        raise ValueError(
            f"{out} must belong to the run that continues in it; it was made with "
            f"{name} = {old}, now {name} = {new}. Choose another folder, or restart."
        )
    if found != wanted:
        write_json(file, wanted)
    remove_temporaries(out)
    return out


def first_difference(old: Any, new: Any, name: str = "settings") -> tuple[str, Any, Any]:
    """Find the first place where two plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *new]:
            if old.get(key) != new.get(key):
                inner = key if name == "settings" else f"{name}.{key}"
                return first_difference(old.get(key), new.get(key), inner)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b:
                return first_difference(a, b, f"{name}.{index}")
    return name, old, new
