"""A model whose binary and ternary weights are packed: run it, save it, load it, take it apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from lowland.control.packing.choose import Formats, check_formats, choose_format
from lowland.control.packing.file import read_packed, write_packed
from lowland.control.packing.formats import encode
from lowland.control.packing.layers import PackedLayer
from lowland.control.packing.network import as_network, check_model
from lowland.control.packing.norms import replace
from lowland.control.packing.program import Program, write_program
from lowland.control.packing.rebuild import PROJECTIONS, built_layers, described_layers
from lowland.control.packing.summary import Summary, summarize
from lowland.control.packing.unpack import unpacked
from lowland.control.packing.weight import PackedWeight
from lowland.errors import CheckpointError, FallbackWarning, UnsupportedModelError
from lowland.training.checkpoints import differences, tied

__all__ = ["PackedModel", "load_packed"]


class PackedModel(nn.Module):
    """A model with packed weights, for inference; made by :func:`lowland.control.pack`.

    It is called like the model it came from. Gradients reach its inputs, not its weights.

    Args:
        network: The model, with packed layers in the place of those that could be packed.
        reasons: Why other layers of a packable kind are not, by path.

    Attributes:
        network: As given.

    Source:
        Specification section 9.
    """

    def __init__(self, network: nn.Module, reasons: Mapping[str, str] | None = None):
        super().__init__()
        for module in network.modules():
            if hasattr(module, "use_nested_tensor"):
                vars(module)["use_nested_tensor"] = False  # it would read float weights
        self.network = network
        self.reasons = dict(reasons or {})
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Args:
            *args: What the model takes.
            **kwargs: Likewise, by name.

        Returns:
            What the model returns.
        """
        return self.network(*args, **kwargs)

    def train(self, mode: bool | None = None) -> "PackedModel":
        """Stay in evaluation mode.

        Args:
            mode: What a parent's ``train`` and ``eval`` pass on; it changes nothing here.

        Returns:
            The model.

        Raises:
            UnsupportedModelError: If it is called without a mode, by somebody who wants to train.
        """
        if mode is None:
            raise UnsupportedModelError(
                "a packed model is for inference; train() was called. Train the model it was made "
                "of, then pack that again."
            )
        return super().train(False)

    def bytes(self) -> int:
        """Count what the model holds: packed weights, factors, and all that stayed float."""
        held = {id(t): t for t in [*self.parameters(), *self.buffers()]}
        return sum(tensor.numel() * tensor.element_size() for tensor in held.values())

    def change_formats(self, formats: Formats) -> "PackedModel":
        """Hold the same weights in other formats, in place.

        Args:
            formats: As for :func:`lowland.control.pack`: ``"time"`` to run, ``"size"`` to keep.

        Returns:
            The model.

        Raises:
            ValueError: If a format is unknown or cannot hold a layer; nothing is changed then.
        """
        layers = self.packed_layers()
        check_formats(formats, layers)
        chosen = {
            path: choose_format(layer.packed.decode(), path, formats, layer)
            for path, layer in layers.items()
        }  # all of them before the first change, since a format may not fit
        for path, layer in layers.items():
            layer.packed.change_format(chosen[path])
        return self

    def save(self, file: str | Path, *, formats: Formats = "size") -> Path:
        """Write the model as one ``.safetensors`` file, atomically.

        The file runs without the model's code where ``torch.fx`` can follow it; else a warning says
        so, and :func:`load_packed` asks for the model. It can be read with numpy alone.

        Args:
            file: Where to.
            formats: In which weights are stored, as for :func:`lowland.control.pack`; here the
                smallest may be entropy-coded.

        Returns:
            The file.

        Raises:
            ValueError: If a format is unknown or cannot store a layer.

        Warns:
            FallbackWarning: If the file does not hold the forward pass, and why.
        """
        named = dict(self.named_layers())
        tensors = floats_of(named)
        aliases = tied(tensors)
        kept = {name: tensor for name, tensor in tensors.items() if name not in aliases}
        owners = self.packed_layers()
        check_formats(formats, owners)
        chosen: dict[str, str] = {}
        for path, layer in owners.items():
            signs = layer.packed.decode()
            chosen[path] = choose_format(signs, path, formats, layer, stored=True)
            held = layer.packed.tensors()
            if chosen[path] != layer.packed.format:
                held = encode(signs, chosen[path])
            kept |= {joined(path, f"packed.{name}"): tensor for name, tensor in held.items()}
        steps, constants, reason = self.program()
        kept |= constants
        header = {
            **described_layers(named, chosen),
            "aliases": aliases,
            "program": None if steps is None else {"steps": steps},
            "model": type(self.network).__name__,
            "reasons": self.reasons,
        }
        written = write_packed(file, header, kept)
        if steps is None:
            name = type(self.network).__name__
            warn(
                f"{file} does not hold the forward pass of {name}, which torch.fx must be able to "
                f'follow; it says: {reason}. Load it with load_packed("{file}", model), where '
                f"model is that {name} with any weights.",
                FallbackWarning,
                stacklevel=2,
            )
        return written

    def packed_layers(self) -> dict[str, PackedLayer]:
        """Give the packed layers by path; of tied ones the first."""
        found: dict[int, tuple[str, PackedLayer]] = {}
        for path, layer in self.named_layers():
            if isinstance(layer, PackedLayer):
                found.setdefault(id(layer.packed), (path, layer))
        return dict(found.values())

    def named_layers(self) -> list[tuple[str, nn.Module]]:
        """Name all modules, under all of their names, as the model it came from does."""
        named = self.network.body if isinstance(self.network, Program) else self.network
        return list(named.named_modules(remove_duplicate=False))

    def program(self) -> tuple[list[list[Any]] | None, dict[str, Tensor], str]:
        """Write the forward pass as plain values, with its constants, or say why that cannot be."""
        if isinstance(self.network, Program):
            return self.network.steps, {}, ""
        return write_program(self.network)

    def summary(self) -> Summary:
        """Say per layer what is held: see :func:`lowland.control.summary`."""
        return summarize(dict(self.named_layers()), self.reasons)

    def unpack(self) -> nn.Module:
        """Make a float network of torch's own layers that computes the same.

        Returns:
            A copy; it is what exporters take.
        """
        return unpacked(self.network)


def floats_of(named: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Name the parameters and buffers of a network, lasting or not, but for packed weights."""
    return {
        joined(path, name): tensor.detach()
        for path, module in named.items()
        if not isinstance(module, PackedWeight)
        for name, tensor in {**module._parameters, **module._buffers}.items()
        if tensor is not None
    }


def joined(path: str, name: str) -> str:
    """Name a tensor of a module."""
    return f"{path}.{name}" if path else name


def load_packed(
    file: str | Path, model: nn.Module | None = None, *, formats: Formats | None = None
) -> PackedModel:
    """Load a packed model; no code comes from the file.

    Args:
        file: A file of :meth:`PackedModel.save`.
        model: The model it was made of, with any weights; needed where the file does not hold
            the forward pass. It is not touched.
        formats: In which to hold the weights, as for :func:`lowland.control.pack`; None for those
            in which the model was held that was saved, whatever it is stored in.

    Returns:
        The packed model, on the CPU.

    Raises:
        TypeError: If the model is no module.
        CheckpointError: If the file is damaged, or does not fit the model, or holds no forward
            pass and no model is given.

    Source:
        Ours.
    """
    header, tensors = read_packed(file)
    try:
        tensors |= {name: tensors[first] for name, first in header["aliases"].items()}
        reasons = {str(path): str(reason) for path, reason in header["reasons"].items()}
        steps = None if header["program"] is None else list(header["program"]["steps"])
        name = str(header["model"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} must describe a packed model; {error!r} came.") from error
    layers = built_layers(header, tensors)
    if model is not None:
        check_model(model)
        network = filled(as_network(model).eval(), layers, tensors)
        if steps is not None and write_program(network)[0] != steps:
            raise CheckpointError(
                f"{file} holds another forward pass than that of {type(model).__name__}; leave the "
                "model out, or pass the one that was packed."
            )
    elif steps is not None:
        network = Program(steps, layers, tensors)
    else:
        raise CheckpointError(
            f"{file} does not hold the forward pass of {name}; build that {name} with any weights "
            f'and pass it: load_packed("{file}", model).'
        )
    packed = PackedModel(network.requires_grad_(False), reasons)
    return packed if formats is None else packed.change_formats(formats)


def filled(
    network: nn.Module, layers: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]
) -> nn.Module:
    """Put layers and tensors into a copy of the user's model."""
    named = dict(network.named_modules(remove_duplicate=False))
    known = {*named, *(f"{path}.{name}" for path in layers for name in PROJECTIONS)}
    missing = [path for path in layers if path not in known]
    if missing:
        raise CheckpointError(
            f"the file must fit the model; {type(network).__name__} has no module {missing[:5]}."
        )
    for path, layer in layers.items():
        if path in named:
            replace(network, named[path], layer)
    own = floats_of(dict(network.named_modules(remove_duplicate=False)))
    held = ("program/", *(joined(path, "packed.") for path in layers))
    tensors = {name: value for name, value in tensors.items() if not name.startswith(held)}
    problems = differences(own, tensors)
    if problems:
        raise CheckpointError(f"the file must fit the model; {'; '.join(problems)}.")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.data_ptr() != tensors[name].data_ptr():
                tensor.copy_(tensors[name])
    return network
