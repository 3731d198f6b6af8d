"""What the image networks share: the check of the input's shape, and the global average."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["GlobalAverage", "channels_and_size"]


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
