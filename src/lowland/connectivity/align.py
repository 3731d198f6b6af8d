"""Permute the units of one network to match another: the same function, a nearer point."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lowland.connectivity.activations import correlate
from lowland.connectivity.alignment import Alignment
from lowland.connectivity.checks import (
    refuse_no_model,
    refuse_no_whole,
    refuse_unknown,
)
from lowland.connectivity.forward import Forward, find_symmetry
from lowland.connectivity.permutations import Permutations, Symmetry, identity
from lowland.connectivity.search import parameters, score, search
from lowland.connectivity.weight_similarity import WeightSimilarity
from lowland.errors import FallbackWarning, NoEffectWarning
from lowland.results import Status
from lowland.training import (
    Source,
    as_pair,
    check_batches,
    check_not_empty,
    isolated_rng,
    kept_buffers,
    match_state,
    norm_layers,
    open_progress,
    read_state,
    recalibrate,
)

__all__ = ["align"]

METHODS = ("weights", "activations")


def align(
    model: nn.Module,
    batches: Any,
    start: Source,
    end: Source,
    *,
    method: str = "weights",
    repair: bool = False,
    examples: int = 2000,
    passes: int = 100,
    seed: int = 0,
    progress: Any = False,
) -> Alignment:
    """Permute the hidden units of one network so that they match those of another.

    The permuted network is the same function, its batch-norm statistics go with their units. Which
    axes belong together is learned from one forward pass, watched operation by operation; what is
    not understood is left alone, and every group is tried on the first batch before it is used: one
    that changes the outputs is dropped. Frozen parameters and buffers that are equal at both ends
    stay equal: units move only where they do not notice. The model itself is not changed.

    Args:
        model: The architecture.
        batches: Batches of (inputs, target), readable again and again; the first one is watched,
            activations and statistics use more.
        start: The network to match: a state dict, a module, or a checkpoint file.
        end: The one whose units are permuted.
        method: ``"weights"`` makes the inner product of the parameters large, ``"activations"``
            the correlations of what units do.
        repair: Recompute the batch-norm statistics of the result over ``batches``. A permutation
            does not ask for it; networks on the line between the ends do, and paths do it there.
        examples: Examples for activations and for statistics.
        passes: Passes over all groups at most.
        seed: Decides the order of the groups, and what is tried at random.
        progress: True, False, None (only on a terminal), or a running progress display.

    Returns:
        The permuted state dict and what was done.

    Raises:
        ValueError: If the states do not fit the model or are not finite, there is no batch, or a
            setting is wrong.

    Warns:
        NoEffectWarning: If no axis of the model may be permuted.
        FallbackWarning: If a group was dropped because it changed the outputs.

    Source:
        Ainsworth et al., ICLR 2023 (Git Re-Basin); Jordan et al., ICLR 2023 (REPAIR), for the
        statistics.
    """
    began = perf_counter()
    one, other, inputs = checked(model, batches, start, end, method, passes, examples, seed)
    with kept_buffers(model.modules()):
        forward, symmetry, wrong = find_symmetry(model, inputs, other, seed)
    if wrong:
        warnings.warn(
            f"permuting {', '.join(wrong)} changed the outputs of the model: these axes are left "
            "alone. Does the model use the position of units there?",
            FallbackWarning,
            stacklevel=2,
        )
    if not symmetry.sizes:
        warnings.warn(
            "no axis of the model may be permuted, so the end is returned as it is; "
            ".left_alone tells why.",
            NoEffectWarning,
            stacklevel=2,
        )
    states = forward.state(one), forward.state(other)
    objective: Any = WeightSimilarity(
        symmetry, parameters(model, states[0]), parameters(model, states[1])
    )
    if method == "activations":
        with isolated_rng(seed, "activations", batches=batches), kept_buffers(model.modules()):
            objective = correlate(forward, symmetry, one, other, batches, examples)
    with open_progress(progress) as display, display.task("align", passes) as bar:
        found, done, still = search(
            model, symmetry, states, objective, passes=passes, seed=seed, on_pass=bar.advance
        )
    state = permuted_state(model, forward, symmetry, other, found)
    if repair and norm_layers(model):
        state = repaired(model, state, batches, examples, seed)
    names, places = symmetry.names, symmetry.places()
    before, after = (score(objective, p, symmetry) for p in (identity(symmetry), found))
    return Alignment(
        state=state,
        permutations={names[label]: found[label] for label in symmetry.sizes},
        groups={names[label]: places[label] for label in symmetry.sizes},
        left_alone=symmetry.kept,
        objective=(before, after),
        method=method,
        passes=done,
        status=Status.CONVERGED if still else Status.MAX_STEPS,
        seconds=perf_counter() - began,
    )


def checked(
    model: nn.Module,
    batches: Any,
    start: Source,
    end: Source,
    method: str,
    passes: int,
    examples: int,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Read both networks and the first batch, and refuse what cannot be aligned."""
    refuse_no_model(model, "start and end")
    refuse_unknown(METHODS, method=method)
    refuse_no_whole(1, passes=passes, examples=examples)
    check_batches(batches)
    states = [
        match_state(model, read_state(source), what)
        for source, what in ((start, "start"), (end, "end"))
    ]
    params, norms = dict(model.named_parameters()), norm_layers(model)
    for state, what in zip(states, ("start", "end"), strict=True):
        must = [n for n in state if n in params or n.rpartition(".")[0] in norms]
        bad = [name for name in must if not torch.isfinite(state[name]).all()]
        if bad:
            raise ValueError(
                f"{what} must hold finite parameters and statistics; {bad[0]} does not. Take a "
                "checkpoint from before the training diverged."
            )
    with isolated_rng(seed, "align", batches=batches):
        first = [as_pair(batch)[0] for batch in islice(batches, 1)]
    check_not_empty(len(first))
    return states[0], states[1], first[0]


def permuted_state(
    model: nn.Module,
    forward: Forward,
    symmetry: Symmetry,
    state: Mapping[str, Tensor],
    permutations: Permutations,
) -> dict[str, Tensor]:
    """Permute a state dict, tied tensors under all of their names."""
    moved = symmetry.permute({name: state[name] for name in forward.names}, permutations)
    every = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    names: dict[int, str] = {}
    kept = {name: names.setdefault(id(value), name) for name, value in every}
    return {name: moved.get(kept.get(name, name), value) for name, value in state.items()}


def repaired(
    model: nn.Module, state: Mapping[str, Tensor], batches: Any, examples: int, seed: int
) -> dict[str, Tensor]:
    """Recompute batch-norm statistics, on a copy of the model."""
    other = deepcopy(model)
    other.load_state_dict(state, strict=False)
    with isolated_rng(seed, "repair", batches=batches):
        recalibrate(other, batches, examples)
    found = other.state_dict()
    statistics = tuple(f"{name}." for name in norm_layers(model))
    return {
        name: found[name].clone() if name.startswith(statistics) else value
        for name, value in state.items()
    }
