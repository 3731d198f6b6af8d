"""What a sampling saves to go on later, and says of itself: some of its attributes, by name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Generator, Tensor

from lowland.results import plain

__all__ = ["check_state", "checked_replay", "set_state", "settings_of", "state_of"]


def settings_of(sampling: Any, names: Sequence[str]) -> dict[str, Any]:
    """Give the choices that decide the numbers of a run, as plain values.

    Args:
        sampling: Whose they are.
        names: Of its attributes.

    Returns:
        The name of the method, and values by name.

    Source:
        Ours.
    """
    chosen = {name: getattr(sampling, name) for name in names}
    return plain({"method": type(sampling).__name__, **chosen})


def check_state(state: Any, names: Iterable[str]) -> None:
    """Refuse what no ``state_dict`` has returned.

    Args:
        state: A saved state.
        names: What must be in it.

    Raises:
        ValueError: If it is no mapping, or something is missing.

    Source:
        Ours.
    """
    lacking = [name for name in names if not isinstance(state, Mapping) or name not in state]
    if lacking:
        raise ValueError(
            f"state must be what state_dict() of such a sampling returned; it lacks {lacking}."
        )


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
    check_state(state, names)
    for name in names:
        own, value = getattr(sampling, name), state[name]
        if isinstance(own, Generator):
            own.set_state(value.cpu())
        else:
            setattr(sampling, name, value.clone() if isinstance(value, Tensor) else value)
    sampling.weight = None


def checked_replay(replay: Any) -> list[tuple[int, bool]]:
    """Refuse what is not a list of switches in the order of their steps."""
    try:
        found = [(int(step), bool(on)) for step, on in replay]
    except (TypeError, ValueError):
        found = None
    if found is None or found != sorted(found, key=lambda item: item[0]):
        raise ValueError(
            "replay must be switches of an earlier run, [step, is_active] in the order of the "
            f"steps; got {str(replay)[:60]}. Pass result.switches, or [[0, True]] for always on."
        )
    return found
