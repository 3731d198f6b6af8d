"""How a module that failed, or a run that broke off, leaves a model that is certified all the same.

Whatever is done here is tried out on the whole training set, and taken back if it does not hold.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lowland.boosting.feature_set import Features
from lowland.boosting.heads import warm_start
from lowland.boosting.identity import zero_start
from lowland.boosting.local import evaluated
from lowland.boosting.part import Part, logits_of, unharmed
from lowland.params import call
from lowland.training.together import sum_of_all

__all__ = ["put_back", "take_out"]


def put_back(
    parts: Sequence[Part],
    head: nn.Module,
    previous: nn.Module | None,
    proof: Features,
    before: Iterable[nn.Module] = (),
) -> bool:
    """Make parts the identity, and give their head the weights of the one before.

    Args:
        parts: Parts of a chain; changed in place.
        head: Behind the last of them; likewise.
        previous: The head of the round before; None at first, where nothing can be put back.
        proof: The data of the statistics, as it enters ``before``.
        before: Modules between the data and the parts.

    Returns:
        Whether parts and head now compute what the head before did, bit by bit on all the data of
        all processes; if not, they are as they were. Weights that the user has frozen stay.

    Source:
        Ours; specification section 3.8.
    """
    before = list(before)
    kept = [(module, deepcopy(module.state_dict())) for module in (*parts, head)]
    weights = [weight for module in (*parts, head) for weight in module.parameters()]
    frozen = [(weight, weight.clone()) for weight in weights if not weight.requires_grad]
    is_back = previous is not None and warm_start(head, previous)
    values, _, _ = next(iter(proof.chunks()))
    with evaluated(*before):
        for module in before:
            values = module(*values)
    is_back = is_back and all(zero_start(part, values) for part in parts)
    is_back = is_back and all(torch.equal(weight, value) for weight, value in frozen)
    if not everywhere(is_back):
        is_back = False
    elif previous is not None:
        is_back = everywhere(agree([*before, *parts, head], [*before, previous], proof))
    if not is_back:
        for module, state in kept:
            module.load_state_dict(state)
    return is_back


def everywhere(is_so: bool) -> bool:
    """Whether something is so on all processes."""
    return not sum_of_all([0.0 if is_so else 1.0])[0]


def agree(modules: Sequence[nn.Module], others: Sequence[nn.Module], data: Features) -> bool:
    """Whether two ways to the logits give the same bits on all examples."""
    with evaluated(*modules, *others):
        return all(
            torch.equal(through(modules, values), through(others, values))
            for values, _, _ in data.chunks()
        )


def through(modules: Sequence[nn.Module], values: Any) -> Tensor:
    """Go through some modules, the last of which is a head."""
    *parts, head = modules
    for part in parts:
        values = part(*values)
    return head(*values)


def take_out(model: nn.Module, parts: Sequence[Part], inputs: Any) -> bool:
    """Replace parts that are the identity by ``nn.Identity``, which has no keys.

    Args:
        model: Changed in place.
        parts: Some of its parts.
        inputs: A batch of the model, to see whether it still computes the same.

    Returns:
        Whether it does. If not, as where a block returns more than hidden values or is no module
        of the model, nothing was changed.
    """
    names = [key.replace("/", ".") for part in parts for key, _ in part.named_children()]
    known = dict(model.named_modules())
    if not all(name in known for name in names):
        return False
    with unharmed(model):
        expected = logits_of(call(model, inputs))
    try:
        for name in names:
            model.set_submodule(name, nn.Identity())
        with unharmed(model):
            if torch.equal(logits_of(call(model, inputs)), expected):
                return True
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        pass  # the model asks its blocks for more than this
    for name in names:
        model.set_submodule(name, known[name])
    return False
