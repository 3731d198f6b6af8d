"""What the image networks share: checks of depth and input, stages, and the global average."""

from collections.abc import Callable, MutableMapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["GlobalAverage", "add_stages", "blocks_of", "channels_and_size"]


def blocks_of(depth: int, period: int, others: int) -> int:
    """Count the blocks of a network, each of which adds some layers.

    Args:
        depth: Weighted layers on the longest way.
        period: How many of them one more block adds.
        others: How many lie outside of blocks.

    Returns:
        The number n in ``depth = period n + others``.

    Raises:
        ValueError: If there is no such number.
    """
    blocks, rest = divmod(depth - others, period)
    if blocks < 1 or rest:
        near = period * max(1, round((depth - others) / period)) + others
        raise ValueError(f"depth must be {period} n + {others}; got {depth}. Take {near}.")
    return blocks


def add_stages(
    layers: MutableMapping[str, nn.Module],
    make: Callable[[int, int, int], nn.Module],
    width: int,
    widths: Sequence[int],
    blocks: int,
) -> None:
    """Add stages of equally many blocks; all but the first begin with stride 2.

    Args:
        layers: Where to, under names such as ``"stage1_block1"``.
        make: Of channels in, channels out and stride, a block.
        width: Channels before the first stage.
        widths: Channels of each stage.
        blocks: Of each stage.
    """
    for stage, wider in enumerate(widths, 1):
        for number in range(1, blocks + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            layers[f"stage{stage}_block{number}"] = make(width, wider, stride)
            width = wider


def channels_and_size(in_shape: Sequence[int], smallest: int) -> tuple[int, int, int]:
    """Read the shape of an image.

    Args:
        in_shape: Channels, height and width.
        smallest: Pixels per side that the network needs.

    Returns:
        The three numbers.

    Raises:
        ValueError: If there are not three, or the image is too small.
    """
    if len(in_shape) != 3 or in_shape[0] < 1:
        raise ValueError(
            f"in_shape must be (channels, height, width); got {tuple(in_shape)}. "
            "For inputs of another shape take an mlp."
        )
    channels, height, width = in_shape
    if min(height, width) < smallest:
        raise ValueError(
            f"images must have at least {smallest}x{smallest} pixels for this network; "
            f"got {height}x{width}. Take a shallower one."
        )
    return channels, height, width


class GlobalAverage(nn.Module):
    """Mean of each channel over the image; unlike adaptive pooling, exact to the bit on a GPU."""

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels"]:
        """Average.

        Args:
            images: Any number of pixels.

        Returns:
            One number per channel.
        """
        return images.mean((-2, -1))
