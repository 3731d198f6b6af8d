"""A network as a function of its state alone, run where its axes can be watched."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lowland.connectivity.groups import read_symmetry
from lowland.connectivity.permutations import Symmetry, shuffled
from lowland.connectivity.usage import Usage
from lowland.connectivity.watching import Watch
from lowland.params import call_at
from lowland.training import device_of, isolated_rng, map_tensors, mode, tensors_in

__all__ = ["Forward", "find_symmetry"]

# Outputs of permuted networks differ by the rounding of sums in another order.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}

# How far parameters are moved, in units of their own spread, so that no symmetry holds by chance.
JITTER = 0.3


@dataclass(frozen=True)
class Forward:
    """A network in evaluation mode.

    Attributes:
        model: The architecture; stays as it is.
        names: Names of its tensors that are saved, each tied one once.
        device: Where to compute.
        dtype: Of floating-point numbers; None leaves each as it is.
        seed: Seeds what is random in the pass.
    """

    model: nn.Module
    names: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype | None
    seed: int

    def convert(self, values: Any) -> Any:
        """Bring inputs or a state to where they are computed with.

        Args:
            values: Tensors in containers.

        Returns:
            The same containers, of copies.
        """

        def moved(tensor: Tensor) -> Tensor:
            dtype = self.dtype if tensor.is_floating_point() else None
            return tensor.detach().to(self.device, dtype or tensor.dtype, copy=True)

        return map_tensors(moved, values)

    def state(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the tensors of a state dict, each tied one once, as copies."""
        return {name: self.convert(given[name]) for name in self.names}

    def __call__(
        self, state: Mapping[str, Tensor], inputs: Any, watch: AbstractContextManager | None = None
    ) -> Any:
        """Run the network.

        Args:
            state: What :meth:`state` gave; batch norms may write to it.
            inputs: What :meth:`convert` gave.
            watch: Sees every operation.

        Returns:
            The outputs.
        """
        own = [*self.model.named_parameters(), *self.model.named_buffers()]
        rest = {name: self.convert(value) for name, value in own if name not in state}
        with (
            torch.no_grad(),
            mode(self.model, norm_trains=False),
            isolated_rng(self.seed, "align"),
            sdpa_kernel(SDPBackend.MATH),
            watch or nullcontext(),
        ):
            return call_at(self.model, {**rest, **state}, inputs)

    def watch(self, state: Mapping[str, Tensor], inputs: Any) -> Watch:
        """Run the network twice: what matters, and what that says about axes.

        Args:
            state: A full state dict of the model.
            inputs: What :meth:`convert` gave.

        Returns:
            What was seen.
        """
        usage, values = Usage(), self.state(state)
        usage.finish(self(values, inputs, usage))
        values = self.state(state)
        watch = Watch(values, inputs, usage.live)
        watch.finish(self(values, inputs, watch))
        return watch


def find_symmetry(
    model: nn.Module, inputs: Any, state: Mapping[str, Tensor], seed: int
) -> tuple[Forward, Symmetry, list[str]]:
    """Find which units of a network may be permuted without changing it.

    Args:
        model: The architecture; stays as it is.
        inputs: Example inputs.
        state: A full state dict of the model.
        seed: Seed of the permutations that are tried.

    Returns:
        The network as a function, its symmetry, and the names of groups of axes that the graph
        allows but that changed the outputs when they were tried.

    Raises:
        ValueError: If the outputs are no numbers.
    """
    forward, watch, given = watched(model, inputs, state, seed)
    params = [name for name, _ in model.named_parameters()]
    symmetry = read_symmetry(watch, [n for n in params if state[n].is_floating_point()])
    draws = torch.Generator().manual_seed(seed)
    states = [forward.state(state), jittered(forward.state(state), params, draws)]
    outputs = [[t.clone() for t in tensors_in(forward(copy(s), given))] for s in states]
    if any(torch.isnan(tensor).any() for tensors in outputs for tensor in tensors):
        raise ValueError(
            "the model must give numbers on the first batch, to be compared after a permutation; "
            "got NaN. Look for inputs that are not finite, and how they are normalized."
        )

    def holds(tried: Symmetry, roots: list[int]) -> bool:
        permutations = shuffled(tried, draws, roots)
        for before, expected in zip(states, outputs, strict=True):
            found = forward(tried.permute(copy(before), permutations), given)
            if not close([*tensors_in(found)], expected):
                return False
        return True

    if holds(symmetry, symmetry.roots):
        return forward, symmetry, []
    for root in symmetry.roots:
        if symmetry.inner(root) and not holds(symmetry, [root]):
            within = {a: b for a, b in symmetry.within.items() if b != root}
            symmetry = Symmetry(
                symmetry.tensors, symmetry.sizes, symmetry.names, within, symmetry.kept
            )
    wrong = [root for root in symmetry.roots if not holds(symmetry, [root])]
    named = [symmetry.names[root] for root in wrong]
    return forward, symmetry.without(wrong, "changed the outputs when it was tried"), named


def watched(
    model: nn.Module, inputs: Any, state: Mapping[str, Tensor], seed: int
) -> tuple[Forward, Watch, Any]:
    """Watch a forward pass, in float64 on the host where the model can be run so."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    names, device = tuple(name for name in own if name in state), device_of(model)
    wide = [torch.device("cpu"), *([] if device.type in ("cpu", "mps") else [device])]
    for place in wide:
        forward = Forward(model, names, place, torch.float64, seed)
        try:
            watch, given = attempt(forward, inputs, state)
        except (RuntimeError, TypeError, NotImplementedError):  # fixed dtypes, or a fixed device
            continue
        return forward, watch, given
    forward = Forward(model, names, device, None, seed)
    watch, given = attempt(forward, inputs, state)
    return forward, watch, given


def attempt(forward: Forward, inputs: Any, state: Mapping[str, Tensor]) -> tuple[Watch, Any]:
    """Watch one pass."""
    given = forward.convert(inputs)
    return forward.watch(state, given), given


def copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, as a forward pass may write to them."""
    return {name: value.clone() for name, value in state.items()}


def jittered(
    state: dict[str, Tensor], params: list[str], generator: torch.Generator
) -> dict[str, Tensor]:
    """Move parameters at random, so that units which are equal or idle are so no more."""
    for name in params:
        value = state[name]
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator).to(value)
            spread = value.std() if value.numel() > 1 else value.abs().sum()
            state[name] = value + JITTER * (spread + 0.01) * noise
    return state


def close(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether two outputs are the same up to rounding."""
    for one, other in zip(found, expected, strict=True):
        if not one.is_floating_point():
            if not torch.equal(one, other):
                return False
            continue
        scale = float(other.abs().max()) if other.numel() else 0.0
        bound = TOLERANCE.get(one.dtype, 3e-2) * max(scale, 1e-30)
        if not torch.allclose(one, other, rtol=0, atol=bound, equal_nan=True):
            return False
    return True
