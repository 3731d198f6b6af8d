"""Importance sampling in anybody's training loop: three changed lines, and it switches itself."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import isfinite
from time import perf_counter
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lowland.importance.chosen import Chosen, uniform
from lowland.importance.drawer import Drawer
from lowland.importance.handed import Handed
from lowland.importance.pools import Pools
from lowland.importance.rows import Rows, count_rows, join, select
from lowland.importance.scorer import Scorer
from lowland.importance.state import check_state
from lowland.importance.switch import Switch
from lowland.importance.timing import Timing
from lowland.results import plain

__all__ = ["ImportanceSampling"]


class ImportanceSampling:
    r"""Choose the examples worth a backward pass, as soon as and as long as it pays.

    ::

        sampling = ImportanceSampling(model, loss_fn)
        for x, y in sampling(loader):
            loss = sampling.loss(model(x), y)  # then backward, step and zero_grad as ever

    Training begins uniform; scores, free from its forward pass, feed a running estimate of tau.
    While that says that it pays, a step reads a pool of ``presample`` batches, scores it without
    gradients, draws one batch in proportion to the scores and weighs it by
    :math:`w_i = 1 / (B p_i)`, so that the gradient stays unbiased.

    Args:
        model: The user's model. Scoring leaves it as it was.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        presample: Pool over batch, :math:`r = B / b`; the paper advises 2 to 6.
        score: ``"bound"``, ``"last_layer"``, ``"loss"``, ``"gradient_norm"`` (exact and slow),
            or ``score(output, target)`` of one's own; see :func:`lowland.importance.scores`.
        tau_threshold: Choose while tau is above this; None asks ``decision`` and the costs.
        decision: ``"two_stage"`` counts the variance of the pool itself, ``"paper"`` does not.
        tau_rule: ``"v3"``, or ``"v1"`` for the square root of the paper's experiments.
        scheme: How to draw, see :func:`lowland.importance.draw`.
        smoothing: Of the running mean of tau, the paper's :math:`a_\tau`.
        mixing: Share of uniform probability in every draw; it bounds weights by its inverse.
        costs: ``"measured"`` by the clock, or ``"modelled"``, which repeats to the bit. None
            measures for ``"two_stage"`` only.
        backward_cost: Backward pass in forward passes, if modelled.
        batch_size: Rows of a batch on each process; None takes the loader's.
        batch_norm: ``"eval_score"``, ``"frozen"`` or ``"pool"``; see the room's README.
        amortize: Batches drawn from one scored pool.
        accumulate: Micro-batches of one optimizer step; their scores make one estimate.
        merge_duplicates: Train once on a row drawn several times, with its weights added up.
        weight_power: 1 is unbiased; less attends to hard examples.
        sizes: ``"fixed"``, or ``"constant_time"`` or ``"constant_variance"`` of the official code.
        trunk: A frozen part of the model, in evaluation mode, that is to run once per pool.
        score_precision: None scores as the model trains; ``"bf16"`` scores in bfloat16.
        get_inputs: From a batch to the model's inputs.
        get_targets: From a batch to the targets. By default a batch is ``(inputs, target)``, or
            a mapping with ``"labels"``.
        on_scores: ``on_scores(step, scores)`` sees each scored pool.
        on_sample: ``on_sample(step, index, weight)`` sees each draw.
        seed: Seed of the draws; each process adds its rank.
        replay: ``switches`` of an earlier run, to be repeated.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Algorithm 1 (arXiv 1803.00942v3).
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[Any, Any], Tensor],
        *,
        presample: float = 3,
        score: str | Callable[[Any, Any], Tensor] = "bound",
        tau_threshold: float | None = None,
        decision: str = "two_stage",
        tau_rule: str = "v3",
        scheme: str = "systematic",
        smoothing: float = 0.9,
        mixing: float = 0.0,
        costs: str | None = None,
        backward_cost: float = 2.0,
        batch_size: int | None = None,
        batch_norm: str = "eval_score",
        amortize: int = 1,
        accumulate: int = 1,
        merge_duplicates: bool = False,
        weight_power: float = 1.0,
        sizes: str = "fixed",
        trunk: nn.Module | None = None,
        score_precision: str | None = None,
        get_inputs: Callable[[Any], Any] | None = None,
        get_targets: Callable[[Any], Any] | None = None,
        on_scores: Callable[[int, Tensor], None] | None = None,
        on_sample: Callable[[int, Tensor, Tensor], None] | None = None,
        seed: int = 0,
        replay: Sequence[Sequence[Any]] | None = None,
    ):
        self.drawer = Drawer(
            scheme, mixing, amortize, merge_duplicates, weight_power, on_sample, seed
        )
        self.scorer = Scorer(
            model, loss_fn, score, batch_norm=batch_norm, trunk=trunk, precision=score_precision
        )
        self.switch = Switch(
            presample,
            tau_threshold=tau_threshold,
            decision=decision,
            tau_rule=tau_rule,
            smoothing=smoothing,
            costs=costs,
            backward_cost=backward_cost,
            accumulate=accumulate,
            sizes=sizes,
            replay=replay,
        )
        self.pools = Pools(
            presample, batch_size, lambda: self.scorer.device, get_inputs, get_targets
        )
        self.loss_fn, self.on_scores = loss_fn, on_scores
        self.handed = Handed(self.pools)
        self.waiting: list[Chosen] = []
        self.left: list[Chosen] = []  # by a pass that was broken off; for a saved state only
        self.timing: Timing | None = None
        self.opened: ExitStack | None = None

    def __call__(self, batches: Iterable[Any]) -> Generator[Any]:
        """Go once through some batches, choosing from pools of them while that pays.

        Args:
            batches: Any iterable; a pool is consecutive batches of it.

        Yields:
            Batches in the same containers, on the model's device.

        Raises:
            ValueError: If ``presample`` is too small for the batch size, the loss of chosen rows
                was not taken, or another pass has begun before the end of this one.
        """
        self.close()  # a pass that was left before its end
        with ExitStack() as passing:
            self.opened, self.left = passing, []
            passing.enter_context(self.scorer.watched())
            passing.callback(self.let_go)
            rows = self.pools.open(batches)
            while (chosen := self.next_chosen(rows)) is not None:
                yield self.begin(chosen)
                self.handed.check_used(is_live=self.opened is passing)

    def let_go(self) -> None:
        """Forget the batches of a pass, but for a state that is saved afterwards."""
        self.pools.close()
        self.handed.clear()
        self.left, self.waiting = self.waiting, []
        self.timing = self.opened = None

    def select(self, batch: Any) -> Any:
        """Choose from a pool at hand, for loops that hand out batches themselves.

        Args:
            batch: A pool; while choosing does not pay, its first rows are taken.

        Returns:
            The rows to train on; give the model's output for them to :meth:`loss`.

        Raises:
            ValueError: If ``amortize`` or ``sizes`` ask for pools of one's own making.
        """
        if self.drawer.amortize > 1 or self.switch.sizes != "fixed":
            raise ValueError('select() has one pool and one batch; use amortize=1, sizes="fixed".')
        if self.opened is None:
            self.opened = ExitStack()
            self.opened.enter_context(self.scorer.watched())
            self.opened.callback(self.let_go)
        self.handed.check_used()
        self.end_step(perf_counter())
        self.timing = Timing(perf_counter())
        pool = self.pools.place(batch)
        count = count_rows(pool)
        wanted = self.pools.batch_size or max(1, round(count / self.switch.ratio))
        size = self.pools.size = min(count, wanted)
        if self.switch.begin_step() and count > size:
            return self.begin(self.choose(pool, size))
        return self.begin(uniform(select(pool, slice(0, size))))

    def close(self) -> None:
        """Let go of the model after the last :meth:`select`."""
        if self.opened is not None:
            self.opened.close()

    def next_chosen(self, rows: Rows) -> Chosen | None:
        """Read and choose the next batch, None at the end."""
        now = perf_counter()
        if self.waiting:  # drawn from the pool before
            self.switch.begin_step()
            return self.waiting.pop(0)
        self.end_step(now)
        self.timing = Timing(now)
        if not self.switch.would_choose():
            batch = self.pools.batch(rows)
            if batch is None:
                return None
            self.switch.begin_step()
            self.timing.wait = perf_counter() - now
            self.switch.costs.add("wait", self.timing.wait)
            if self.switch.begins_trial():
                pool = join([batch] * round(self.switch.ratio))
                self.timing.score = self.scorer.seconds(*self.pools.pair(pool))
                self.timing.began = perf_counter() - self.timing.wait
            return uniform(batch)
        pool_rows, size = self.switch.pool_and_batch(self.pools.size or 1)
        pool = self.pools.pool(rows, pool_rows)
        if pool is None:
            return None
        self.timing.wait = perf_counter() - now
        self.switch.begin_step()
        if count_rows(pool) <= size:
            return uniform(pool)
        return self.choose(pool, size)

    def choose(self, pool: Any, size: int) -> Chosen:
        """Score a pool and draw batches from it; all but the first wait."""
        began = perf_counter()
        score = self.scorer.pool(*self.pools.pair(pool), count_rows(pool))
        self.switch.feed(score)
        step = self.switch.steps - 1
        if self.on_scores is not None:
            self.on_scores(step, score)
        total = float(score.sum())
        if total == 0 or not (callable(self.scorer.score) or isfinite(total)):
            self.timing = None  # nothing to choose by; the loss will tell
            return uniform(select(pool, slice(0, size)), is_scored=True)
        drawn = self.drawer.draw(pool, score, size, step)
        self.waiting = drawn[1:]
        if self.timing is not None:
            self.timing.score, self.timing.batches = perf_counter() - began, len(drawn)
        return drawn[0]

    def begin(self, chosen: Chosen) -> Any:
        """Hand a batch to the user's loop."""
        self.handed.give(chosen)
        self.switch.active_steps += chosen.is_chosen
        self.scorer.modes.before_step(chosen=chosen.is_chosen)
        if self.scorer.trunk is not None:
            self.scorer.trunk.choose(chosen.index)
        return chosen.batch

    def end_step(self, now: float) -> None:
        """Note how long the step took, if it was a whole one."""
        current = self.handed.current
        if self.timing is None or current is None:
            return
        costs, ratio = self.switch.costs, self.switch.ratio
        if self.is_active:
            can_split = self.scorer.device.type == "cpu" and not self.drawer.merge_duplicates
            self.timing.note_active(costs, now, ratio, can_split=can_split)
        elif current.draws == self.pools.size:
            self.timing.note_uniform(costs, now, ratio)
        self.timing = None

    def loss(self, output: Any, target: Any) -> Float[Tensor, ""]:
        """Give the loss to back-propagate: the mean of a uniform batch, else the weighted mean.

        Args:
            output: What the model returned for the batch that was just handed out.
            target: Its targets.

        Returns:
            An unbiased estimate of the training set's mean loss.

        Raises:
            ValueError: If no batch was handed out, or these are not its rows.
        """
        current, inputs = self.handed.check_loss(target)
        losses = self.scorer.losses(output, target)
        if len(losses) != current.rows:
            raise ValueError(
                f"loss must get the {current.rows} rows that were handed out; got {len(losses)}."
            )
        score = partial(self.scorer.training, output, target, inputs)
        current.is_scored = current.is_scored or self.switch.look(score)
        self.scorer.modes.check_frozen()
        return current.mean(losses)

    def mean(self, values: Tensor) -> Float[Tensor, ""]:
        """Estimate the mean of a per-example quantity over the training set, without bias.

        Args:
            values: One per row of the current batch, for instance whether it is classified right.

        Returns:
            The mean, weighted where the rows were chosen.
        """
        return self.handed.mean(values)

    def pair(self, batch: Any) -> tuple[Any, Any]:
        """Find a batch's inputs and targets."""
        return self.pools.pair(batch)

    @property
    def weight(self) -> Float[Tensor, " rows"]:
        """Weights of the rows just handed out, ones for a uniform batch."""
        return self.handed.weight(self.scorer.device)

    @property
    def tau(self) -> float:
        """Running estimate of the equivalent batch, by ``tau_rule``."""
        return self.switch.tau

    @property
    def kappa(self) -> float:
        """Batch multiplier with the pool's own variance."""
        return self.switch.kappa

    @property
    def is_active(self) -> bool:
        """Whether the batch just handed out was chosen by scores."""
        return self.handed.current is not None and self.handed.current.is_chosen

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.switch.steps

    @property
    def active_steps(self) -> int:
        """Steps on chosen rows."""
        return self.switch.active_steps

    @property
    def switches(self) -> list[list[Any]]:
        """``[step, is_active]`` at each change of the switch."""
        return self.switch.switches

    @property
    def costs(self) -> dict[str, float | None]:
        """Typical seconds of a ``"uniform"`` and an ``"active"`` step and their parts."""
        return self.switch.costs.record()

    @property
    def notes(self) -> list[str]:
        """What to know of the model where rows were chosen, in sentences."""
        return list(self.scorer.modes.notes) if self.active_steps else []

    def summary(self) -> str:
        """Say in a sentence what happened, by both clocks, and what to know of the model."""
        return ". ".join([self.switch.summary(), *self.notes])

    def warn_if_idle(self) -> None:
        """Warn if the switch was never on; for the end of training."""
        self.switch.warn_if_idle()

    def settings(self) -> dict[str, Any]:
        """Give the choices that decide the numbers of a run, as plain values."""
        own = {"presample": self.switch.ratio, "batch_size": self.pools.batch_size}
        return plain(own | self.scorer.settings() | self.drawer.settings() | self.switch.settings())

    def state_dict(self) -> dict[str, Any]:
        """Give what a later run needs to go on: tensors and plain values.

        Returns:
            Running estimate, counters, costs, generator, and rows that were read but not handed
            out, also after a ``break``. Where the loader stands is the loader's to save.
        """
        return {
            "switch": self.switch.state_dict(),
            "generator": self.drawer.generator.get_state(),
            "size": self.pools.size,
            "half": self.scorer.half,
            "notes": list(self.scorer.modes.notes),
            "held": self.pools.state(),
            "waiting": [vars(chosen) for chosen in self.waiting or self.left],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; the next pass begins with the rows that were held.

        Args:
            state: What :meth:`state_dict` returned.
        """
        check_state(state, ("switch", "generator", "size", "half", "held", "waiting"))
        self.close()
        self.switch.load_state_dict(state["switch"])
        self.drawer.generator.set_state(state["generator"].cpu())
        self.scorer.half = state["half"]
        self.scorer.modes.notes = list(state.get("notes", []))
        self.pools.load(state["held"], state["size"])
        self.waiting, self.left = [Chosen(**self.pools.place(c)) for c in state["waiting"]], []
