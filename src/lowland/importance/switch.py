"""The switch: a running estimate of what choosing examples gains, against what it costs."""

import warnings
from collections.abc import Callable, Sequence
from math import inf, isfinite
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.errors import NoEffectWarning
from lowland.importance.costs import Costs
from lowland.importance.reading import Reading
from lowland.importance.state import checked_replay
from lowland.importance.variance import (
    DECISIONS,
    TAU_RULES,
    batch_multiplier,
    constant_time,
    constant_variance,
    from_cost,
    score_sums,
    tau_from_sums,
)
from lowland.training import all_sum, rank_and_world

__all__ = ["Switch"]

COSTS = ("measured", "modelled")
SIZES = ("fixed", "constant_time", "constant_variance")
MOST_HISTORY = 400
STEPS_BETWEEN_TRIALS = 200  # scoring a pool now and then costs less than a hundredth
WARM_UP = 100  # steps that are all looked at, so that tau is known before it is looked at rarely
LOOKING = 0.01  # share of the time that looking at scores may take while the switch is off
MOST_STEPS_BETWEEN_LOOKS = 20


class Switch:
    """Decides before every step whether to choose examples, from the steps before.

    ``tau <- smoothing tau + (1 - smoothing) tau_hat``, from 0, which is the warm-up. With several
    processes sums of scores and costs are added up, so that all decide alike.

    Args:
        ratio: Pool over batch.
        tau_threshold: Choose while tau is above it, whatever it costs; None asks ``decision``.
        decision: ``"two_stage"`` or ``"paper"``, see :func:`lowland.importance.pays`.
        tau_rule: ``"v3"`` or ``"v1"``, see :func:`lowland.importance.equivalent_batch`; the
            paper's rule compares tau of either kind with its threshold.
        smoothing: Of the running mean.
        costs: ``"measured"`` by the clock or ``"modelled"``; None measures for ``"two_stage"``.
        backward_cost: Backward pass in forward passes, for modelled costs.
        accumulate: Batches whose sums of scores make one estimate.
        sizes: ``"fixed"``, or a rule of the official code that has a threshold of its own.
        replay: Switches of an earlier run, ``[step, is_active]``, to be repeated.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Algorithm 1 and Section 3.3; measured costs are ours.
    """

    def __init__(
        self,
        ratio: float,
        *,
        tau_threshold: float | None = None,
        decision: str = "two_stage",
        tau_rule: str = "v3",
        smoothing: float = 0.9,
        costs: str | None = None,
        backward_cost: float = 2.0,
        accumulate: int = 1,
        sizes: str = "fixed",
        replay: Sequence[Sequence[Any]] | None = None,
    ):
        for name, value, known in (
            ("decision", decision, DECISIONS),
            ("tau_rule", tau_rule, TAU_RULES),
            ("costs", costs or "measured", COSTS),
            ("sizes", sizes, SIZES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}; got {value!r}.")
        if isinstance(ratio, str) or not 1 < ratio < inf:
            raise ValueError(
                "presample must be above 1 and finite, so that there is something to choose; got "
                f"{ratio!r}. Take 2 to 6."
            )
        if isinstance(tau_threshold, str) or not (tau_threshold is None or tau_threshold >= 1):
            raise ValueError(
                f"tau_threshold must be at least 1, as tau is; got {tau_threshold!r}. "
                "1 is met by any scores that differ."
            )
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must lie in [0, 1); got {smoothing}.")
        if not backward_cost >= 0:
            raise ValueError(f"backward_cost must be at least 0; got {backward_cost}.")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ValueError(f"accumulate must be a whole number, at least 1; got {accumulate!r}.")
        self.ratio, self.decision, self.tau_rule = ratio, decision, tau_rule
        self.smoothing, self.accumulate, self.backward_cost = smoothing, accumulate, backward_cost
        self.is_measured = (
            costs or ("measured" if decision == "two_stage" else None)
        ) == "measured"
        self.tau_threshold, self.sizes = tau_threshold, sizes
        if tau_threshold is None and sizes != "fixed":
            share = backward_cost / (1 + backward_cost)
            self.tau_threshold = 2.0 if sizes == "constant_time" else 1 / max(share - 0.2, 1e-9)
        self.replay = None if replay is None else checked_replay(replay)
        self.costs = Costs()
        self.known_cost: float | None = None  # the mean over all processes
        self.estimate = 0.0
        self.is_active = False
        self.steps = 0
        self.active_steps = 0  # counted where rows are handed out: a rest is not chosen
        self.tried = 0  # the step of the last trial, or the last one that was on
        self.switches: list[list[Any]] = []
        self.history: list[list[Any]] = []
        self.stride = 1
        self.pending: list[Reading] = []
        self.decided: tuple[float, float] | None = None  # tau and its threshold at the last step
        self.next_look = 0  # the step whose scores are to be looked at while the switch is off

    @property
    def tau(self) -> float:
        """The running estimate, by ``tau_rule``; 0 before the first step."""
        if rank_and_world()[1] == 1:  # with several processes all must settle together
            self.settle()
        return self.estimate

    @property
    def plain_tau(self) -> float:
        """The running estimate by the rule ``"v3"``, at least 1."""
        return max(1.0, self.estimate**2 if self.tau_rule == "v1" else self.estimate)

    @property
    def kappa(self) -> float:
        """How many times larger a uniform batch would have to be, pool included."""
        return batch_multiplier(self.plain_tau, self.ratio)

    @property
    def cost(self) -> float:
        """What a step on chosen examples costs, in uniform steps, as far as is known."""
        if self.is_measured and self.known_cost is not None:
            return self.known_cost
        return 1 + self.ratio / (1 + self.backward_cost)

    @property
    def wants_score_cost(self) -> bool:
        """Whether to measure scoring: it may pay, and what is known of its cost is old."""
        return (
            self.is_measured
            and self.tau_threshold is None
            and not self.is_active
            and (self.costs.ratio is None or self.steps - self.tried >= STEPS_BETWEEN_TRIALS)
            and self.costs.of("uniform") is not None
            and self.kappa > 1 + 0.5 * self.ratio / (1 + self.backward_cost)
        )

    def begins_trial(self) -> bool:
        """Begin to measure scoring, if it is time to.

        Returns:
            Whether it is. Costs of another time are forgotten: a machine that was busy then must
            not keep the switch off for good.
        """
        if not self.wants_score_cost:
            return False
        self.tried = self.steps
        self.costs.ratios.clear()
        return True

    def look(self, score: Callable[[], Tensor]) -> bool:
        """Take in the scores of a uniform batch, if it is time to.

        Args:
            score: Computes them.

        Returns:
            Whether it was.
        """
        if self.steps < self.next_look:
            return False
        began = perf_counter()
        self.feed(score())
        self.note_look(perf_counter() - began)
        return True

    def note_look(self, seconds: float) -> None:
        """Let looking at scores cost little while the switch is off, if costs go by the clock.

        With several processes, or several batches for an estimate, every step is looked at.

        Args:
            seconds: That a look has taken.
        """
        step = self.costs.of("uniform")
        is_rare = self.is_measured and self.accumulate == 1 and self.steps > WARM_UP
        if is_rare and step and rank_and_world()[1] == 1:
            steps = round(seconds / (LOOKING * step))
            self.next_look = self.steps + min(max(1, steps), MOST_STEPS_BETWEEN_LOOKS)

    def pool_and_batch(self, size: int) -> tuple[int, int]:
        """Say how many rows to score, and how many of them to train on.

        Args:
            size: Rows of a uniform batch.

        Returns:
            Pool and batch.
        """
        if self.sizes == "fixed":
            return round(self.ratio * size), size
        root = self.plain_tau**0.5
        if self.sizes == "constant_time":
            return constant_time(root, size, self.backward_cost)
        return constant_variance(root, size)

    def feed(self, scores: Float[Tensor, " rows"]) -> None:
        """Take in the scores of a batch or of a pool, without waiting for the device.

        Args:
            scores: Before anything was mixed in.

        Raises:
            ValueError: If one is negative; looked at on the CPU only.
        """
        if scores.device.type == "cpu" and (scores < 0).any():
            first = int((scores < 0).nonzero()[0])
            raise ValueError(
                f"scores must be finite and not negative; got {scores[first].item()} at index "
                f"{first}."
            )
        sums = score_sums(scores)
        cost = self.costs.ratio if self.is_measured else None
        known = [0.0, 0.0] if cost is None else [1.0, cost]
        self.pending.append(Reading(all_sum(torch.cat([sums, sums.new_tensor(known)]))))

    def settle(self) -> None:
        """Bring tau and the decision up to date with all that was fed."""
        if len(self.pending) < self.accumulate:
            return
        read = [reading.values().tolist() for reading in self.pending]
        total, squares, rows, known, cost = map(sum, zip(*read, strict=True))
        count = len(self.pending) * rank_and_world()[1]
        self.pending = []
        found = tau_from_sums(total, squares, rows, self.tau_rule)
        if isfinite(found):  # the loss of a model that is not finite will tell
            self.estimate = self.smoothing * self.estimate + (1 - self.smoothing) * found
        if known == count:
            self.known_cost = cost / count
        self.is_active = self.is_worth()
        self.remember()

    @property
    def is_by_root(self) -> bool:
        """Whether the threshold is one for the root of tau, as in the official code."""
        return self.sizes != "fixed" and self.tau_rule == "v3"

    def is_worth(self) -> bool:
        """Whether the next step should choose its examples."""
        if self.tau_threshold is not None:
            return (self.estimate**0.5 if self.is_by_root else self.estimate) > self.tau_threshold
        if self.decision == "paper":
            return self.estimate > self.cost
        return self.plain_tau > from_cost(self.cost, self.ratio, "two_stage")

    def would_choose(self) -> bool:
        """Whether the next step is to choose its examples, from all that was fed before it."""
        self.settle()
        if self.replay is not None:
            past = [on for step, on in self.replay if step <= self.steps]
            self.is_active = past[-1] if past else False
        return self.is_active

    def begin_step(self) -> bool:
        """Count a step.

        Returns:
            Whether it is to choose its examples.
        """
        self.would_choose()
        self.decided = self.estimate, self.smallest_tau
        was_active = bool(self.switches) and self.switches[-1][1]
        if self.is_active != was_active:
            self.switches.append([self.steps, self.is_active])
        self.steps += 1
        if self.is_active:
            self.tried = self.steps
        return self.is_active

    def remember(self) -> None:
        """Keep a thinned history of tau: step, tau, whether the switch is on."""
        if self.steps % self.stride == 0:
            self.history.append([self.steps, self.estimate, self.is_active])
        if len(self.history) > MOST_HISTORY:
            self.history, self.stride = self.history[1::2], 2 * self.stride

    def settings(self) -> dict[str, Any]:
        """Give the choices as plain values.

        Returns:
            Keyword arguments by name.
        """
        names = ("tau_threshold", "decision", "tau_rule", "smoothing", "backward_cost")
        found = {name: getattr(self, name) for name in (*names, "accumulate", "sizes", "replay")}
        return found | {"costs": "measured" if self.is_measured else "modelled"}

    def state_dict(self) -> dict[str, Any]:
        """Give what a later run needs to go on, as plain values and tensors.

        Returns:
            The state.
        """
        return {
            "estimate": self.estimate,
            "is_active": self.is_active,
            "steps": self.steps,
            "active_steps": self.active_steps,
            "tried": self.tried,
            "switches": [list(item) for item in self.switches],
            "history": [list(item) for item in self.history],
            "stride": self.stride,
            "costs": self.costs.state_dict(),
            "known_cost": self.known_cost,
            "pending": [reading.values() for reading in self.pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        for name in (
            "estimate",
            "is_active",
            "steps",
            "active_steps",
            "tried",
            "stride",
            "known_cost",
        ):
            setattr(self, name, state[name])
        self.switches = [list(item) for item in state["switches"]]
        self.history = [list(item) for item in state["history"]]
        self.costs.load_state_dict(state["costs"])
        self.pending = [Reading(values) for values in state["pending"]]

    @property
    def smallest_tau(self) -> float:
        """The tau above which the switch is on, as far as costs are known; infinite if none is."""
        if self.tau_threshold is not None:
            return self.tau_threshold**2 if self.is_by_root else self.tau_threshold
        if self.decision == "paper":
            return self.cost
        smallest = from_cost(self.cost, self.ratio, "two_stage")
        return smallest**0.5 if self.tau_rule == "v1" else smallest

    def summary(self) -> str:
        """Say in a sentence what happened, by both clocks.

        Returns:
            The sentence.
        """
        first = next((step for step, on in self.switches if on), None)
        begins = f", first at step {first}" if self.active_steps else ""
        parts = [
            f"{self.active_steps} of {self.steps} steps on chosen rows{begins}",
            f"tau {self.tau:.3g}, kappa {self.kappa:.3g}, "
            f"a step on chosen rows costs {self.cost:.3g} uniform ones",
        ]
        for kind, name in (("uniform", "uniform"), ("active", "on chosen rows")):
            seconds = self.costs.of(kind)
            if seconds is not None:
                parts.append(f"a step takes {1000 * seconds:.3g} ms {name}")
        return "; ".join(parts)

    def warn_if_idle(self) -> None:
        """Warn if no step was on chosen rows."""
        if not self.steps or self.active_steps:
            return
        tau, smallest = self.decided or (self.tau, self.smallest_tau)
        why = (
            f"never switched on in {self.steps} steps: tau {tau:.3g} stayed below "
            f"{smallest:.3g}, where it would pay"
        )
        if any(on for _, on in self.switches):
            why = "had no pool to choose from: none was larger than a batch, or all scored zero"
        warnings.warn(
            f"importance sampling {why}. Training was plain SGD.", NoEffectWarning, stacklevel=3
        )
