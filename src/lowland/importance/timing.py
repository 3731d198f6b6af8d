"""The clock of one step."""

from dataclasses import dataclass

from lowland.importance.costs import Costs

__all__ = ["Timing"]


@dataclass
class Timing:
    """How long the parts of a step took.

    Attributes:
        began: When its batch was asked for.
        wait: Seconds until its rows, or those of its pool, were there.
        score: Seconds of scoring a pool; None where none was scored.
        batches: Batches that the pool was scored for.
    """

    began: float
    wait: float = 0.0
    score: float | None = None
    batches: int = 1

    def note_uniform(self, costs: Costs, now: float, ratio: float) -> None:
        """Note a uniform step; if a pool was scored on trial, what a step on chosen rows costs.

        Args:
            costs: Where to.
            now: When the step ended.
            ratio: Pool over batch.
        """
        step = now - self.began
        costs.add("uniform", step)
        if self.score is not None:
            costs.add("score", self.score)
            costs.add_ratio(step + (ratio - 1) * self.wait + self.score, step)

    def note_active(self, costs: Costs, now: float, ratio: float, *, can_split: bool) -> None:
        """Note the steps on rows chosen from one pool.

        Args:
            costs: Where to.
            now: When the last of them ended.
            ratio: Pool over batch.
            can_split: Whether the step without scoring is what a uniform step would have been;
                not on an accelerator, where work is queued, nor where repeated rows were merged.
        """
        steps = now - self.began
        costs.add("active", steps / self.batches)
        if not can_split:
            costs.add_whole_steps()
        elif self.score is not None:
            costs.add("score", self.score)
            extra = self.score + self.wait - self.batches * self.wait / ratio
            costs.add_ratio(steps, steps - extra)
