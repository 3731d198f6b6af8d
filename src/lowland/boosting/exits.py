"""Leave a network at the first depth whose head is sure enough."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lowland.boosting.chain import Chain
from lowland.training import device_of, kept_mode, to_device

__all__ = ["predict_early"]


@torch.no_grad()
def predict_early(
    chain: Chain,
    heads: Sequence[nn.Module],
    inputs: Any,
    *,
    confidence: float,
    module_size: int = 1,
) -> tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]:
    """Classify each example at the first depth where a class has this probability.

    An example that has left is not computed any further. The last head answers for all that are
    still there.

    Args:
        chain: The trained chain.
        heads: Of all rounds in their order: ``train_boosted(..., exits=True).exits``.
        inputs: As the model takes them.
        confidence: Probability of the likeliest class from which on an example leaves: 0 lets all
            leave at once, a number above 1 none.
        module_size: Blocks of a round, as in :func:`train_boosted`.

    Returns:
        Logits, and how many modules each example went through, from 1. Modes stay as they are.

    Raises:
        ValueError: If there is not one head for each module, or confidence is not a number.

    Source:
        Ours; heads of Huang et al., ICML 2018.
    """
    modules = range(0, len(chain.parts), module_size) if module_size > 0 else ()
    if len(heads) != len(modules):
        raise ValueError(
            f"there must be one head for each of {len(modules)} modules; got {len(heads)}. Train "
            "with exits=True, and give the same module_size."
        )
    if not confidence >= 0:
        raise ValueError(f"confidence must be a number, not negative; got {confidence}.")
    with kept_mode(chain.model), kept_mode(nn.ModuleList(heads)):
        chain.model.eval()
        values = chain.values(to_device(inputs, device_of(chain.model)))
        left = torch.arange(len(values[0]), device=values[0].device)
        depth = torch.zeros_like(left)
        logits = torch.empty(0)
        for number, (start, head) in enumerate(zip(modules, heads, strict=True), 1):
            for part in chain.parts[start : start + module_size]:
                values = part.eval()(*values)
            found = head.eval()(*values)
            if number == 1:
                logits = found.new_zeros(len(depth), found.shape[1])
            logits[left], depth[left] = found, number
            stays = ~(found.softmax(1).amax(1) >= confidence)
            left, values = left[stays], tuple(value[stays] for value in values)
            if not len(left):
                break
    return logits, depth
