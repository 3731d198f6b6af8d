"""Refuse what nothing can be done with, in words: what must hold, what came, what to do."""

from collections.abc import Iterable
from math import inf
from numbers import Integral, Real
from typing import Any

from torch import nn

__all__ = [
    "refuse_no_model",
    "refuse_no_momentum",
    "refuse_no_number",
    "refuse_no_rate",
    "refuse_no_whole",
    "refuse_unknown",
]


def refuse_unknown(choices: Iterable[str], **values: Any) -> None:
    """Refuse names that are none of those there are.

    Args:
        choices: Two or more names.
        **values: Values by the name of their argument.

    Raises:
        ValueError: If one of them is something else.
    """
    *most, last = choices
    for name, value in values.items():
        if value not in [*most, last]:
            known = f"{', '.join(map(repr, most))} or {last!r}"
            raise ValueError(f"{name} must be {known}; got {value!r}.")


def refuse_no_whole(least: int, **values: Any) -> None:
    """Refuse counts that are no whole numbers.

    Args:
        least: The smallest that is allowed.
        **values: Values by the name of their argument.

    Raises:
        ValueError: If one of them is something else, or smaller.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(
                f"{name} must be a whole number, at least {least}; got {value!r}. Pass an int."
            )


def refuse_no_number(**values: Any) -> None:
    """Refuse amounts that are no numbers, not finite, or below zero.

    Args:
        **values: Values by the name of their argument.

    Raises:
        ValueError: If one of them is so.
    """
    for name, value in values.items():
        if not isinstance(value, Real) or not 0 <= float(value) < inf:
            raise ValueError(
                f"{name} must be a finite number, zero or more; got {value!r}. Pass a float."
            )


def refuse_no_rate(learning_rate: Any) -> None:
    """Refuse what no step can be taken with.

    Args:
        learning_rate: Must be above zero.

    Raises:
        ValueError: If it is not, or no finite number.
    """
    if not isinstance(learning_rate, Real) or not 0 < float(learning_rate) < inf:
        raise ValueError(
            f"learning_rate must be positive and finite; got {learning_rate!r}. Begin with 0.1."
        )


def refuse_no_momentum(momentum: Any) -> None:
    """Refuse what no step can remember with.

    Args:
        momentum: Must lie from 0 to below 1.

    Raises:
        ValueError: If it does not, or is no number.
    """
    refuse_no_number(momentum=momentum)
    if not momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1); got {momentum}. Take 0.9.")


def refuse_no_model(model: Any, place: str) -> None:
    """Refuse what is no architecture.

    Args:
        model: Must be a module.
        place: Arguments that checkpoints belong into.

    Raises:
        TypeError: If it is something else.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, the architecture; got a {type(model).__name__}. "
            f"Checkpoints belong into {place}."
        )
