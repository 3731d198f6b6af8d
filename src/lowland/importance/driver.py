"""Train a model by importance sampling from start to end, resumable, with both clocks recorded."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lowland.importance.sampling import ImportanceSampling
from lowland.results import Status, plain, write_json
from lowland.training import TrainResult, choose_device, length_of, train
from lowland.training.together import check_shares

__all__ = ["ImportanceResult", "train_with_importance"]


class Paired:
    """A sampling whose batches are pairs, as :func:`lowland.training.train` takes them.

    Args:
        sampling: Any batches that it can take apart.
    """

    def __init__(self, sampling: ImportanceSampling):
        self.sampling = sampling
        self.loss, self.settings = sampling.loss, sampling.settings
        self.state_dict, self.load_state_dict = sampling.state_dict, sampling.load_state_dict

    def __call__(self, batches: Iterable[Any]) -> Generator[Any]:
        """Go once through some batches.

        Args:
            batches: As for the sampling.

        Yields:
            Inputs and targets.
        """
        with closing(self.sampling(batches)) as stream:
            for batch in stream:
                yield self.sampling.pair(batch)


@dataclass(frozen=True)
class ImportanceResult:
    """How a run went.

    Attributes:
        training: Status, learning curve and weights.
        switches: ``[step, is_active]`` at each change; pass them as ``replay`` to repeat a run
            whose decisions were made by the clock.
        history: ``[step, tau, is_active]``, thinned.
        tau: Running estimate at the end, by ``tau_rule``.
        kappa: Batch multiplier at the end.
        active_steps: Steps on chosen rows.
        costs: Typical seconds of a ``"uniform"`` and an ``"active"`` step, of waiting for a batch
            and of scoring a pool; None where nothing was measured.
        summary: The same in a sentence.
        notes: What to know of the model where rows were chosen, in sentences.
    """

    training: TrainResult
    switches: list[list[Any]]
    history: list[list[Any]]
    tau: float
    kappa: float
    active_steps: int
    costs: dict[str, float | None]
    summary: str
    notes: list[str] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """How the run ended."""
        return self.training.status

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The learning curve, by steps and by seconds."""
        return self.training.curve

    def record(self) -> dict[str, Any]:
        """Give everything but the weights as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return self.training.record() | plain(
            {
                "switches": self.switches,
                "history": self.history,
                "tau": self.tau,
                "kappa": self.kappa,
                "active_steps": self.active_steps,
                "costs": {"seconds": self.costs},
                "notes": self.notes,
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``result.json`` and ``model.safetensors``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = self.training.save(folder)
        write_json(folder / "result.json", self.record())
        return folder

    def raise_for_status(self) -> None:
        """Raise :class:`lowland.errors.OutcomeError` if the run did not do all its steps."""
        self.training.raise_for_status()


def train_with_importance(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Iterable[Any],
    *,
    optimizer: Callable[..., Optimizer],
    epochs: int | None = None,
    steps: int | None = None,
    presample: float = 3,
    score: str | Callable[[Any, Any], Tensor] = "bound",
    tau_threshold: float | None = None,
    decision: str = "two_stage",
    tau_rule: str = "v3",
    scheme: str = "systematic",
    costs: str | None = None,
    sampling: ImportanceSampling | None = None,
    scale_learning_rate: bool = False,
    device: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Any = False,
    **training: Any,
) -> ImportanceResult:
    """Train a model in place, choosing examples as soon as and as long as it pays.

    As :func:`lowland.training.train`, with an :class:`ImportanceSampling` in its loop; a step on
    chosen rows reads ``presample`` batches. With ``out`` the same call after a kill goes on where
    it was last saved.

    Args:
        model: Any module; its parameters that require a gradient are trained.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``, or of whatever ``sampling`` takes apart: a
            mapping with ``"labels"``, or another kind by its ``get_inputs`` and ``get_targets``.
        optimizer: Makes the optimizer from the parameters.
        epochs: As many updates as this many plain epochs have, ``epochs * len(batches)``; on chosen
            rows they read more data. Give this or ``steps``.
        steps: Number of updates.
        presample: See :class:`ImportanceSampling`, as for the next six.
        score: How examples are scored.
        tau_threshold: A threshold of one's own.
        decision: ``"two_stage"`` or ``"paper"``.
        tau_rule: ``"v3"`` or ``"v1"``.
        scheme: How to draw.
        costs: ``"measured"`` or ``"modelled"``.
        sampling: A sampling of one's own, instead of the seven above.
        scale_learning_rate: Multiply the learning rate by kappa in steps on chosen rows.
        device: Where to move the model to; None leaves it.
        seed: Seed of training and of the draws.
        out: Folder for the state to resume from and the result.
        progress: See :func:`lowland.training.open_progress`.
        **training: Further arguments of :func:`lowland.training.train`: ``schedule``,
            ``test_batches``, ``evaluation_batches``, ``precision``, ``log``, ...; batches to
            evaluate on must be pairs.

    Returns:
        Status, learning curve by both clocks, and what the switch did.

    Raises:
        ValueError: If an argument is not what it must be, or ``sampling`` is of another model or
            given beside its own options.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Algorithm 1.
    """
    check_shares(batches=batches)
    if epochs is not None and steps is None:
        steps, epochs = steps_of(epochs, batches), None
    if sampling is not None:
        check_sampling(
            model,
            sampling,
            presample=presample != 3,
            score=score != "bound",
            tau_threshold=tau_threshold is not None,
            decision=decision != "two_stage",
            tau_rule=tau_rule != "v3",
            scheme=scheme != "systematic",
            costs=costs is not None,
        )
    if device is not None:
        model.to(choose_device(device))
    chooser = sampling or ImportanceSampling(
        model,
        loss_fn,
        presample=presample,
        score=score,
        tau_threshold=tau_threshold,
        decision=decision,
        tau_rule=tau_rule,
        scheme=scheme,
        costs=costs,
        seed=seed,
    )
    result = train(
        model,
        loss_fn,
        batches,
        optimizer=optimizer if not scale_learning_rate else scaled(optimizer, chooser),
        epochs=epochs,
        steps=steps,
        sampling=Paired(chooser),
        seed=seed,
        out=out,
        progress=progress,
        **training,
    )
    if result.status is Status.FINISHED:
        chooser.warn_if_idle()
    tau = chooser.tau  # brings the history up to date with the last step
    found = ImportanceResult(
        result,
        [list(item) for item in chooser.switches],
        [list(item) for item in chooser.switch.history],
        tau,
        chooser.kappa,
        chooser.active_steps,
        chooser.costs,
        chooser.summary(),
        chooser.notes,
    )
    if out is not None and result.status is not Status.INTERRUPTED:
        write_json(Path(out) / "result.json", found.record())
    return found


def steps_of(epochs: int, batches: Any) -> int:
    """Count the updates of so many plain epochs."""
    if epochs < 1 or epochs != int(epochs):
        raise ValueError(f"epochs must be a whole number, at least 1; got {epochs}.")
    count = length_of(batches)
    if count is None:
        raise ValueError("epochs needs batches with a length; these have none. Give steps instead.")
    return int(epochs) * count


def check_sampling(model: nn.Module, sampling: ImportanceSampling, **is_given: bool) -> None:
    """Refuse a sampling of another model, and options that it would not look at."""
    named = [name for name, given in is_given.items() if given]
    if named:
        raise ValueError(
            f"options of the sampling must be given to it where there is one; got {named} beside "
            "sampling=. Write sampling=ImportanceSampling(model, loss_fn, ...)."
        )
    own = {id(parameter) for parameter in model.parameters()}
    if own.isdisjoint(map(id, sampling.scorer.model.parameters())):
        raise ValueError(
            "sampling must be of the model that is trained, or its scores tell nothing; got one of "
            f"another {type(sampling.scorer.model).__name__}. Pass ImportanceSampling(model, ...)."
        )


def scaled(
    optimizer: Callable[..., Optimizer], sampling: ImportanceSampling
) -> Callable[..., Optimizer]:
    """Make an optimizer whose learning rate is multiplied by kappa while rows are chosen."""

    def make(params: Any) -> Optimizer:
        made = optimizer(params)
        rates: list[Any] = []

        def before(*_: Any) -> None:
            if not rates:  # an optimizer that wraps another calls its hooks twice
                scale = max(1.0, sampling.kappa) if sampling.is_active else 1.0
                rates.extend(group["lr"] for group in made.param_groups)
                for group in made.param_groups:
                    group["lr"] = group["lr"] * scale

        def after(*_: Any) -> None:
            for group, rate in zip(made.param_groups, rates, strict=False):
                group["lr"] = rate
            rates.clear()

        made.register_step_pre_hook(before)
        made.register_step_post_hook(after)
        return made

    return make
