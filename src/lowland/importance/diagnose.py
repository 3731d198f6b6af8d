"""Does the score tell the truth on this model: exact gradient norms of pools and of draws."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from lowland.importance.exact import gradient_norms
from lowland.importance.resample import draw
from lowland.importance.rows import Rows, count_rows, take_apart
from lowland.importance.scorer import Scorer
from lowland.importance.variance import batch_multiplier, equivalent_batch, second_moment_ratio
from lowland.results import environment, plain, write_bytes
from lowland.training import check_not_empty, generator, isolated_rng, to_device

__all__ = ["Diagnosis", "Ranking", "diagnose", "rank_examples"]


@dataclass(frozen=True)
class Diagnosis:
    """How good a score is on a model as it is now; one entry per pool.

    Attributes:
        tau: Equivalent batch that the scores promise.
        tau_exact: Equivalent batch that exact gradient norms would give.
        multiplier: Equivalent batch that draws by these scores really have: the second moment of
            a uniform gradient over that of the weighted one, from exact norms of drawn rows.
        correlation: Pearson's, between scores and gradient norms; nan if one is constant.
        ratio: Pool over batch.
        pool: Rows of a pool.
        device: Where it was measured.
    """

    tau: tuple[float, ...]
    tau_exact: tuple[float, ...]
    multiplier: tuple[float, ...]
    correlation: tuple[float, ...]
    ratio: float
    pool: int
    device: str = "cpu"

    @property
    def kappa(self) -> float:
        """Batch multiplier with the pool's own variance, from the true second moments."""
        mean = sum(self.multiplier) / len(self.multiplier)
        return batch_multiplier(max(1.0, mean), self.ratio)

    def record(self) -> dict[str, Any]:
        """Give all numbers as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return plain({**vars(self), "kappa": self.kappa, "environment": environment(self.device)})


def diagnose(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    *,
    presample: float = 3,
    score: str | Callable[[Any, Any], Tensor] = "bound",
    scheme: str = "systematic",
    pools: int = 4,
    draws: int | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Measure what a score promises and what it keeps, on a model as it is now.

    A score that is only correlated with the gradient norm has a larger tau than gain: the norms
    of the drawn rows tell. Costs an exact gradient per row of every pool.

    Args:
        model: Left as it is; evaluated in evaluation mode.
        loss_fn: One loss per example.
        batches: Batches to read pools from.
        presample: Pool over batch.
        score: As for :class:`ImportanceSampling`.
        scheme: How to draw.
        pools: Number of pools; fewer if the batches end.
        draws: Draws per pool, to estimate second moments with; 64 batches of them by default.
        seed: Seed of the draws, and of batches that shuffle.

    Returns:
        The diagnosis.

    Raises:
        ValueError: If there is no batch, or an argument is out of range.

    Source:
        Ours, from Section 3.1 of the paper.
    """
    if presample <= 1 or pools < 1:
        raise ValueError(f"presample must be above 1 and pools 1; got {presample} and {pools}.")
    if draws is not None and draws < 1:
        raise ValueError(f"draws must be at least 1 per pool, or None; got {draws}.")
    scorer = Scorer(model, loss_fn, score)
    found: list[tuple[float, float, float, float]] = []
    with isolated_rng(seed, "diagnose", batches=batches), scorer.watched():
        rows = Rows(iter(batches), lambda batch: to_device(batch, scorer.device))
        first = rows.take()
        if first is None:
            raise ValueError("batches must yield at least one batch; got none. Is it empty?")
        batch_size = count_rows(first)
        rows.held, size = first, round(presample * batch_size)
        source = generator(seed, "diagnose")
        while len(found) < pools and (pool := rows.take(size)) is not None:
            if count_rows(pool) < size and found:
                break  # a smaller pool has another tau
            size = count_rows(pool)  # the whole data set, if that is smaller
            inputs, target = take_apart(pool)
            scores = scorer.pool(inputs, target, count_rows(pool))
            norms = gradient_norms(scorer.model, loss_fn, inputs, target)
            index, weight = draw(scores, draws or 64 * batch_size, scheme, source)
            found.append(
                (
                    float(equivalent_batch(scores)),
                    float(equivalent_batch(norms)),
                    second_moment_ratio(weight, norms[index]),
                    correlation(scores, norms),
                )
            )
    tau, exact, multiplier, correlations = zip(*found, strict=True)
    ratio = max(1.0, size / batch_size)
    return Diagnosis(tau, exact, multiplier, correlations, ratio, size, str(scorer.device))


def correlation(a: Float[Tensor, " pool"], b: Float[Tensor, " pool"]) -> float:
    """Pearson's coefficient, nan if one of the two is constant."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = float(a.norm() * b.norm())
    return float(a.dot(b)) / scale if scale > 0 else float("nan")


@dataclass(frozen=True)
class Ranking:
    """Examples by importance, to prune a data set or to look for wrong labels.

    Attributes:
        scores: Of every example, in the order of the data.
        order: Positions from the largest score to the smallest.
        name: What the score is.
    """

    scores: Float[Tensor, " examples"]
    order: Int[Tensor, " examples"]
    name: str

    def save(self, file: str | Path) -> Path:
        """Write a table ``rank,index,score``, largest first.

        Args:
            file: A ``.csv`` file.

        Returns:
            The file.
        """
        pairs = zip(self.order.tolist(), self.scores[self.order].tolist(), strict=True)
        lines = [f"{rank},{index},{score:.9g}" for rank, (index, score) in enumerate(pairs)]
        return write_bytes(file, "\n".join([f"rank,index,{self.name}", *lines, ""]).encode())


def rank_examples(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    *,
    score: str | Callable[[Any, Any], Tensor] = "bound",
) -> Ranking:
    """Score every example of a data set.

    With cross-entropy ``"bound"`` is the EL2N score and ``"gradient_norm"`` is GraNd; both are
    meant to be averaged over several networks early in training.

    Args:
        model: Left as it is; evaluated in evaluation mode.
        loss_fn: One loss per example.
        batches: The data in a fixed order, without augmentation: for a ``DataLoader``
            ``shuffle=False`` and no sampler, for ``lowland.data.Batches`` its ``evaluation()``.
        score: As for :class:`ImportanceSampling`.

    Returns:
        The ranking.

    Raises:
        ValueError: If the batches come in another order than the data, leave some of it out, or
            there is none.

    Source:
        Paul, Ganguli & Dziugaite, NeurIPS 2021.
    """
    check_order(batches)
    scorer = Scorer(model, loss_fn, score)
    parts = []
    with isolated_rng(0, "rank", batches=batches), scorer.watched():
        for batch in batches:
            inputs, target = take_apart(to_device(batch, scorer.device))
            parts.append(scorer.pool(inputs, target, count_rows((inputs, target))).cpu())
    check_not_empty(len(parts))
    scores = torch.cat(parts)
    name = score if isinstance(score, str) else getattr(score, "__name__", "score")
    return Ranking(scores, scores.argsort(descending=True, stable=True), name)


def check_order(batches: Any) -> None:
    """Refuse batches whose rows are not those of the data, one after the other."""
    if getattr(batches, "shuffle", False):
        raise ValueError(
            "batches must come in a fixed order, so that scores belong to examples; these are "
            "shuffled. Pass shuffle=False, or batches.evaluation()."
        )
    if not isinstance(batches, DataLoader):
        return
    of_batches = batches.batch_sampler
    source = batches.sampler if of_batches is None else getattr(of_batches, "sampler", of_batches)
    is_stream = isinstance(batches.dataset, IterableDataset)
    if not is_stream and type(source) is not SequentialSampler:
        raise ValueError(
            "batches must come in the fixed order of the data, so that scores belong to examples; "
            f"a {type(source).__name__} makes another one. Pass a DataLoader with shuffle=False "
            "and no sampler; for a part of the data, one over torch.utils.data.Subset."
        )
    if getattr(of_batches, "drop_last", False):
        raise ValueError(
            "batches must hold every example of the data; with drop_last=True the last ones may "
            "be missing. Pass drop_last=False."
        )
