"""What a sampling saves to go on later: some of its attributes, by name."""

from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor

__all__ = ["set_state", "state_of"]


def state_of(sampling: Any, names: Sequence[str]) -> dict[str, Any]:
    """Copy attributes into plain values and tensors.

    Args:
        sampling: Whose they are.
        names: Of numbers, tensors, batches or generators.

    Returns:
        Values by name; of a generator its state.

    Source:
        Ours.
    """
    values = {name: getattr(sampling, name) for name in names}
    for name, value in values.items():
        if isinstance(value, Generator):
            values[name] = value.get_state()
        elif isinstance(value, Tensor):
            values[name] = value.clone()
    return values


def set_state(sampling: Any, names: Sequence[str], state: dict[str, Any]) -> None:
    """Put saved attributes back; no batch has been given since then.

    Args:
        sampling: Changed in place; its ``weight`` is None afterwards.
        names: As for :func:`state_of`.
        state: What :func:`state_of` returned.

    Source:
        Ours.
    """
    for name in names:
        own, value = getattr(sampling, name), state[name]
        if isinstance(own, Generator):
            own.set_state(value.cpu())
        else:
            setattr(sampling, name, value.clone() if isinstance(value, Tensor) else value)
    sampling.weight = None
