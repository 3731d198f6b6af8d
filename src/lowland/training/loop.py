"""A plain training loop: any model, any batches, a learning curve, and a run that can be killed."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from pathlib import Path
from time import monotonic
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lowland.results import Status, open_folder
from lowland.training.batches import check_not_empty
from lowland.training.curve import mean_so_far, measure_on
from lowland.training.device import autocast, choose_device
from lowland.training.evaluate import LossFn, kept_mode
from lowland.training.interrupt import interruptible
from lowland.training.plan import Log, Plan
from lowland.training.progress import Progress, Task, open_progress
from lowland.training.result import TrainResult
from lowland.training.run import (
    Run,
    check_run,
    give_up,
    keep_good,
    run_state,
    set_run_state,
    take_step,
)
from lowland.training.run_folder import (
    append_metrics,
    keep_metrics,
    load_run_state,
    save_run_state,
)
from lowland.training.seeds import isolated_rng, rng_states, set_rng_states
from lowland.training.settings import check_arguments, describe_run, length_of
from lowland.training.together import check_shares

__all__ = ["train"]

METRICS, RESULT = "metrics.jsonl", "result.json"
STEPS_BETWEEN_CHECKS = 50  # each check waits for the device


def train(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    optimizer: Callable[..., Optimizer],
    schedule: Callable[[Optimizer], Any] | None = None,
    weight_average: Callable[[nn.Module], Any] | None = None,
    sampling: Any = None,
    observer: Any = None,
    seed: int = 0,
    precision: str = "float32",
    device: str | None = None,
    out: str | Path | None = None,
    save_every: float = 60.0,
    test_batches: Iterable[Any] | None = None,
    evaluation_batches: Iterable[Any] | None = None,
    evaluate_every: int = 1,
    measure: Callable[[nn.Module], dict[str, Any]] | None = None,
    until: Callable[[list[dict[str, Any]]], bool] | None = None,
    progress: bool | None | Progress = False,
    log: Log | None = None,
    max_steps_now: int | None = None,
) -> TrainResult:
    """Train a model in place, by mini-batches of the mean loss per example.

    Shuffling and dropout are functions of ``seed`` and the epoch; the global generators are left
    as they were, and so are train and eval modes and ``.grad``. With ``out``, the same call after
    a kill goes on where it was last saved, in mid-epoch too, and on a CPU with the same number of
    threads ends with the same bits; after the end it returns the same result at once. The folder
    knows its settings, not the weights the run began with.

    Args:
        model: Any module; its parameters that require a gradient are trained.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``: a list, a ``DataLoader``,
            ``lowland.data.Batches``. Inputs are a tensor, a tuple or a mapping.
        epochs: Passes over ``batches``; give this or ``steps``.
        steps: Number of updates.
        optimizer: Makes the optimizer from the parameters, for instance
            ``lambda params: torch.optim.SGD(params, lr=0.1)``.
        schedule: Makes the learning-rate schedule from the optimizer; it steps every update.
        weight_average: Makes a ``torch.optim.swa_utils.AveragedModel`` from the model; it is
            updated every step and returned as ``result.average``.
        sampling: Chooses the examples of every step: an object whose ``sampling(batches)`` goes
            once through some batches and hands out others, with ``loss(output, target)`` for
            what is to be differentiated, ``settings()``, ``state_dict()`` and
            ``load_state_dict()``. None takes all batches as they come.
        observer: Looks at the model after every update: an object with ``record(step)``, called
            with 0 before the first one, ``state_dict()`` and ``load_state_dict()``. It must leave
            everything as it was. Its ``settings()``, if it has any, are among those of ``out``.
        seed: Seed of everything random in training; the weights are the caller's.
        precision: ``"float32"`` (the model's own type, no TensorFloat-32) or ``"bf16"``.
        device: Where to move the model to, ``"auto"`` or as torch spells it; None leaves it.
        out: Folder for the state to resume from, ``metrics.jsonl`` and the result.
        save_every: Seconds between two saved states.
        test_batches: Data for ``test_loss`` and ``test_error`` of the curve.
        evaluation_batches: Data for its ``train_loss`` and ``train_error``, in eval mode; without
            it ``train_loss`` is the mean over the steps since the last row, as they happened.
        evaluate_every: Epochs between two rows of the curve; the end adds one in any case.
        measure: Further plain values of every row of the curve, from the model, before it is
            evaluated.
        until: Called with the curve after each row; True ends the run there, as finished.
        progress: See :func:`lowland.training.open_progress`.
        log: Called as ``log(values, step)`` with each line of ``metrics.jsonl``.
        max_steps_now: Stop this call after so many steps, as if interrupted.

    Returns:
        Status, learning curve and weights. A loss that is not finite ends the run with the
        weights of the last check before it (checks come every 50 steps and with every row).

    Raises:
        ValueError: If an argument is not what it must be, ``batches`` is empty, or ``out``
            belongs to a run with other settings.
        CheckpointError: If the optimizer's or the schedule's state cannot be saved safely.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> batches = [(torch.eye(2), torch.ones(2))]
        >>> result = train(
        ...     model,
        ...     lambda output, target: (output[:, 0] - target) ** 2,
        ...     batches,
        ...     epochs=100,
        ...     optimizer=lambda params: torch.optim.SGD(params, lr=0.3),
        ... )
        >>> result.status.name, result.steps, result.curve[-1]["train_loss"] < 1e-6
        ('FINISHED', 100, True)
    """
    check_arguments(
        batches,
        optimizer,
        precision,
        out,
        epochs=epochs,
        steps=steps,
        evaluate_every=evaluate_every,
        max_steps_now=max_steps_now,
    )
    if device is not None:
        model.to(choose_device(device))
    run = make_run(model, loss_fn, optimizer, schedule, weight_average, precision, sampling)
    run.observer = observer
    if run.is_shared:
        check_shares(test_batches=test_batches, evaluation_batches=evaluation_batches)
    settings = describe_run(run, batches) | {
        "epochs": epochs,
        "steps": steps,
        "seed": seed,
        "precision": precision,
        "evaluate_every": evaluate_every,
        "test_batches": length_of(test_batches),
        "evaluation_batches": length_of(evaluation_batches),
    }
    plan = Plan(
        batches=batches,
        epochs=epochs,
        steps=steps,
        seed=seed,
        test_batches=test_batches,
        evaluation_batches=evaluation_batches,
        evaluate_every=evaluate_every,
        measure=measure,
        until=until,
        save_every=save_every,
        log=log,
        folder=None if out is None else open_folder(out, settings),
    )
    resume(run, plan)
    if run.status is None:
        with (
            prepared(model),
            autocast(run.device, "float32"),
            open_progress(progress) as display,
            display.task("training", plan.total_steps, run.step) as task,
            interruptible() as interrupt,
        ):
            keep_good(run)
            if observer is not None and run.step == 0:
                observer.record(0)
            last = None if max_steps_now is None else run.step + max_steps_now
            while run.status is None:
                train_epoch(run, plan, task, lambda: interrupt.requested or run.step == last)
    return finish(run, plan)


def make_run(
    model: nn.Module,
    loss_fn: LossFn,
    optimizer: Callable[..., Optimizer],
    schedule: Callable[[Optimizer], Any] | None,
    weight_average: Callable[[nn.Module], Any] | None,
    precision: str,
    sampling: Any,
) -> Run:
    """Make the parts of a run."""
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not params:
        raise ValueError(
            f"the model must have a parameter that requires a gradient; {type(model).__name__} "
            "has none. Call model.requires_grad_(True), or unfreeze what should move."
        )
    made = optimizer(params)
    return Run(
        model,
        loss_fn,
        made,
        None if schedule is None else schedule(made),
        None if weight_average is None else weight_average(model),
        precision,
        sampling,
    )


def resume(run: Run, plan: Plan) -> None:
    """Put the run where its folder says it was."""
    if plan.folder is None:
        return
    saved = load_run_state(plan.folder)
    if saved is not None:
        set_run_state(run, saved)
    keep_metrics(plan.folder / METRICS, run.step)


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """Set a model to train; afterwards its modes and ``.grad`` are what they were."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    with kept_mode(model):
        model.train()
        try:
            for parameter, _ in gradients:
                parameter.grad = None
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient


def train_epoch(run: Run, plan: Plan, task: Task, is_to_stop: Callable[[], bool]) -> None:
    """Train until the epoch or the run ends."""
    with (
        isolated_rng(plan.seed, "epoch", run.epoch, batches=plan.batches, epoch=run.epoch),
        closing(chosen(run, remaining(run, plan.batches))) as stream,
    ):
        for batch in stream:
            try:
                take_step(run, batch)
            except FloatingPointError as error:  # an optimizer that refuses a gradient
                give_up(run, str(error).rstrip("."))
                return
            task.advance()
            if run.step == plan.steps:
                run.epoch += run.batch == length_of(plan.batches)
                add_row(run, plan, task)
                return
            pause(run, plan, task, is_to_stop())
            if run.status is not None:
                return
    check_not_empty(run.batch)
    run.epoch += 1
    run.batch = 0
    if run.epoch == plan.epochs or run.epoch % plan.evaluate_every == 0:
        add_row(run, plan, task)


def chosen(run: Run, batches: Iterator[Any]) -> Generator[Any]:
    """Go through the batches to train on."""
    yield from batches if run.sampling is None else run.sampling(batches)


def remaining(run: Run, batches: Any) -> Iterator[Any]:
    """Go through the batches of an epoch that are still to come."""
    # The ones before are read again, and then the generators put where they were: what draws from
    # them while it reads or trains gets the numbers it would have got.
    stream = iter(batches)
    for _ in range(run.batch):  # now, not when the first batch is asked for: rows may be held
        next(stream, None)
    if run.batch:
        set_rng_states(run.rng)
    return counted(run, stream)


def counted(run: Run, stream: Iterator[Any]) -> Iterator[Any]:
    """Count the batches that are read."""
    for batch in stream:
        run.batch += 1
        yield batch


def pause(run: Run, plan: Plan, task: Task, is_to_stop: bool) -> None:
    """Between two steps: look at the losses now and then, save, and stop if asked to."""
    is_to_save = plan.folder is not None and monotonic() - run.saved >= plan.save_every
    if not (is_to_stop or is_to_save or len(run.window) >= STEPS_BETWEEN_CHECKS):
        return
    look(run, plan, task)
    if run.status is not None:
        return
    if plan.folder is not None and (is_to_stop or is_to_save):
        save(run, plan.folder)
    if is_to_stop:
        where = "nothing was saved, as out is None"
        if plan.folder is not None:
            where = f"the same call goes on from what was saved in {plan.folder}"
        run.end(Status.INTERRUPTED, f"stopped after step {run.step}; {where}.")


def look(run: Run, plan: Plan, task: Task) -> None:
    """Read the losses of the last steps, and tell the log."""
    loss = check_run(run)
    if loss is not None:
        task.note = f"loss {loss:.4g}"
        report(run, plan, {"loss": loss})


def add_row(run: Run, plan: Plan, task: Task) -> None:
    """Evaluate the model, add a row to the curve, and end the run after the last one."""
    look(run, plan, task)
    if run.status is not None:
        return
    further = {} if plan.measure is None else plan.measure(run.model)
    train = measure_on(run, plan.evaluation_batches)
    test = measure_on(run, plan.test_batches)
    values = {
        "train_loss": train["loss"] if train else mean_so_far(run),
        "train_error": train.get("error"),
        "test_loss": test.get("loss"),
        "test_error": test.get("error"),
    }
    values |= further
    run.loss_sum, run.loss_count = 0.0, 0
    run.curve.append(report(run, plan, values))
    if run.step == plan.steps or run.epoch == plan.epochs:
        run.end(Status.FINISHED, f"did all {run.step} steps.")
    elif plan.until is not None and plan.until(run.curve):
        run.end(Status.FINISHED, f"stopped after step {run.step}, as asked.")


def report(run: Run, plan: Plan, values: dict[str, Any]) -> dict[str, Any]:
    """Add where the run is to some values, and give what is known to the metrics and the log."""
    row = {
        "step": run.step,
        "epoch": run.epoch,
        **values,
        "learning_rate": run.learning_rate,
        "seconds": run.elapsed,
    }
    known = {name: value for name, value in row.items() if value is not None}
    if plan.folder is not None:
        append_metrics(plan.folder / METRICS, known)
    if plan.log is not None:
        plan.log(known, run.step)
    return row


def save(run: Run, folder: Path) -> None:
    """Save the run, so that a later call goes on from here."""
    save_run_state(folder, run_state(run, rng_states()), check=not run.is_saved)
    run.is_saved, run.saved = True, monotonic()


def finish(run: Run, plan: Plan) -> TrainResult:
    """Make the result; at the end of the run it goes to the folder, after the last state."""
    result = TrainResult(
        run.status or Status.INTERRUPTED,
        run.curve,
        run.step,
        run.elapsed,
        run.message,
        deepcopy(run.model.state_dict()),
        None if run.average is None else deepcopy(run.average.module.state_dict()),
    )
    is_last = run.status is not Status.INTERRUPTED
    if plan.folder is not None and is_last and not (plan.folder / RESULT).exists():
        save(run, plan.folder)
        result.save(plan.folder)
    return result
