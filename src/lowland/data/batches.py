"""Batches of images that never leave the device, in an order that only seed and epoch decide."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn.functional import pad

from lowland.seeds import seed_of

__all__ = ["Batches", "crop_and_flip"]

PADDING = 4  # pixels on each side before the random crop; Draxler et al. and He et al. use 4


class Batches:
    """A re-iterable of ``(inputs, target)`` over images kept as uint8 on one device.

    Each pass is one epoch. Its order and its augmentation are functions of ``(seed, epoch)`` only:
    they do not depend on the batch size, the device, earlier passes or the global generators, and
    a pass can be taken up in the middle with the same bits. Inputs are ``pixel / 255``, then
    ``(inputs - mean) / std`` if those are given.

    Args:
        images: Values 0..255, uint8 of shape ``(n, channels, height, width)``.
        labels: Their classes, shape ``(n,)``.
        batch_size: Images per batch.
        mean: Mean of each channel in units where 255 is 1, or one number for all.
        std: Standard deviation of each channel, likewise.
        augment: None, or ``"crop-flip"``: pad by 4 pixels, crop at random, mirror every other one.
        shuffle: Go through the images in a new random order each epoch.
        drop_last: Leave out the last batch if it is smaller than the others.
        seed: Seed of order and augmentation.
        device: Where images live and batches are made; by default where ``images`` are.
        dtype: Floating-point type of the inputs.

    Raises:
        TypeError: If the images are not uint8.
        ValueError: If there are no images or not one label for each, if ``batch_size`` is not
            positive or leaves no batch, or if ``augment`` is unknown.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        augment: str | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        check(images, labels, batch_size, augment, drop_last)
        device = images.device if device is None else torch.device(device)
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.batch_size = batch_size
        self.mean, self.std = mean, std
        self.augment = augment
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.dtype = dtype
        self.epoch = 0
        self.shift = per_channel(mean, images.shape[1], "mean", dtype, device)
        self.scale = per_channel(std, images.shape[1], "std", dtype, device)

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        n = len(self.labels)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the current epoch; the next call goes through the next one."""
        epoch = self.epoch
        self.epoch += 1
        return self.epoch_batches(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass goes through.

        Args:
            epoch: Its number, counted from 0.
        """
        self.epoch = epoch

    def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through an epoch without moving the current one.

        Args:
            epoch: Its number, counted from 0.
            start: Batch to begin with; what follows is what an uninterrupted pass would give.

        Returns:
            Iterator over inputs ``(batch, channels, height, width)`` and classes ``(batch,)``.

        Raises:
            ValueError: If ``start`` is not the number of a batch, or the number of batches.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie in 0..{len(self)}, the batches; got {start}.")
        return self.generate(epoch, start)

    def generate(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch from ``start`` on."""
        order, corner, mirrored = self.plan(epoch)
        for number in range(start, len(self)):
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            index = part if order is None else order[part]
            images = self.images[index]
            if corner is not None and mirrored is not None:
                images = crop_and_flip(images, corner[part], mirrored[part])
            yield self.inputs(images), self.labels[index]

    def rows(
        self, index: Int[Tensor, " rows"], *, draws: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give any images, in any order and as often as asked for; epochs play no part.

        Args:
            index: Their positions, counted from 0 as in ``images``.
            draws: Source of randomness, on the CPU, for the augmentation of these batches if they
                have one; without it the images come as they are.

        Returns:
            Inputs ``(rows, channels, height, width)`` and classes ``(rows,)``.

        Raises:
            ValueError: If a position is not one of an image.
        """
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(
                "index must hold positions, integers of shape (rows,); got "
                f"{index.dtype} of shape {tuple(index.shape)}."
            )
        n = len(self.labels)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n:
            worst = index[(index < 0) | (index >= n)][0]
            raise ValueError(f"positions must lie in 0..{n - 1}; got {int(worst)}.")
        index = index.to(self.images.device)
        images = self.images[index]
        if self.augment and draws is not None:
            corner, mirrored = augmentation(len(index), draws)
            images = crop_and_flip(images, corner.to(index.device), mirrored.to(index.device))
        return self.inputs(images), self.labels[index]

    def plan(self, epoch: int) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Draw an epoch's order, crop corners and mirror flags on the CPU; move them in one go."""
        n, device = len(self.labels), self.images.device
        order = corner = mirrored = None
        if self.shuffle:
            order = torch.randperm(n, generator=generator(self.seed, "order", epoch)).to(device)
        if self.augment:
            drawn = augmentation(n, generator(self.seed, "augmentation", epoch))
            corner, mirrored = (part.to(device) for part in drawn)
        return order, corner, mirrored

    def inputs(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Scale pixels to what the network sees.

        Args:
            images: Values 0..255, on the device of the batches.

        Returns:
            ``pixel / 255``, normalized if there is a mean or standard deviation.
        """
        inputs = images.to(self.dtype) / 255
        if self.shift is not None:
            inputs -= self.shift
        if self.scale is not None:
            inputs /= self.scale
        return inputs

    def evaluation(self) -> "Batches":
        """Give the same images once each, in their order, as they are.

        Returns:
            Batches without augmentation, shuffling or dropping, that share the memory of these.
        """
        return self.plain(self.images, self.labels)

    def subset(self, n: int) -> "Batches":
        """Give a fixed random choice of images for evaluation.

        Args:
            n: How many at most; the choice for a smaller n is the beginning of that for a larger
                one.

        Returns:
            Batches as of :meth:`evaluation` over the first ``n`` of a permutation that only the
            seed decides.

        Raises:
            ValueError: If ``n`` is not positive.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1 image; got {n}.")
        order = torch.randperm(len(self.labels), generator=generator(self.seed, "subset"))
        chosen = order[:n].to(self.images.device)
        return self.plain(self.images[chosen], self.labels[chosen])

    def plain(self, images: Tensor, labels: Tensor) -> "Batches":
        """Batches of other images, scaled as these are, without any randomness."""
        return Batches(
            images,
            labels,
            self.batch_size,
            mean=self.mean,
            std=self.std,
            shuffle=False,
            seed=self.seed,
            dtype=self.dtype,
        )


def crop_and_flip(
    images: UInt8[Tensor, "batch channels height width"],
    corner: Int[Tensor, "batch 2"],
    mirrored: Bool[Tensor, " batch"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Pad by 4 black pixels, cut out a window of the old size, mirror some left to right.

    Args:
        images: Images of any values.
        corner: Row and column of each window's corner in the padded image, 0..8.
        mirrored: Which images to mirror, after the crop.

    Returns:
        The augmented images.

    Source:
        He et al., CVPR 2016, Section 4.2; Draxler et al., ICML 2018, Section 5.
    """
    height, width = images.shape[-2:]
    padded = pad(images, (PADDING,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: every window of each image
    each = torch.arange(len(images), device=images.device)
    cropped = windows[each, :, corner[:, 0], corner[:, 1]]
    return torch.where(mirrored[:, None, None, None], cropped.flip(-1), cropped)


def augmentation(count: int, draws: Generator) -> tuple[Tensor, Tensor]:
    """Draw crop corners and mirror flags on the CPU."""
    corner = torch.randint(2 * PADDING + 1, (count, 2), generator=draws)
    return corner, torch.randint(2, (count,), generator=draws).bool()


def generator(seed: int, *labels: object) -> Generator:
    """Make a generator whose stream belongs to a seed and a purpose."""
    # A text of its own: orders that were drawn before must not change.
    return Generator().manual_seed(seed_of("/".join(str(part) for part in (seed, *labels))))


def per_channel(
    values: Sequence[float] | float | None,
    channels: int,
    name: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor | None:
    """Shape one number per channel for broadcasting over a batch."""
    if values is None:
        return None
    tensor = torch.as_tensor(values, dtype=dtype, device=device).reshape(-1, 1, 1)
    if len(tensor) not in (1, channels) or not tensor.isfinite().all():
        raise ValueError(f"{name} must hold {channels} finite numbers or one; got {values}.")
    if name == "std" and not (tensor > 0).all():
        raise ValueError(f"std must be positive; got {values}. Leave out what is constant.")
    return tensor


def check(
    images: Tensor, labels: Tensor, batch_size: int, augment: str | None, drop_last: bool
) -> None:
    """Refuse what no batch can be made of."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise TypeError(
            "images must be uint8 of shape (n, channels, height, width); got "
            f"{images.dtype} of shape {tuple(images.shape)}."
        )
    if labels.shape != images.shape[:1] or not len(images):
        raise ValueError(
            f"there must be images and one label for each; got {len(images)} images and labels "
            f"of shape {tuple(labels.shape)}."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    if drop_last and len(images) < batch_size:
        raise ValueError(
            f"with drop_last there must be at least batch_size={batch_size} images; "
            f"got {len(images)}. Lower batch_size or keep the last batch."
        )
    if augment not in (None, "crop-flip"):
        raise ValueError(f"augment must be None or 'crop-flip'; got {augment!r}.")
