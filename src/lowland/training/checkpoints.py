"""Weights from wherever they lie, in the order and under the names of the user's model."""

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lowland.errors import CheckpointError
from lowland.results import read_tensors, write_tensors
from lowland.training.prefixes import COUNTER, among, holders, short_names, without_prefix

__all__ = ["Source", "match_state", "read_state", "save_state"]

Source = Mapping[str, Any] | nn.Module | str | Path

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")
TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
MOST_NAMED = 5


def read_state(source: Source) -> dict[str, Tensor]:
    """Read the weights of a model.

    Args:
        source: A state dict, a module, or a path: ``.safetensors``, ``.pt``, ``.pth``, ``.bin``,
            a Lightning ``.ckpt``, or a Hugging Face folder. Files are read with
            ``weights_only=True``, always.

    Returns:
        Copies of the tensors by name. A prefix ``model.``, ``module.`` or ``_orig_mod.`` that all
        names share is taken off, of an ``AveragedModel`` too, whose ``n_averaged`` stays beside
        them; :func:`match_state`, which knows the model, finds its own names again, leaves that
        counter out where it is none of them, and takes off any other prefix.

    Raises:
        CheckpointError: If the source cannot be read, or holds something else than tensors.
    """
    if isinstance(source, nn.Module):
        found, where = source.state_dict(), f"the {type(source).__name__}"
    elif isinstance(source, Mapping):
        found, where = source, "the state dict"
    elif isinstance(source, str | Path):
        found, where = read_path(Path(source)), str(source)
    else:
        raise CheckpointError(
            f"weights must come as a state dict, a module or a path; got a {type(source).__name__}."
        )
    tensors = only_tensors(found, where)
    return {name: tensor.detach().clone() for name, tensor in without_prefix(tensors).items()}


def read_path(path: Path) -> Mapping[str, Any]:
    """Read a file or a folder by what its name says it is."""
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        raise CheckpointError(f"the checkpoint must exist; {path} does not. Check the path.")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in TORCH_FILES:
        return read_torch(path)
    raise CheckpointError(
        f"a checkpoint must be one of .safetensors, {', '.join(TORCH_FILES)} or a folder; "
        f'got "{path.name}". Save it with lowland.training.save_state or torch.save.'
    )


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file, and give tied tensors all of their names."""
    try:
        tensors, metadata = read_tensors(file)
        aliases = json.loads(metadata.get("aliases", "{}"))
        return tensors | {alias: tensors[kept] for alias, kept in aliases.items()}
    except Exception as error:  # the reader has its own kinds of error for a torn file
        raise CheckpointError(unreadable(file, error)) from error


def read_torch(file: Path) -> Any:
    """Read a file of ``torch.save``, tensors and plain values only."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden is None:
            raise CheckpointError(unreadable(file, error)) from error
        raise CheckpointError(
            f"a checkpoint must hold tensors and plain values only; {file} also holds a "
            f"{forbidden[1]}, and loading that could run code (weights_only=True refuses it). Save "
            "model.state_dict() alone; or, if you trust the file, allow it first with "
            f"torch.serialization.add_safe_globals([{forbidden[1]}])."
        ) from error
    except Exception as error:  # a torn file: torch raises a different kind for every place
        raise CheckpointError(unreadable(file, error)) from error


def unreadable(file: Path, error: Exception) -> str:
    """Say that a file is broken."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    cause = text.splitlines()[0][:100] if text.strip() else type(error).__name__
    return (
        f"{file} must be a whole {file.suffix} file; it cannot be read ({cause}). "
        "It may be truncated: copy or download it again."
    )


def read_folder(folder: Path) -> dict[str, Any]:
    """Read a Hugging Face folder: one file, or an index of several."""
    for name in FOLDER_FILES:
        file = folder / name
        if not file.exists():
            continue
        if file.suffix != ".json":
            return dict(read_path(file))
        shards = sorted(set(read_index(file).values()))
        parts: dict[str, Any] = {}
        for shard in shards:
            parts |= read_path(folder / Path(shard).name)
        return parts
    raise CheckpointError(
        f"a checkpoint folder must hold one of {', '.join(FOLDER_FILES)}; {folder} holds none."
    )


def read_index(file: Path) -> dict[str, str]:
    """Read which tensor lies in which file."""
    try:
        return json.loads(file.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(unreadable(file, error)) from error


def only_tensors(found: Any, where: str) -> dict[str, Tensor]:
    """Take the state dict out of what training frameworks wrap around it."""
    if isinstance(found, Mapping):
        if found and all(isinstance(value, Tensor) for value in found.values()):
            return dict(found)
        for name in WRAPPERS:
            if isinstance(found.get(name), Mapping):
                return only_tensors(found[name], where)
        others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
        got = f"also {', '.join(others[:MOST_NAMED])}" if others else "nothing"
    else:
        got = f"a {type(found).__name__}"
    raise CheckpointError(
        f"a checkpoint must map names to tensors, at its top or under one of {WRAPPERS}; "
        f"{where} holds {got}. Pass model.state_dict()."
    )


def match_state(
    model: nn.Module, state: Mapping[str, Tensor], what: str = "start"
) -> dict[str, Tensor]:
    """Bring a state dict into the names, order, types and device of a model's own.

    Prefixes of wrappers are ignored on both sides, and so is the name of the attribute that holds
    the network (``net.``), if it is that of all names and what is left are those of the other
    side. A tied tensor may be there under any of its names. The counter of an ``AveragedModel``
    is taken where the model is one too, and need not be there.

    Args:
        model: The model the state is for; not changed.
        state: What :func:`read_state` returned, or a state dict.
        what: What to call the state in an error.

    Returns:
        The state in the order of ``model.state_dict()``, under its names.

    Raises:
        CheckpointError: If names, shapes or kinds of numbers differ, or a number is beyond the
            range of its type; at most five of each kind are listed.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    short = short_names(own)
    ties = [(short[a], short[b]) for a, b in tied(own).items() if a in short and b in short]
    given = without_prefix(state)
    counter = None
    if is_average(model) or (COUNTER not in short.values() and is_counter(given.get(COUNTER))):
        short = {name: rest for name, rest in short.items() if rest != COUNTER}
        counter = given.pop(COUNTER, None)
    held = holders(given, short.values(), {name for pair in ties for name in pair})
    around = holders(short.values(), given)
    if held and all(name.startswith(held[0]) for name in given):
        given = {name.removeprefix(held[0]): value for name, value in given.items()}
        held = []
    elif around and all(name.startswith(around[0]) for name in short.values()):
        given = {around[0] + name: value for name, value in given.items()}
    for pair in ties:
        there = next((name for name in pair if name in given), None)
        if there is not None:
            given = {name: given[there] for name in pair} | given
    problems = differences({short[name]: own[name] for name in short}, given)
    problems += [
        f"{a} and {b} are tied in the model, but differ"
        for a, b in ties
        if not problems and not torch.equal(given[a], given[b])
    ]
    if problems:
        raise CheckpointError(f"{what} must fit the model; {'; '.join(problems)}.{among(held)}")
    found = {name: given.get(short.get(name, ""), counter) for name in own}
    return {
        name: own[name].clone() if value is None else value.to(own[name].device, own[name].dtype)
        for name, value in found.items()
    }


def is_average(model: nn.Module) -> bool:
    """Whether a model, or what a wrapper holds, counts its updates."""
    return any(isinstance(module, AveragedModel) for module in model.modules())


def is_counter(tensor: Tensor | None) -> bool:
    """Whether a tensor can be the number of updates of an average."""
    return tensor is not None and tensor.shape == () and tensor.dtype == torch.int64


def tied(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Find further names of the same tensor: name to the name met first."""
    first: dict[tuple[Any, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            continue
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
    return aliases


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Say in words how two state dicts differ."""
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name}: {kind(given[name])} for {kind(value)}"
        for name, value in own.items()
        if name in given and kind(given[name]) != kind(value)
    ]
    ranges = [
        f"{name}: {misfit}"
        for name, value in own.items()
        if name in given and kind(given[name]) == kind(value)
        if (misfit := too_large(given[name], value.dtype))
    ]
    problems = []
    if missing:
        problems.append(f"missing: {listed(missing, unexpected)}")
    if unexpected:
        problems.append(f"unexpected: {listed(unexpected, missing)}")
    if shapes:
        problems.append(f"of another shape: {listed(shapes)}")
    if ranges:
        problems.append(f"of too large a range: {listed(ranges)}, so take a wider type")
    return problems


def kind(tensor: Tensor) -> str:
    """Describe what must agree: the shape, and which kind of numbers it holds."""
    if tensor.is_floating_point():
        return f"{tuple(tensor.shape)}"
    integers = "booleans" if tensor.dtype == torch.bool else "integers"
    return f"{tuple(tensor.shape)} of {'complex numbers' if tensor.is_complex() else integers}"


def too_large(tensor: Tensor, dtype: torch.dtype) -> str:
    """Say which numbers a type cannot hold; nothing if it holds all, be it rounded."""
    if tensor.dtype in (dtype, torch.bool) or tensor.numel() == 0:
        return ""
    if tensor.is_floating_point() or tensor.is_complex():
        lost = tensor[tensor.isfinite() & ~tensor.to(dtype).to(tensor.dtype).isfinite()]
        return f"{lost.abs().max():.6g} for {dtype}" if len(lost) else ""
    low, high = (int(value) for value in tensor.to(torch.int64).aminmax())
    limits, own = torch.iinfo(dtype), torch.iinfo(tensor.dtype)
    # beyond int64, which only uint64 is, low is below 0
    is_fine = max(limits.min, own.min) <= low and high <= limits.max
    return "" if is_fine else f"{low} to {high} for {dtype}"


def listed(words: list[str], others: Iterable[str] = ()) -> str:
    """Join the first five words, each with the most similar of the others behind it."""
    described = []
    for word in words[:MOST_NAMED]:
        close = get_close_matches(word, others, n=1)
        described.append(f"{word} (near {close[0]})" if close else word)
    more = len(words) - MOST_NAMED
    return ", ".join(described) + (f" and {more} more" if more > 0 else "")


def save_state(
    file: str | Path,
    state: nn.Module | Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write weights as one ``.safetensors`` file, atomically.

    A tied tensor is stored once; its other names are kept in the metadata entry ``aliases``, and
    :func:`read_state` gives them back.

    Args:
        file: Where to.
        state: A module or a state dict.
        metadata: Further strings to keep.

    Returns:
        The file.
    """
    found = state.state_dict() if isinstance(state, nn.Module) else state
    tensors = only_tensors(found, "the state")
    aliases = tied(tensors)
    kept = {name: tensor for name, tensor in tensors.items() if name not in aliases}
    return write_tensors(file, kept, {**(metadata or {}), "aliases": json.dumps(aliases)})
