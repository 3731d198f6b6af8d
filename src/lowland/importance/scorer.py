"""Scores from a model: of a whole pool without gradients, or free from a training forward pass."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from inspect import signature
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lowland.errors import FallbackWarning, UnsupportedModelError
from lowland.importance.exact import gradient_norms, last_layer_scores
from lowland.importance.modes import Modes
from lowland.importance.rows import count_rows, select
from lowland.importance.scores import head_gradients, row_losses, scores
from lowland.importance.trunk import FrozenTrunk
from lowland.params import call
from lowland.training import device_of, kept_mode, tensors_in

__all__ = ["SCORES", "Scorer"]

SCORES = ("bound", "last_layer", "gradient_norm", "loss")


class Scorer:
    """Scores the examples of a pool.

    Args:
        model: The user's model.
        loss_fn: One loss per example.
        score: One of ``SCORES``, or a function of output and target.
        batch_norm: See :class:`lowland.importance.modes.Modes`.
        trunk: A frozen part of the model, or None.
        precision: None scores as the model trains, ``"bf16"`` under autocast to bfloat16.

    Raises:
        ValueError: If an argument is out of range, or the loss is reduced to a scalar.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[Any, Any], Tensor],
        score: str | Callable[[Any, Any], Tensor] = "bound",
        *,
        batch_norm: str = "eval_score",
        trunk: nn.Module | None = None,
        precision: str | None = None,
    ):
        if not callable(score) and score not in SCORES:
            raise ValueError(
                f"score must be one of {SCORES}, or a function of output and target; got {score!r}."
            )
        if precision not in (None, "bf16"):
            raise ValueError(f"score_precision must be None or 'bf16'; got {precision!r}.")
        if trunk is not None and precision is not None:
            raise ValueError(
                "score_precision must be None with a trunk, whose output is used for training too; "
                f"got {precision!r}."
            )
        reduction = getattr(loss_fn, "reduction", "none")
        if isinstance(loss_fn, nn.modules.loss._Loss) and reduction != "none":
            raise ValueError(
                f'loss_fn must return one loss per example; got reduction="{reduction}", which '
                'gives a scalar. Pass reduction="none".'
            )
        if not isinstance(model, nn.Module) or not callable(loss_fn):
            raise ValueError(
                "model must be a torch.nn.Module and loss_fn a function of output and target; got "
                f"a {type(model).__name__} and a {type(loss_fn).__name__}."
            )
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.loss_fn, self.score = loss_fn, score
        self.modes = Modes(self.model, batch_norm)
        self.trunk = None if trunk is None else FrozenTrunk(trunk)
        self.half: str | None = "bfloat16" if precision == "bf16" else None
        self.chunk: int | None = None
        self.last_call: tuple[nn.Linear, Tensor, Tensor] | None = None
        self.has_checked = False

    @property
    def device(self) -> torch.device:
        """Where the model computes now."""
        return device_of(self.model)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Stand beside the model in a block that trains it.

        Yields:
            Nothing.
        """
        with ExitStack() as stack:
            stack.enter_context(self.modes.watched())
            if self.trunk is not None:
                stack.enter_context(self.trunk.watched())
            if self.score == "last_layer":
                for layer in self.model.modules():
                    if isinstance(layer, nn.Linear):
                        handle = layer.register_forward_hook(self.note_call)
                        stack.callback(handle.remove)
            yield
        self.last_call = None

    def note_call(self, layer: Any, inputs: Any, output: Any) -> None:
        """Remember the last linear layer that ran."""
        self.last_call = (layer, inputs[0].detach(), output)

    def pool(self, inputs: Any, target: Any, rows: int) -> Float[Tensor, " pool"]:
        """Score a pool in evaluation mode, in as few pieces as memory allows.

        Args:
            inputs: Of the whole pool.
            target: Its targets.
            rows: Its size.

        Returns:
            Scores.

        Raises:
            OutOfMemoryError: If a single row does not fit.
        """
        self.check_inputs(inputs)
        while True:
            size = self.chunk or rows
            try:
                with self.modes.scoring(), self.remembered(), torch.no_grad(), self.autocast():
                    parts = [
                        self.piece(*select((inputs, target), slice(start, start + size), rows))
                        for start in range(0, rows, size)
                    ]
                return torch.cat(parts)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.chunk = max(1, size // 2)
                warnings.warn(
                    f"a pool of {rows} does not fit into memory at once; scoring {self.chunk} rows "
                    "at a time.",
                    FallbackWarning,
                    stacklevel=2,
                )

    def seconds(self, inputs: Any, target: Any) -> float:
        """Time the scoring of a pool, after a first time that warms up.

        Args:
            inputs: As for :meth:`pool`.
            target: As for :meth:`pool`.

        Returns:
            Seconds.
        """
        rows, began = count_rows((inputs, target)), 0.0
        for _ in range(2):
            began = perf_counter()
            float(self.pool(inputs, target, rows).sum())
        return perf_counter() - began

    def check_inputs(self, inputs: Any) -> None:
        """Refuse, at the first batch, inputs that the model does not take as we give them.

        Args:
            inputs: A batch of them.

        Raises:
            ValueError: If the model takes a whole mapping or tuple as one argument.
        """
        if self.has_checked:
            return
        self.has_checked = True
        if takes(self.model, inputs):
            return
        try:  # a hook may make of them what the model does take
            with kept_mode(self.model), torch.no_grad():
                self.model.eval()
                call(self.model, inputs)
        except TypeError as error:
            kind, how = type(inputs).__name__, "**" if isinstance(inputs, Mapping) else "*"
            raise ValueError(
                f"the model must take the inputs of a batch, a {kind}, as model({how}inputs); "
                f"{type(self.model).__name__} does not ({error}). If it takes the {kind} as one "
                "argument, put it into a tuple: get_inputs=lambda batch: (batch[0],)."
            ) from error

    def losses(self, output: Any, target: Any) -> Float[Tensor, " rows"]:
        """Compute the loss of each row.

        Args:
            output: What the model returned.
            target: The targets.

        Returns:
            Losses, with their graph.
        """
        self.modes.look_at(output)
        return row_losses(self.loss_fn, output, target)

    def settings(self) -> dict[str, Any]:
        """Give the choices that decide the scores.

        Returns:
            Plain values.
        """
        return {
            "score": getattr(self.score, "__name__", str(self.score)),
            "batch_norm": self.modes.batch_norm,
            "trunk": None if self.trunk is None else type(self.trunk.trunk).__name__,
        }

    def piece(self, inputs: Any, target: Any) -> Float[Tensor, " rows"]:
        """Score some rows of a pool."""
        if self.score == "gradient_norm":
            return gradient_norms(self.model, self.losses, inputs, target)
        return self.output(call(self.model, inputs), target)

    def remembered(self) -> Any:
        """Let a trunk remember what it makes of the pool."""
        return nullcontext() if self.trunk is None else self.trunk.remembering()

    def autocast(self) -> Any:
        """Score in the precision that the model trains in."""
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.half))

    def training(self, output: Any, target: Any, inputs: Any) -> Float[Tensor, " rows"]:
        """Score a batch from its training forward pass, and learn which precision that runs in.

        Args:
            output: What the model returned, with its graph.
            target: The targets.
            inputs: What the model was given.

        Returns:
            Scores.
        """
        self.check_inputs(inputs)
        if self.half is None:
            kinds = {t.dtype for t in tensors_in(output)} & {torch.bfloat16, torch.float16}
            own = next((p.dtype for p in self.model.parameters()), torch.float32)
            if kinds and own == torch.float32:
                self.half = str(kinds.pop()).removeprefix("torch.")
        if self.score == "gradient_norm":
            with self.modes.scoring():
                return gradient_norms(self.model, self.losses, inputs, target)
        with torch.no_grad():
            return self.output(output, target)

    def output(self, output: Any, target: Any) -> Float[Tensor, " rows"]:
        """Score rows by what the model puts out for them."""
        if callable(self.score):
            found = self.score(output, target)
            if not isinstance(found, Tensor) or found.ndim != 1:
                shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(
                    f"score(output, target) must return one number per example; got {shape}."
                )
            return found.detach()
        if self.score == "loss":
            return self.losses(output, target).detach().float()
        if self.score == "last_layer":
            return self.last_layer(output, target)
        return scores(self.loss_fn, output, target)

    def last_layer(self, output: Any, target: Any) -> Float[Tensor, " rows"]:
        """Gradient norms of the linear layer that made the output."""
        layer, features, made = self.last_call or (None, None, None)
        if (
            layer is None
            or features is None
            or made is None
            or not isinstance(output, Tensor)
            or (made.data_ptr(), made.shape) != (output.data_ptr(), output.shape)
        ):
            raise UnsupportedModelError(
                'score="last_layer" needs a model whose output is that of an nn.Linear; this one '
                'ends otherwise. Take score="bound".'
            )
        has_bias = layer.bias is not None
        if features.ndim == 2:
            length = features.float().square().sum(1) + float(has_bias)
            return scores(self.loss_fn, output, target) * length.sqrt()
        (delta,) = head_gradients(self.loss_fn, output, target)
        return last_layer_scores(delta, features, bias=has_bias)


def takes(model: nn.Module, inputs: Any) -> bool:
    """Whether the arguments of a model are those that a mapping or a tuple of inputs makes."""
    if not isinstance(inputs, Mapping | tuple | list):
        return True
    try:
        wanted = signature(model.forward)
    except (TypeError, ValueError):
        return True
    try:
        if isinstance(inputs, Mapping):
            wanted.bind(**inputs)
        else:
            wanted.bind(*inputs)
    except TypeError:
        return False
    return True
