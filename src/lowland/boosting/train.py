"""Grow a network block by block, each in the memory of one, with a certificate at every depth."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowland.boosting.chain import Chain, as_chain, check_run
from lowland.boosting.checks import check_model, check_modules, check_plan, describe, first_inputs
from lowland.boosting.feature_set import Features
from lowland.boosting.features import read_features
from lowland.boosting.fitting import Plan, check_equal_batches, share
from lowland.boosting.generalization import l1_norms
from lowland.boosting.local import Module, evaluated
from lowland.boosting.refine import refine
from lowland.boosting.result import BoostResult
from lowland.boosting.rounds import Data, Standing
from lowland.boosting.sequence import Run, behind, boost, boost_in_parallel
from lowland.boosting.told import log_of_block
from lowland.results import Status, open_folder
from lowland.training import (
    Log,
    Progress,
    all_sum,
    choose_device,
    device_of,
    kept_mode,
    open_progress,
    to_device,
)
from lowland.training.floats import wide_type
from lowland.training.together import check_given, fail_together

__all__ = ["train_boosted"]

logger = getLogger("lowland.boosting")


def train_boosted(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    chain: Chain | None = None,
    objective: str = "ce",
    alpha: str = "closed",
    head: str | Callable[..., nn.Module] = "plain",
    init: str = "zero",
    stop: str | Callable[[list[dict[str, Any]]], bool] = "fixed",
    epochs: int = 5,
    check_every: int = 1,
    gamma_threshold: float = 0.0,
    edge_start: float = 0.0,
    optimizer: Callable[..., Optimizer] | None = None,
    rate_schedule: Callable[[Optimizer], Any] | None = None,
    batch_size: int = 100,
    module_size: int = 1,
    schedule: str = "sequential",
    transport: float | None = None,
    l1: float | None = None,
    oracle: Callable[..., Any] | None = None,
    recalibrate: bool = False,
    drop: bool = False,
    exits: bool = False,
    refine_epochs: int = 0,
    cache: str = "auto",
    cache_dtype: str | None = None,
    cache_folder: str | Path | None = None,
    views: int | None = None,
    sample_weights: Tensor | None = None,
    evaluation_batches: Iterable[Any] | None = None,
    validation_batches: Iterable[Any] | None = None,
    test_batches: Iterable[Any] | None = None,
    precision: str = "float32",
    device: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    save_every: float = 60.0,
    progress: bool | None | Progress = False,
    log: Log | None = None,
    max_steps_now: int | None = None,
) -> BoostResult:
    """Train a network in place, one block after the other, each with a head of its own.

    A block learns from features that the frozen ones before it made once. Afterwards every block
    is where it was, and the last head is the model's own, so that the model computes exactly what
    the last certificate is about. Statistics are taken over the whole training set in eval mode
    and float64. With ``out`` the same call after a kill goes on where it was saved, in mid-block
    too. In several processes each has its own batches, equally many.

    Args:
        model: Any network that is a chain of blocks with a classifier; see :func:`as_chain`.
        batches: Re-iterable of ``(inputs, class)``, classes 0..C-1.
        chain: How to cut the model; None finds out.
        objective: ``"ce"``, cross-entropy; ``"exp"``, the paper's exponential loss; or
            ``"released"``, that of the authors' code.
        alpha: Weight of a depth in loss and scores: ``"closed"`` or ``"line_search"``.
        head: ``"plain"``, ``"deep"``, ``"deep-2"``, ``"downstream"``, ``"downstream-2"``,
            ``"downstream-4"`` or a function; see :func:`make_head`. The last block always has the
            model's own head.
        init: ``"zero"`` lets every block begin as the identity where it can be one, with a warm
            head; ``"default"`` leaves the model's weights; ``"copy_previous"`` takes those of the
            block before.
        stop: When a block is done: ``"fixed"``, after ``epochs``; before that ``"paper"``, when
            gamma exceeds the threshold; ``"plateau"``; ``"validation"``; or a function of the rows
            of its curve.
        epochs: Budget of a block, passes over the batches.
        check_every: Epochs between two looks of the stop rule.
        gamma_threshold: What gamma must exceed.
        edge_start: Edge that the first gamma is measured from.
        optimizer: Makes a block's optimizer from its parameters; Adam at 0.001.
        rate_schedule: Makes a learning-rate schedule from the optimizer; it steps every update.
        batch_size: Examples of a batch; recomputed features come in the user's batches.
        module_size: Blocks that are trained together.
        schedule: ``"sequential"``, or ``"parallel"``: all blocks in every step, each on detached
            features, for the epochs of one; needs the memory of all.
        transport: Step size tau of a penalty on what a block adds to its input, or None.
        l1: Bound on the l1 norm of every unit's incoming weights, or None; what the
            generalization bound assumes. It holds the weights that :func:`l1_norms` names.
        oracle: ``oracle(values, target, previous, alpha, block, head)`` fits block and head in
            place, instead of gradients; blocks with ``fit`` need none.
        recalibrate: Take batch-norm statistics anew before a block is frozen.
        drop: Take a block that failed out of the model instead of putting it back to identity.
        exits: Keep the heads, for :func:`predict_early`; refinement makes them worthless.
        refine_epochs: Epochs of training end to end afterwards; see :func:`refine`.
        cache: Where features are kept: ``"auto"``, ``"device"``, ``"host"``, ``"disk"`` or
            ``"recompute"``.
        cache_dtype: What they are kept as: ``"float32"``, ``"bfloat16"``, ``"float16"``; with
            narrow types the certificates are about rounded features.
        cache_folder: For ``"disk"``.
        views: Versions of each example to keep where data is random.
        sample_weights: One for each example, in the order of the batches, and of the evaluation
            batches; only their ratios count.
        evaluation_batches: Training data for the statistics, say without augmentation; by default
            ``batches`` as they come in one pass.
        validation_batches: Data for ``stop="validation"``.
        test_batches: Data for test errors.
        precision: ``"float32"`` or ``"bf16"``, for training a block.
        device: Where to move the model to; None leaves it.
        seed: Seed of everything random in training.
        out: Folder for the state to resume from and the result.
        save_every: Seconds between two saved states.
        progress: See :func:`lowland.training.open_progress`.
        log: Called as ``log(values, step)`` with the rows of every block's training, then with its
            round; steps are updates, those of the rounds before included.
        max_steps_now: Stop this call after so many updates of a block, as if interrupted.

    Returns:
        One record per round, and the model. A number that is not finite ends the run with the
        rounds before it.

    Raises:
        ValueError: If an argument is not what it must be, or labels are not classes.
        UnsupportedModelError: If the model is no chain, or ``l1`` cannot hold its weights.
        FloatingPointError: If inputs are not finite.

    Source:
        Huang et al., ICML 2018, Algorithms 3 and 4; specification sections 3 and 9.
    """
    plan = Plan(
        objective, alpha, stop, epochs, check_every, gamma_threshold,
        optimizer or adam, rate_schedule, batch_size, transport, l1, oracle,
        recalibrate, precision, seed, save_every, log,
    )  # fmt: skip
    with fail_together():
        check_plan(
            plan, init=init, schedule=schedule, head=head, module_size=module_size,
            refine_epochs=refine_epochs, edge_start=edge_start, validation=validation_batches,
            out=out,
        )  # fmt: skip
        if device is not None:
            model.to(choose_device(device))
        check_model(model)
        if l1 is not None:
            l1_norms(model)  # refuses weights that cannot be held
    check_given(
        evaluation_batches=evaluation_batches, validation_batches=validation_batches,
        test_batches=test_batches, sample_weights=sample_weights,
    )  # fmt: skip
    with kept_flags(model), open_progress(progress) as display:
        with fail_together():
            inputs = to_device(first_inputs(batches), device_of(model))
            chain = own_chain(model, chain, inputs)
            modules = [
                Module(chain.parts[start : start + module_size])
                for start in range(0, len(chain.parts), module_size)
            ]
            check_modules(modules, schedule, oracle)
            classes = count_classes(chain, inputs)
            read = partial(
                read_features, values_of=chain.values, device=device_of(model), parts=chain.parts,
                classes=classes, cache=cache, dtype=cache_dtype, folder=cache_folder, seed=seed,
            )  # fmt: skip
            train_set = read(batches, views=views, sample_weights=sample_weights)
            data = Data(
                train_set,
                train_set
                if evaluation_batches is None
                else read(evaluation_batches, sample_weights=sample_weights),
                None if validation_batches is None else read(validation_batches),
                None if test_batches is None else read(test_batches),
            )
        with_mean_one(train_set)
        cached = train_set.describe()
        logger.info(cached)
        settings = describe(
            plan, chain, data, init=init, schedule=schedule, module_size=module_size, head=head,
            drop=drop, exits=exits, edge_start=edge_start, refine_epochs=refine_epochs,
            cache_dtype=cache_dtype, sample_weights=train_set.weights, classes=classes,
        )  # fmt: skip
        share(model)
        check_equal_batches(train_set.batches(batch_size, seed=seed))
        folder = None if out is None else open_folder(out, settings)
        run = Run(
            chain, modules, inputs, data, plan, classes, head, init, drop, exits, folder,
            Standing(edge=edge_start),
        )  # fmt: skip
        grow = boost_in_parallel if schedule == "parallel" else boost
        status, message = grow(run, display, max_steps_now)
    refinement = None
    if refine_epochs and status is Status.FINISHED:
        refinement = refine(
            model, batches, epochs=refine_epochs, l1=l1, seed=seed, precision=precision,
            test_batches=test_batches, out=None if out is None else Path(out) / "refinement",
            save_every=save_every, progress=progress, max_steps_now=max_steps_now,
            log=log_of_block(log, len(run.rounds) + 1, run.updates),
        )  # fmt: skip
        status, message = refinement.status, refinement.message
    heads = run.heads if exits else []
    result = BoostResult(
        status, run.rounds, message, cached, model, heads, refinement, run.is_whole
    )
    if out is not None and status is not Status.INTERRUPTED:
        result.save(out)
    return result


def own_chain(model: nn.Module, chain: Chain | None, inputs: Any) -> Chain:
    """Cut the model, or look whether it was cut well."""
    if chain is None:
        return as_chain(model, inputs)
    if chain.model is not model:
        raise ValueError(
            "chain must be that of the model; got one of another object, a "
            f"{type(chain.model).__name__}. Make it with as_chain(model, inputs)."
        )
    check_run(chain, inputs)
    return chain


def count_classes(chain: Chain, inputs: Any) -> int:
    """Count the logits of the model's own head."""
    values = chain.values(inputs)
    for part in chain.parts:
        values = behind(part, values)
    with evaluated(chain.head):
        logits = chain.head(*values)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            "the model must give logits of shape (batch, classes) for two classes or more; got "
            f"{tuple(logits.shape)}. A single output for two classes becomes two."
        )
    return logits.shape[1]


def with_mean_one(data: Features) -> None:
    """Scale example weights so that they change the mean loss, not the size of the steps."""
    if data.weights is not None:
        weights = data.weights.to(wide_type(data.device))
        total, count = all_sum(torch.stack([weights.sum(), weights.new_tensor(len(weights))]))
        data.weights = weights * (count / total)


@contextmanager
def kept_flags(model: nn.Module) -> Iterator[None]:
    """Put modes, ``requires_grad`` and ``.grad`` back at the end; there is no ``.grad`` inside."""
    kept = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    with kept_mode(model):
        try:
            for parameter, _, _ in kept:
                parameter.grad = None
            yield
        finally:
            for parameter, flag, gradient in kept:
                parameter.requires_grad_(flag)
                parameter.grad = gradient


def adam(params: list[nn.Parameter]) -> Optimizer:
    """The paper's optimizer at torch's own learning rate."""
    return torch.optim.Adam(params, 1e-3)
