"""Layers whose weights are packed: linear ones, convolutions, embeddings."""

from math import prod
from typing import Any

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from lowland.control.packing import kernels
from lowland.control.packing.weight import PackedWeight, scaled

__all__ = [
    "PackedBilinear",
    "PackedConv",
    "PackedConv1d",
    "PackedConv2d",
    "PackedConv3d",
    "PackedConvTranspose",
    "PackedConvTranspose1d",
    "PackedConvTranspose2d",
    "PackedConvTranspose3d",
    "PackedEmbedding",
    "PackedLayer",
    "PackedLinear",
]

TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class PackedLayer(nn.Module):
    """A packed weight with a factor and a summand for each output.

    Args:
        packed: The signs.
        scale: Factors, shape ``(outputs,)``; None for ones.
        offset: Summands, shape ``(outputs,)``; None for zeros.
        options: What else the layer needs, plain values by the names torch gives them.

    Source:
        Ours.
    """

    scale: Tensor | None
    offset: Tensor | None

    def __init__(
        self,
        packed: PackedWeight,
        scale: Float[Tensor, " outputs"] | None = None,
        offset: Float[Tensor, " outputs"] | None = None,
        options: dict[str, Any] | None = None,
    ):
        nn.Module.__init__(self)  # not that of torch's layer, which would draw a weight
        self.packed, self.options = packed, options or {}
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)
        for name, value in {**self.options, **self.sizes()}.items():  # as torch's layer has them
            vars(self)[name] = tuple(value) if isinstance(value, list) else value

    def sizes(self) -> dict[str, Any]:
        """Numbers of inputs and outputs, by the names that torch's layer gives them."""
        return {}

    @property
    def outputs(self) -> int:
        """Number of outputs that have a factor and a summand of their own."""
        return self.packed.num_rows

    @property
    def weight(self) -> Float[Tensor, "..."]:
        """Decode the weight as floats, in the shape that torch's layer has."""
        return self.dense(self.packed.decode())

    @property
    def bias(self) -> Tensor | None:
        """The summands."""
        return self.offset

    def dense(self, signs: Tensor, axis: int = 0) -> Tensor:
        """Turn signs into floats, with the factors along one axis."""
        if self.scale is None:
            return signs.to(self.dtype)
        return signs.to(self.dtype) * self.scale.view([-1] + [1] * (signs.ndim - 1 - axis))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the factors, or of the summands; float32 without any."""
        for known in (self.scale, self.offset):
            if known is not None:
                return known.dtype
        return torch.float32

    def extra_repr(self) -> str:
        """Say what the layer does beside multiplying."""
        said = [f"{name}={value}" for name, value in self.options.items()]
        said += [name for name in ("scale", "offset") if getattr(self, name) is not None]
        return ", ".join(said)


class PackedLinear(PackedLayer, nn.Linear):
    """:class:`torch.nn.Linear` with a packed weight.

    ``options`` may hold ``axis``, the 1 of a batch norm: along it the factors and summands lie.
    """

    def sizes(self) -> dict[str, Any]:
        """Numbers of inputs and outputs, by the names that torch's layer gives them."""
        return {"in_features": self.packed.num_columns, "out_features": self.outputs}

    def forward(self, x: Shaped[Tensor, "*batch columns"]) -> Shaped[Tensor, "*batch rows"]:
        """Multiply, scale and shift.

        Args:
            x: Floats, or integers, whose sums are exact.

        Returns:
            The outputs.
        """
        out = self.packed.multiply(x)
        axis = self.options["axis"] - out.ndim if "axis" in self.options else -1
        return scaled(out, self.scale, self.offset, axis)


def channels_of(layer: PackedLayer) -> dict[str, Any]:
    """Count the channels of a convolution, transposed or not."""
    per_group = layer.packed.num_columns // prod(layer.options["kernel_size"])
    return {"in_channels": per_group * layer.options["groups"], "out_channels": layer.outputs}


class PackedConv(PackedLayer):
    """:class:`torch.nn.Conv1d`, ``Conv2d`` or ``Conv3d`` with a packed weight.

    ``options`` hold ``kernel_size``, ``stride``, ``padding`` (numbers, or two for each axis, or
    a name), ``dilation``, ``groups`` and ``padding_mode``.
    """

    def sizes(self) -> dict[str, Any]:
        """Numbers of inputs and outputs, by the names that torch's layer gives them."""
        return channels_of(self)

    @property
    def weight(self) -> Float[Tensor, "rows channels *kernel"]:
        """The weight as floats."""
        signs = self.packed.decode()
        return self.dense(signs.view(len(signs), -1, *self.options["kernel_size"]))

    def forward(self, x: Float[Tensor, "*image"]) -> Tensor:
        """Convolve, scale and shift.

        Args:
            x: An image, or a batch of them.

        Returns:
            The outputs.
        """
        o = self.options
        dims = len(o["kernel_size"])
        batch = x if x.ndim == dims + 2 else x.unsqueeze(0)
        batch, padding = self.padded(batch)
        out = kernels.convolve(
            self.packed.format, self.packed.tensors(), self.packed.num_rows,
            self.packed.num_columns, batch, o["kernel_size"], o["stride"], padding,
            o["dilation"], o["groups"],
        )  # fmt: skip
        out = scaled(out, self.scale, self.offset, axis=-dims - 1)
        return out if x.ndim == dims + 2 else out.squeeze(0)

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Pad what the convolution itself cannot pad, and say what is left to it."""
        o = self.options
        dims = len(o["kernel_size"])
        if o["padding"] == "valid":
            return x, (0,) * dims
        if o["padding"] == "same":
            spans = [d * (k - 1) for d, k in zip(o["dilation"], o["kernel_size"], strict=True)]
            both = [(span // 2, span - span // 2) for span in spans]
        else:
            both = [(size, size) for size in o["padding"]]
        if o["padding_mode"] == "zeros" and all(left == right for left, right in both):
            return x, tuple(left for left, _ in both)
        mode = "constant" if o["padding_mode"] == "zeros" else o["padding_mode"]
        return F.pad(x, [size for pair in reversed(both) for size in pair], mode), (0,) * dims


class PackedConvTranspose(PackedLayer):
    """A transposed convolution with a packed weight, which is decoded at every call.

    Rows are output channels. ``options`` hold ``kernel_size``, ``stride``, ``padding``,
    ``output_padding``, ``dilation`` and ``groups``.
    """

    def sizes(self) -> dict[str, Any]:
        """Numbers of inputs and outputs, by the names that torch's layer gives them."""
        return channels_of(self)

    @property
    def weight(self) -> Float[Tensor, "inputs outputs_of_group *kernel"]:
        """The weight as floats."""
        groups, kernel = self.options["groups"], self.options["kernel_size"]
        rows = self.dense(self.packed.decode())  # (groups * outputs_of_group, inputs_of_group * k)
        rows = rows.view(groups, len(rows) // groups, -1, *kernel)
        return rows.transpose(1, 2).reshape(-1, rows.shape[1], *kernel)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve, and shift.

        Args:
            x: An image, or a batch of them.
            output_size: As torch's layer takes it.

        Returns:
            The outputs.
        """
        o, dims = self.options, len(self.options["kernel_size"])
        extra = tuple(o["output_padding"])
        if output_size is not None:
            extra = self.output_padding(x, output_size, dims)
        return TRANSPOSED[dims](
            x, self.weight.to(x.dtype), self.offset, tuple(o["stride"]), tuple(o["padding"]),
            extra, o["groups"], tuple(o["dilation"]),
        )  # fmt: skip

    def output_padding(self, x: Tensor, output_size: list[int], dims: int) -> tuple[int, ...]:
        """Find what to add at the far side to reach a size."""
        o = self.options
        values = zip(x.shape[-dims:], *(o[n] for n in ("stride", "padding", "dilation",
                     "kernel_size")), strict=True)  # fmt: skip
        least = [(size - 1) * s - 2 * p + d * (k - 1) + 1 for size, s, p, d, k in values]
        extra = tuple(want - have for want, have in zip(output_size[-dims:], least, strict=True))
        if not all(0 <= more < step for more, step in zip(extra, o["stride"], strict=True)):
            top = [have + step - 1 for have, step in zip(least, o["stride"], strict=True)]
            raise ValueError(f"output_size must lie between {least} and {top}; got {output_size}.")
        return extra


class PackedConv1d(PackedConv, nn.Conv1d):
    """Over one axis."""


class PackedConv2d(PackedConv, nn.Conv2d):
    """Over two axes."""


class PackedConv3d(PackedConv, nn.Conv3d):
    """Over three axes."""


class PackedConvTranspose1d(PackedConvTranspose, nn.ConvTranspose1d):
    """Over one axis."""


class PackedConvTranspose2d(PackedConvTranspose, nn.ConvTranspose2d):
    """Over two axes."""


class PackedConvTranspose3d(PackedConvTranspose, nn.ConvTranspose3d):
    """Over three axes."""


class PackedBilinear(PackedLayer, nn.Bilinear):
    """:class:`torch.nn.Bilinear` with a packed weight; ``options`` hold ``in1_features``."""

    def sizes(self) -> dict[str, Any]:
        """Numbers of inputs and outputs, by the names that torch's layer gives them."""
        second = self.packed.num_columns // self.options["in1_features"]
        return {"in2_features": second, "out_features": self.outputs}

    @property
    def weight(self) -> Float[Tensor, "outputs first second"]:
        """The weight as floats."""
        signs = self.packed.decode()
        return self.dense(signs.view(len(signs), self.options["in1_features"], -1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Multiply the pairs.

        Args:
            first: One input.
            second: The other.

        Returns:
            The outputs.
        """
        pairs = (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)
        return scaled(self.packed.multiply(pairs), self.scale, self.offset, axis=-1)


class PackedEmbedding(PackedLayer, nn.Embedding):
    """:class:`torch.nn.Embedding` with a packed table; rows are decoded as they are asked for."""

    def sizes(self) -> dict[str, Any]:
        """Numbers of rows and columns, by the names that torch's layer gives them."""
        return {"num_embeddings": self.outputs, "embedding_dim": self.packed.num_columns}

    def forward(self, index: Integer[Tensor, "*batch"]) -> Float[Tensor, "*batch columns"]:
        """Look rows up.

        Args:
            index: Row numbers.

        Returns:
            The rows.

        Raises:
            IndexError: If a row is not there.
            TypeError: If the numbers are no integers.
        """
        if index.is_floating_point() or index.dtype == torch.bool:
            raise TypeError(f"indices must be integers; got {index.dtype}.")
        flat = index.reshape(-1).long()
        if not len(flat):
            return torch.empty(*index.shape, self.packed.num_columns, dtype=self.dtype)
        if not 0 <= int(flat.min()) <= int(flat.max()) < self.packed.num_rows:
            raise IndexError(
                f"indices must lie in 0 to {self.packed.num_rows - 1}; got "
                f"{int(flat.min())} to {int(flat.max())}."
            )
        rows = self.packed.rows(flat).to(self.dtype)
        if self.scale is not None:
            rows = rows * self.scale[flat].unsqueeze(1)
        return rows.view(*index.shape, self.packed.num_columns)
