"""Packed networks as one sealed ``.safetensors`` file: plain JSON and plain tensors, no code.

The header stands as JSON under ``lowland`` in the metadata. Its ``sha256`` is that of the whole
file with 64 zeros in the place of the digest, so whatever is altered or cut off is found.
"""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lowland.control.packing.formats import FORMATS, check_format, check_tensors
from lowland.errors import CheckpointError
from lowland.results import write_bytes

__all__ = ["packed_tensors", "read_packed", "write_packed"]

FORMAT = "lowland-packed"
VERSION = 1
UNSEALED = "0" * 64
MAGIC = {b"PK\x03\x04": "a zip file"} | {
    bytes([0x80, protocol]): "a pickle" for protocol in range(2, 6)
}


def write_packed(
    file: str | Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write a packed network as one file, atomically.

    Args:
        file: Where to, by custom ``.safetensors``.
        header: Plain JSON values. ``layers`` tells of each packed layer by its path: ``kind``,
            ``format``, ``rows``, ``columns`` and what the layer needs beside them; what its format
            holds lies in the tensors ``{path}.packed.{name}``. ``program`` is a mapping or None.
        tensors: All tensors by name, as in a state dict.

    Returns:
        The file.

    Raises:
        ValueError: If the header is not plain, a layer's tensors do not fit, or a tensor is of a
            type that safetensors cannot hold.

    Source:
        Specification section 9, export (4).
    """
    own = {"format": FORMAT, "version": VERSION}
    whole = {"sha256": UNSEALED, **own, "program": None, **header, **own}
    whole["sha256"] = UNSEALED
    try:
        text = json.dumps(whole, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"the header must hold plain JSON values; it does not ({error!s:.200})."
        ) from error
    check_header(whole, tensors)
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    try:
        raw = save(copies, {"lowland": text})
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"safetensors must know every tensor's type; it does not: {error}."
        ) from error
    return write_bytes(file, raw.replace(UNSEALED.encode(), seal(raw), 1))


def read_packed(file: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file of :func:`write_packed`.

    Args:
        file: Where from.

    Returns:
        The header, without its digest, and the tensors by name, on the CPU. Packed layers are
        checked: what comes back is safe to run.

    Raises:
        CheckpointError: If the file is not there, is damaged or altered, is of another kind or a
            later version, or says what its tensors do not hold.
    """
    try:
        raw = Path(file).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} must be a file that can be read; {error}.") from error
    try:
        return opened(raw)
    except ValueError as error:
        if kind := other_kind(raw):
            raise CheckpointError(
                f"{file} must be a file of PackedModel.save; it is {kind}, maybe of torch.save. "
                "Load its weights into a model of their class (model.load_state_dict(torch.load("
                "file, weights_only=True))), then pack that: pack(model).save(...)."
            ) from error
        raise CheckpointError(
            f"{file} must be a whole file of a packed network: {error} Copy it, or pack the "
            "network, again."
        ) from error


def other_kind(raw: bytes) -> str:
    """Name what a file is that is none of ours, where its first bytes tell."""
    if raw[8:9] != b"{":  # where the table of every safetensors file begins
        for magic, kind in MAGIC.items():
            if raw.startswith(magic):
                return kind
    return ""


def opened(raw: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check the seal, then read."""
    header = header_of(raw)
    digest = header.pop("sha256", None)
    if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise ValueError("its header must hold a sha256; it holds none.")
    unsealed = raw.replace(digest.encode(), UNSEALED.encode(), 1)
    if seal(unsealed) != digest.encode():
        raise ValueError("its content must have the sha256 in its header; it has another one.")
    try:
        tensors = load(raw)
    except Exception as error:  # the reader raises another kind for every lie
        raise ValueError(f"it must be a safetensors file; it is not ({error!s:.200}).") from error
    check_header(header, tensors)
    return header, tensors


def seal(raw: bytes) -> bytes:
    """Give the digest of a file that still holds zeros in its place."""
    return sha256(raw).hexdigest().encode()


def header_of(raw: bytes) -> dict[str, Any]:
    """Read the JSON in the JSON."""
    size = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or size > len(raw) - 8:
        raise ValueError(f"it must hold the {size + 8} bytes of its header; it has {len(raw)}.")
    outer = parsed(raw[8 : 8 + size])
    metadata = outer.get("__metadata__")
    text = metadata.get("lowland") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            'its metadata must hold a text "lowland", as PackedModel.save writes it; it holds none.'
        )
    return parsed(text)


def parsed(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object, without NaN and without end."""
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header must be JSON; it is not ({error!s:.200}).") from error
    if not isinstance(value, dict):
        raise ValueError(f"its header must be a JSON object; it is a {type(value).__name__}.")
    return value


def refuse_constant(name: str) -> None:
    """Refuse what is no JSON."""
    raise ValueError(f"{name} is not a number of JSON")


def check_header(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a header that is of another kind, or says what the tensors do not hold."""
    if header.get("format") != FORMAT:
        raise ValueError(f'its format must be "{FORMAT}"; it is {header.get("format")!r:.50}.')
    version = header.get("version")
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"its version must be {VERSION}; it is {version!r:.50}. A later lowland may read it."
        )
    if not isinstance(header.get("program"), dict | None):
        raise ValueError("its program must be a mapping or null; it is neither.")
    layers = header.get("layers")
    if not isinstance(layers, dict):
        raise ValueError("its header must hold a mapping of layers; it holds none.")
    for path, layer in layers.items():
        try:
            check_layer(path, layer, tensors)
        except ValueError as error:
            raise ValueError(f'in layer "{path:.100}", {error}') from error


def check_layer(path: str, layer: Any, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a layer that its tensors do not hold."""
    values = layer if isinstance(layer, dict) else {}
    for name, kind in (("kind", str), ("format", str), ("rows", int), ("columns", int)):
        if type(values.get(name)) is not kind:
            raise ValueError(f"{name} must be {kind.__name__}; got {values.get(name)!r:.50}.")
    check_format(values["format"])
    held = packed_tensors(tensors, path, values["format"])
    check_tensors(held, values["format"], values["rows"], values["columns"])


def packed_tensors(tensors: Mapping[str, Tensor], path: str, format: str) -> dict[str, Tensor]:
    """Pick what the format of one layer holds.

    Args:
        tensors: All tensors of a file or a state dict.
        path: Path of the layer, empty for a network that is one layer.
        format: Name of the format.

    Returns:
        The tensors ``{path}.packed.{name}``, by name; those that are not there are left out.
    """
    places = {
        name: f"{path}.packed.{name}" if path else f"packed.{name}" for name in FORMATS[format]
    }
    return {name: tensors[place] for name, place in places.items() if place in tensors}
