"""What a packed model holds, layer by layer, and what it would be in float32."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lowland.control.packing.formats import sizes
from lowland.control.packing.layers import PackedConvTranspose, PackedLayer

__all__ = ["LayerSummary", "Summary", "summarize"]


@dataclass(frozen=True)
class LayerSummary:
    """One row of a :class:`Summary`.

    Attributes:
        layer: Path of the layer.
        kind: Its class.
        values: ``"-1, 1"``, ``"-1, 0, 1"`` or ``"float"``; times a factor, if it has any.
        format: How the weight is held; ``"-"`` for floats.
        nonzero: Share of the weights that are not zero; None for floats.
        weights: Number of weights.
        bits: Bits held per weight; None without weights.
        bytes: Held in memory: weights, factors and summands.
        stored: Bytes of the same in a file, without its header: the weight may be entropy-coded.
        float32: Bytes of the same as float32, with the batch norm that was folded left out.
        decoded: Bytes of floats made anew at every call, besides activations.
        note: Why the layer is not packed.
    """

    layer: str
    kind: str
    values: str
    format: str
    nonzero: float | None
    weights: int
    bits: float | None
    bytes: int
    stored: int
    float32: int
    decoded: int = 0
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """A row per layer, and the sums; ``print`` shows a table.

    Attributes:
        layers: The rows, in the order of the model; a tied weight counts where it is met first.
    """

    layers: tuple[LayerSummary, ...]

    @property
    def bytes(self) -> int:
        """Bytes held in memory."""
        return sum(row.bytes for row in self.layers)

    @property
    def stored(self) -> int:
        """Bytes in a file, beside its header."""
        return sum(row.stored for row in self.layers)

    @property
    def float32(self) -> int:
        """Bytes of the same in float32."""
        return sum(row.float32 for row in self.layers)

    @property
    def weights(self) -> int:
        """Number of weights, factors and summands."""
        return self.float32 // 4

    @property
    def times_smaller(self) -> float:
        """Float32 over bytes in a file."""
        return self.float32 / self.stored

    def __str__(self) -> str:
        """Lay out the table."""
        head = ("layer", "kind", "values", "format", "nonzero", "weights", "bits", "bytes",
                "stored", "float32", "decoded", "note")  # fmt: skip
        rows = [head] + [
            (r.layer or "(top)", r.kind, r.values, r.format,
             "-" if r.nonzero is None else f"{r.nonzero:.1%}", f"{r.weights:,}",
             "-" if r.bits is None else f"{r.bits:.2f}", f"{r.bytes:,}", f"{r.stored:,}",
             f"{r.float32:,}", f"{r.decoded:,}", r.note)
            for r in self.layers
        ]  # fmt: skip
        total = f"{self.times_smaller:.1f} times smaller"
        rows.append(("all", "", "", "", "", "", "", f"{self.bytes:,}", f"{self.stored:,}",
                     f"{self.float32:,}", "", total))  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.rjust(width) if 3 < i < 11 else cell.ljust(width)
                      for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in rows
        )  # fmt: skip


def summarize(named: Mapping[str, nn.Module], reasons: Mapping[str, str]) -> Summary:
    """Count what a packed network holds.

    Args:
        named: Its modules by path.
        reasons: Why layers of a packable kind are not packed.

    Returns:
        A row for every module that holds something itself.
    """
    rows, seen = [], set()
    for path, module in named.items():
        if isinstance(module, PackedLayer):
            rows.append(row_of_packed(path, module, is_new=id(module.packed) not in seen))
            seen.add(id(module.packed))
        elif not any(path == f"{row.layer}.packed" for row in rows):
            held = [t for t in (*module._parameters.values(), *module._buffers.values())
                    if t is not None and id(t) not in seen]  # fmt: skip
            seen |= {id(tensor) for tensor in held}
            if held:
                rows.append(row_of_floats(path, module, held, reasons.get(path, "")))
    return Summary(tuple(rows))


def row_of_packed(path: str, layer: PackedLayer, *, is_new: bool) -> LayerSummary:
    """Count a packed layer."""
    packed = layer.packed
    signs = packed.decode()
    weights, nonzero = signs.numel(), int(signs.count_nonzero())
    values = "-1, 1" if nonzero == weights else "-1, 0, 1"
    extras = [t for t in (layer.scale, layer.offset) if t is not None]
    floats = sum(t.numel() for t in extras)
    around = sum(t.numel() * t.element_size() for t in extras)
    held, stored = (packed.bytes(), min(sizes(signs).values())) if is_new else (0, 0)
    is_decoded = isinstance(layer, PackedConvTranspose)
    return LayerSummary(
        path, type(layer).__name__, values + (" x factor" if layer.scale is not None else ""),
        packed.format, nonzero / weights, weights, 8 * packed.bytes() / weights,
        held + around, stored + around, 4 * (floats + (weights if is_new else 0)),
        4 * weights if is_decoded else 0, "" if is_new else "tied",
    )  # fmt: skip


def row_of_floats(path: str, module: nn.Module, held: list[Tensor], note: str) -> LayerSummary:
    """Count a module that stays as it is."""
    numbers = sum(t.numel() for t in held)
    size = sum(t.numel() * t.element_size() for t in held)
    return LayerSummary(
        path, type(module).__name__, "float", "-", None, numbers, 8 * size / max(numbers, 1), size,
        size, 4 * numbers, note=note,
    )  # fmt: skip
