"""Recurrent classifiers that read an image row by row or pixel by pixel."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lowland.models.shapes import channels_and_size

__all__ = ["RecurrentClassifier", "lstm"]


def lstm(
    steps: str = "rows",
    hidden: int = 128,
    classes: int = 10,
    in_shape: tuple[int, ...] = (1, 28, 28),
    *,
    permutation_seed: int | None = None,
) -> "RecurrentClassifier":
    """Build an LSTM over the rows or the pixels of an image, and a linear layer after its end.

    Over hundreds of steps the gradient decays into denormal numbers, which a CPU treats slowly:
    there ``torch.set_flush_denormal(True)`` makes a training step over 784 pixels several times
    faster (seven times at hidden size 128 where we measured it). It is for the caller to set, as it
    holds for the whole process.

    Args:
        steps: ``"rows"``, one step per row, which sees all its pixels and channels, or
            ``"pixels"``, one step per pixel, row after row.
        hidden: Size of the hidden state.
        classes: Number of classes.
        in_shape: Channels, height and width of an image.
        permutation_seed: If given, the pixels of every image are put into one other order first:
            permuted MNIST. It is part of the task, so it does not depend on the seed of the
            weights.

    Returns:
        The network, logits ``(batch, classes)``, with torch's own initialization.

    Raises:
        ValueError: If ``steps`` is neither of the two, or a number is not positive.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 4.4 (pixels, permuted, hidden size 128);
        Le et al., 2015, Section 4.2, for the task.

    Example:
        >>> sum(p.numel() for p in lstm("pixels", 128).parameters())
        68362
    """
    if steps not in ("rows", "pixels"):
        raise ValueError(f"steps must be 'rows' or 'pixels'; got {steps!r}.")
    if min(hidden, classes) < 1:
        raise ValueError(f"hidden and classes must be positive; got {hidden} and {classes}.")
    channels, height, width = channels_and_size(in_shape, smallest=1)
    if steps == "pixels":
        height, width = height * width, 1
    order = None
    if permutation_seed is not None:
        draws = Generator().manual_seed(permutation_seed)
        order = torch.randperm(in_shape[1] * in_shape[2], generator=draws)
    return RecurrentClassifier(height, channels * width, hidden, classes, order)


class RecurrentClassifier(nn.Module):
    """An LSTM whose last hidden state goes to a linear layer.

    Args:
        length: Steps that an image is cut into, in the order of its rows.
        inputs: Numbers that the LSTM sees in a step: pixels times channels.
        hidden: Size of the hidden state.
        classes: Number of classes.
        order: The order in which pixels are read; None reads them as they are.
    """

    order: Tensor | None

    def __init__(
        self, length: int, inputs: int, hidden: int, classes: int, order: Tensor | None = None
    ):
        super().__init__()
        self.length = length
        self.register_buffer("order", order)  # saved with the weights: it belongs to the task
        self.lstm = nn.LSTM(inputs, hidden)
        self.linear = nn.Linear(hidden, classes)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Read the images.

        Args:
            images: Of the size that the network was built for.

        Returns:
            Logits.
        """
        pixels = images.flatten(2).permute(2, 0, 1)  # pixels, batch, channels
        if self.order is not None:
            pixels = pixels[self.order]
        count, batch, channels = pixels.shape
        rows = pixels.reshape(self.length, count // self.length, batch, channels)
        _, (state, _) = self.lstm(rows.transpose(1, 2).flatten(2))
        return self.linear(state[-1])
