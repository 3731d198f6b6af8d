"""The two-time recorder: called after every update, it compares the weights with earlier ones."""

from collections.abc import Iterable
from math import inf
from typing import Any

import torch

from lowland.dynamics.clock import Clock, growing, last_instants, pairs_of, plan
from lowland.dynamics.observables import RANKS, Observables, summarize
from lowland.dynamics.sketches import Sketches, exact_bytes, sketch_bytes
from lowland.dynamics.snapshots import Snapshots
from lowland.dynamics.two_time import TwoTime
from lowland.dynamics.weights import Source, Weights
from lowland.training import rank_and_world

__all__ = ["TwoTimeRecorder"]

MEMORIES = ("auto", "exact", "sketch")
LONGEST_UNKNOWN_RUN = 10**7  # for the memory of a clock that grows


class TwoTimeRecorder:
    r"""Records :math:`\Delta(t_w, t_w + t)` and its relatives while a model is trained.

    ::

        recorder = TwoTimeRecorder(model, total=10_000)
        recorder.record(0)
        for step, (x, y) in enumerate(batches, start=1):
            ...
            optimizer.step()
            recorder.record(step)
        result = recorder.result()

    It reads the weights and changes nothing; between the instants of its clock it compares two
    whole numbers and waits for no device. Exact copies of the weights are kept, or, where these do
    not fit, sketches: then every displacement has a standard error.

    Args:
        weights: A model, whose parameters that require a gradient are recorded; or tensors, by
            name or in a sequence: the float32 master copies of a model in half precision.
        waits: Waiting times in completed updates; together with ``lags``.
        lags: Lags in updates.
        total: Length of the run in updates; without ``waits`` it plans 50 waits and 100 lags, at
            shared instants if sketches are kept, as each instant then costs a sketch.
        clock: A clock of one's own, instead of the three. Without any of them the clock grows
            with the run.
        memory: ``"exact"``, ``"sketch"``, or ``"auto"``: exact within ``max_bytes``.
        max_bytes: Memory for copies of the weights.
        device: Where copies are kept, ``"cpu"`` (pinned, for weights on CUDA) or as torch spells
            it; sketches lie where the weights are.
        per_layer: Record the displacement of each tensor too.
        path_length: Add up the lengths of all steps; then no step is free.
        bins: Bins of a histogram of the weights at every waiting time; 0 for none.
        sketch_size: Numbers k of a sketch; the relative error is :math:`\sqrt{2/k}`.
        ranks: ``"alone"`` asks no other process; ``"replicated"``: every process calls, and the
            weights are compared at waiting times; ``"sharded"``: each holds a part of them.
        seed: Seed of sketches and samples; training does not see it.

    Attributes:
        last: Number of the last recorded update, -1 before.
        next: Number of updates after which there is something to do.

    Raises:
        ValueError: If there is nothing to train or to compare, or an argument is out of range.

    Source:
        Baity-Jesi et al., ICML 2018; specification, section 3.2.
    """

    def __init__(
        self,
        weights: Source,
        *,
        waits: Iterable[int] | None = None,
        lags: Iterable[int] | None = None,
        total: int | None = None,
        clock: Clock | None = None,
        memory: str = "auto",
        max_bytes: int = 2 * 10**9,
        device: str | torch.device = "cpu",
        per_layer: bool = False,
        path_length: bool = False,
        bins: int = 0,
        sketch_size: int = 16_384,
        ranks: str = "alone",
        seed: int = 0,
    ):
        self.clock = choose_clock(waits, lags, total, clock)
        if memory not in MEMORIES or ranks not in RANKS:
            raise ValueError(
                f"memory must be one of {MEMORIES} and ranks one of {RANKS}; "
                f"got {memory!r} and {ranks!r}."
            )
        if bins < 0 or sketch_size < 2 or max_bytes < 0:
            raise ValueError(
                "bins and max_bytes must not be negative, and sketch_size at least 2; got "
                f"{bins}, {max_bytes} and {sketch_size}."
            )
        self.weights = Weights(weights, sharded=ranks == "sharded")
        self.seen = Observables(self.weights, ranks, path_length=path_length, bins=bins)
        layers = len(self.weights.names) if per_layer else 1
        size, itemsize = self.weights.size, self.weights.dtype.itemsize
        open_waits = expected_waits(self.clock)
        copies = exact_bytes(size, open_waits, itemsize)
        if memory == "auto":
            too_much = self.seen.anywhere(copies > max_bytes)
            memory = "sketch" if too_much else "exact"
        self.bytes = copies
        if memory == "sketch":
            if total is not None and waits is None:
                self.clock = plan(total, mode="shared")
            self.bytes = sketch_bytes(size, sketch_size, layers, open_waits, itemsize)
        self.store: Snapshots | Sketches
        if memory == "exact":
            where = torch.device(device)
            self.store = Snapshots(
                self.weights, where, per_layer=per_layer, reduce=self.seen.reduce
            )
        else:
            rank = rank_and_world()[0] if ranks == "sharded" else 0
            self.store = Sketches(
                self.weights,
                sketch_size,
                per_layer=per_layer,
                reduce=self.seen.reduce,
                add_up=self.seen.add_up,
                rank=rank,
                seed=seed,
            )
        self.options = {"memory": memory, "per_layer": per_layer, "path_length": path_length}
        self.options |= {"bins": bins, "seed": seed, "ranks": ranks}
        self.options |= {"sketch_size": sketch_size} if memory == "sketch" else {}
        self.last = -1
        self.follow()

    def follow(self) -> None:
        """Read from the clock what is to be done after the last recorded update."""
        self.due: dict[int, list[int]] = {}
        for wait, lag in self.clock.pairs:
            if wait + lag > self.last:
                self.due.setdefault(wait + lag, []).append(wait)
        self.ends = last_instants(self.clock.pairs)
        coming = [n for n in self.clock.instants if n > self.last]
        self.coming = [*coming, self.clock.horizon][::-1]
        self.next = self.coming[-1] if self.seen.diverged_at is None else inf

    def record(self, step: int) -> None:
        """Look at the weights after an update, if the clock says so.

        Args:
            step: Number of completed updates: 0 before the first, then after each.

        Raises:
            ValueError: If the number does not grow, or leaves out one of the clock; if the
                weights are others than at the beginning.
        """
        if isinstance(step, int) and self.last < step < self.next and not self.seen.follows_path:
            self.last = step
            return
        if not (step > self.last and step % 1 == 0):
            raise ValueError(
                "the number of completed updates must be whole and grow from call to call; got "
                f"{step} after {self.last if self.last >= 0 else 'nothing'}. Call record(step) "
                "once after every update."
            )
        if step > self.next:
            raise ValueError(
                f"update {self.next} must be recorded, the clock looks at it; got {step} after "
                f"{self.last if self.last >= 0 else 'nothing'}. Call record(0) before the first "
                "update and record(step) after each, or give a clock with your own instants."
            )
        self.last = int(step)
        if self.seen.diverged_at is not None:
            return
        if self.seen.follows_path:
            self.seen.walk(self.weights.read())
        if step == self.next:
            self.look()

    def look(self) -> None:
        """Measure every pair that ends now, and keep the weights if a pair begins."""
        step = self.last
        waits = self.due.pop(step, [])
        if step in self.ends:
            self.weights.check()
            x = self.weights.read()
            self.store.keep(step, x)
            self.seen.at_wait(step, x)
        self.seen.note(step, waits, *self.store.measure(waits))
        for wait in waits:
            if self.ends[wait] == step and self.clock.grows is None:
                self.store.drop(wait)
        self.coming.pop()
        self.next = self.coming[-1] if self.coming else inf
        if self.clock.grows is not None and step >= self.clock.horizon:
            self.clock = growing(*self.clock.grows, horizon=10 * step)
            self.follow()
        if self.seen.diverged_at is not None:
            self.next = inf

    def result(self) -> TwoTime:
        """Give what was seen until now; recording may go on.

        Returns:
            The observables, with standard errors.
        """
        return summarize(self.seen, self.clock, self.options, self.last, self.bytes)

    def settings(self) -> dict[str, Any]:
        """Describe what is recorded, so that two runs can be told apart.

        Returns:
            Plain values: the arguments that decide numbers, with the waits and lags.
        """
        lags = sorted({lag for _, lag in self.clock.pairs})
        return self.options | {"waits": list(self.clock.waits), "lags": lags}

    def state_dict(self) -> dict[str, Any]:
        """Copy what is needed to go on as if nothing had happened.

        Returns:
            Tensors and plain values; save them beside model and optimizer with ``torch.save``.
        """
        return {
            "settings": self.options | {"shapes": self.weights.shapes},
            "clock": {"grows": self.clock.grows, "total": self.clock.total},
            "waits": torch.tensor(self.clock.waits),
            "pairs": torch.tensor(self.clock.pairs),
            "last": self.last,
            "seen": self.seen.state_dict(),
            "store": self.store.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, with the bits of an uninterrupted run.

        Args:
            state: What :meth:`state_dict` of a recorder with the same arguments returned.

        Raises:
            ValueError: If it belongs to other weights, another clock or other settings.
        """
        mine = self.state_dict()
        lacking = [name for name in mine if name not in state]
        if lacking:
            raise ValueError(
                f"state must be what state_dict() of a recorder returned; it lacks {lacking}."
            )
        settings, found = mine["settings"], state["settings"]
        for name in [*settings, *found]:
            if settings.get(name) != found.get(name):
                raise ValueError(
                    "a state must come from a recorder with the same weights and arguments; "
                    f"{name} was {found.get(name)} and is {settings.get(name)}. "
                    "Make the recorder as it was made then."
                )
        if self.clock.grows is not None and state["clock"]["grows"] == self.clock.grows:
            self.clock = growing(*self.clock.grows, horizon=state["clock"]["total"])
        waits, pairs = torch.tensor(self.clock.waits), torch.tensor(self.clock.pairs)
        if not (torch.equal(waits, state["waits"]) and torch.equal(pairs, state["pairs"])):
            raise ValueError(
                "a state must come from a recorder with the same clock; it has "
                f"{len(state['waits'])} waiting times and {len(state['pairs'])} pairs, here "
                f"are {len(waits)} and {len(pairs)}. Make the clock as it was made then."
            )
        self.last = int(state["last"])
        self.seen.load_state_dict(state["seen"])
        self.store.load_state_dict(state["store"])
        self.follow()


def choose_clock(
    waits: Iterable[int] | None, lags: Iterable[int] | None, total: int | None, clock: Clock | None
) -> Clock:
    """Make the clock that the arguments describe."""
    if clock is not None and (waits, lags, total) == (None, None, None):
        return clock
    if clock is not None or (waits is None) != (lags is None):
        raise ValueError(
            "give waits and lags together, or total, or a clock; got "
            f"{'waits' if waits is not None else 'lags' if lags is not None else 'total'}"
            f"{' and a clock' if clock is not None else ' alone'}."
        )
    if waits is not None and lags is not None:
        return pairs_of(waits, lags, total)
    return growing() if total is None else plan(total)


def expected_waits(clock: Clock) -> int:
    """How many waiting times are open at once, at most."""
    if clock.grows is None:
        return clock.most_waits
    return len(growing(*clock.grows, horizon=LONGEST_UNKNOWN_RUN).waits)
