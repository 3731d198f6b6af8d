"""How much the gradient of a mini-batch scatters while the weights stand still."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import nn

from lowland.dynamics.draws import Draws, batches_to_measure
from lowland.dynamics.gradients import batch_gradient, example_gradients
from lowland.dynamics.mean_loss import BATCH_NORMS
from lowland.dynamics.scatter import Found, PairScatter, Scatter
from lowland.errors import LowlandError
from lowland.params import trainable
from lowland.results import plain
from lowland.training import (
    batch_count,
    device_of,
    isolated_rng,
    kept_buffers,
    kept_mode,
    mode,
)
from lowland.training.evaluate import LossFn

__all__ = ["GradientNoise", "NotFiniteError", "gradient_noise"]

SAMPLINGS = ("iid", "epoch")


class NotFiniteError(LowlandError, ValueError):
    """A loss or a gradient that was to be measured is not finite."""


@dataclass(frozen=True)
class GradientNoise:
    r"""Scatter of the gradient :math:`g_b` of the mean loss of a batch, with frozen weights.

    Attributes:
        trace: :math:`D = \sum_i \mathrm{Var}_b[g_{b,i}]`, unbiased; summed over the parameters.
        trace_se: Its standard error, by a jackknife over batches; NaN for two.
        mean_square: :math:`G^2 = |E g_b|^2`, unbiased; it may be negative.
        mean_square_se: Its standard error, likewise.
        loss: Mean loss of the batches, per example.
        loss_variance: Variance of the mean loss of a batch.
        batch_size: Examples of a batch.
        count: Batches measured; examples with ``per_sample``.
        params: M, the number of parameters.
        sampling: ``"iid"``, ``"epoch"``, or ``"given"`` for batches taken as they came.
    """

    trace: float
    trace_se: float
    mean_square: float
    mean_square_se: float
    loss: float
    loss_variance: float
    batch_size: int
    count: int
    params: int
    sampling: str

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return plain(self)


def gradient_noise(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    batch_size: int | None = None,
    n_batches: int = 40,
    sampling: str = "iid",
    per_sample: bool = False,
    pair: bool = False,
    batch_norm: str = "eval",
    seed: int = 0,
    epoch: int = 0,
) -> GradientNoise:
    r"""Measure the trace of the covariance of the mini-batch gradient, disturbing nothing.

    .. math:: D = \frac{\sum_b |g_b|^2 - n |\bar g|^2}{n - 1}, \qquad G^2 = |\bar g|^2 - D / n

    Dropout is off. The model, its ``.grad``, buffers, modes and the global generators stay as they
    are. With several processes each computes its share of the same batches, and all get the same
    numbers.

    Args:
        model: Any module.
        loss_fn: One loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``.
        batch_size: Examples B of a batch of training. All examples are then read, and batches
            drawn from them; None takes the first ``n_batches`` batches as they come, leaving out
            those that are smaller than the first.
        n_batches: Number of batches n.
        sampling: With ``batch_size``: ``"iid"`` draws B examples with replacement for each batch;
            ``"epoch"`` cuts a random order of all P examples, and gives the noise of such batches,
            :math:`D_{\mathrm{iid}} (P - B) / (P - 1)`.
        per_sample: Take gradients of ``n_batches`` times B single examples by ``torch.func``, for
            small networks: :math:`D_B = D_1 / B`. It needs batch norm in eval mode.
        pair: Estimate :math:`D = \tfrac12 E |g_1 - g_2|^2` and :math:`G^2 = E g_1 g_2` from
            n / 2 pairs, so that only two gradients are in memory.
        batch_norm: ``"eval"``, or ``"train"``: gradients as in training, where the examples of a
            batch depend on each other.
        seed: Seed of the draws, and of a loader that shuffles.
        epoch: Which epoch is read of batches that know ``set_epoch``.

    Returns:
        The noise, with standard errors.

    Raises:
        ValueError: If ``n_batches`` is below 2 (4 for pairs), ``batch_size`` is more than there
            are examples, there are too few batches or they cannot be read again, or an argument
            is unknown.
        NotFiniteError: If a loss or a gradient is not finite; a ``ValueError`` too.
        UnsupportedModelError: If ``per_sample`` meets a model that takes no single examples.

    Source:
        Specification, section 3.3; the unbiased forms are ours.
    """
    check_arguments(n_batches, sampling, batch_norm, per_sample=per_sample, pair=pair)
    inner = unwrapped(model)
    params = trainable(inner).size
    with (
        kept_mode(inner),
        kept_buffers(inner.modules()),
        isolated_rng(seed, "gradient noise", batches=batches, epoch=epoch),
        mode(inner, norm_trains=batch_norm == "train"),
    ):
        draws = batches_to_measure(
            batches, batch_size, n_batches, sampling, device_of(inner), seed=seed
        )
        if pair:
            found = scatter_of_pairs(inner, loss_fn, draws)
        else:
            found = scatter(inner, loss_fn, draws, per_sample=per_sample)
    if not all(map(isfinite, (found.trace, found.mean_square, found.loss))):
        raise NotFiniteError(
            "gradients and losses must be finite; some of these batches give others. "
            "Measure at earlier weights."
        )
    return GradientNoise(
        **vars(found),
        batch_size=draws.batch_size,
        params=params,
        sampling=sampling if draws.drawn else "given",
    )


def scatter(model: nn.Module, loss_fn: LossFn, draws: Draws, *, per_sample: bool) -> Found:
    """Take the gradients of batches, or of their examples."""
    unit = 1 if per_sample else draws.batch_size
    sums = Scatter(trainable(model).size, draws, device_of(model), unit=unit)
    for number, inputs, target in draws.mine():
        if per_sample:
            loss, total, squares = example_gradients(model, loss_fn, inputs, target)
            sums.add(number, loss, total, squares, batch_count(target, inputs))
        else:
            loss, gradient = batch_gradient(model, loss_fn, inputs, target)
            sums.add(number, loss, gradient, gradient.dot(gradient).item(), 1)
    return sums.result()


def scatter_of_pairs(model: nn.Module, loss_fn: LossFn, draws: Draws) -> Found:
    """Take the gradients of batches, two by two."""
    pairs = PairScatter(draws, device_of(model))
    for number, inputs, target in draws.mine(together=2):
        pairs.add(number, *batch_gradient(model, loss_fn, inputs, target))
    return pairs.result()


def check_arguments(
    n_batches: int, sampling: str, batch_norm: str, *, per_sample: bool, pair: bool
) -> None:
    """Refuse arguments that mean nothing."""
    if sampling not in SAMPLINGS or batch_norm not in BATCH_NORMS:
        raise ValueError(
            f"sampling must be one of {SAMPLINGS} and batch_norm one of {BATCH_NORMS}; got "
            f"{sampling!r} and {batch_norm!r}."
        )
    if n_batches < (4 if pair else 2) or n_batches != int(n_batches):
        raise ValueError(
            f"n_batches must be a whole number, at least {4 if pair else 2}, so that a variance "
            f"and its error can be told; got {n_batches}."
        )
    if per_sample and (pair or batch_norm == "train"):
        raise ValueError(
            "per_sample takes examples one by one: it goes with neither pair nor "
            'batch_norm="train". Choose one.'
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of a DistributedDataParallel, whose forward expects a backward pass."""
    wrapper = torch.nn.parallel.DistributedDataParallel
    return model.module if isinstance(model, wrapper) else model
