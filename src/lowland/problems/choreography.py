"""How two hidden units change places without the network noticing, if a third one is idle."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["choreography", "swap_units"]

State = Mapping[str, Tensor]


def choreography(
    state: State,
    first: int,
    second: int,
    spare: int,
    *,
    inner: str = "0",
    outer: str = "2",
) -> list[dict[str, Tensor]]:
    r"""Walk from a network to the same one with two hidden units swapped, at constant loss.

    A unit whose outgoing weights are zero may take any incoming weights; two units with equal
    incoming weights may share their outgoing weights as they like. With a spare unit :math:`s`,
    whose outgoing weights are zero, seven straight segments are enough::

        in(s)  <- in(b)              s becomes a copy of b
        out(s) <- out(b), out(b) <- 0    and takes its part
        in(b)  <- in(a)              b becomes a copy of a
        out(b) <- out(a), out(a) <- 0    and takes its part
        in(a)  <- in(s)              a becomes a copy of s, which is what b was
        out(a) <- out(s), out(s) <- 0    and takes its part
        in(s)  <- what it was

    The output of the network does not change on the whole way, on any data, up to rounding.

    Args:
        state: State dict of a network with a hidden layer between two linear ones, and anything
            that acts on each hidden unit alone (ReLU, tanh) in between.
        first: The hidden unit a.
        second: The hidden unit b.
        spare: The idle hidden unit s.
        inner: Name of the linear layer that feeds the hidden units.
        outer: Name of the one that reads them.

    Returns:
        Eight state dicts: the state, then the end of each segment. The last one is
        :func:`swap_units` of the state, bit for bit.

    Raises:
        ValueError: If the units are not three different ones, or the spare one is not idle.

    Source:
        Draxler et al., ICML 2018, section 5 and Fig. 8, in the form of no_barriers, section 7.4.
    """
    check_units(state, (first, second, spare), inner, outer)
    if state[f"{outer}.weight"][:, spare].any():
        raise ValueError(
            f"the spare unit must have zero outgoing weights; those of unit {spare} in "
            f"{outer}.weight are not all zero. Choose an idle unit, or set them to zero."
        )
    path = [copy(state)]
    for taker, giver in ((spare, second), (second, first), (first, spare)):
        path.append(with_incoming(path[-1], taker, path[-1], giver, inner))
        path.append(with_outgoing_moved(path[-1], giver, taker, outer))
    path.append(with_incoming(path[-1], spare, state, spare, inner))
    return path


def swap_units(
    state: State, first: int, second: int, *, inner: str = "0", outer: str = "2"
) -> dict[str, Tensor]:
    """Exchange two hidden units, incoming and outgoing weights: another point, one function.

    Args:
        state: State dict, see :func:`choreography`.
        first: A hidden unit.
        second: Another one.
        inner: Name of the linear layer that feeds the hidden units.
        outer: Name of the one that reads them.

    Returns:
        The state dict of the permuted network.

    Raises:
        ValueError: If the units are not two different ones.
    """
    check_units(state, (first, second), inner, outer)
    swapped = copy(state)
    here, there = [first, second], [second, first]
    for name in incoming(state, inner):
        swapped[name][here] = state[name][there]
    swapped[f"{outer}.weight"][:, here] = state[f"{outer}.weight"][:, there]
    return swapped


def with_incoming(
    state: State, taker: int, source: State, giver: int, inner: str
) -> dict[str, Tensor]:
    """Give a unit the incoming weights and bias that another one has in ``source``."""
    new = copy(state)
    for name in incoming(state, inner):
        new[name][taker] = source[name][giver]
    return new


def with_outgoing_moved(state: State, giver: int, taker: int, outer: str) -> dict[str, Tensor]:
    """Hand all outgoing weights of a unit to an idle one."""
    new = copy(state)
    weight = new[f"{outer}.weight"]
    weight[:, taker] = weight[:, giver]
    weight[:, giver] = 0
    return new


def incoming(state: State, inner: str) -> list[str]:
    """Name the tensors with one row per hidden unit."""
    return [name for name in (f"{inner}.weight", f"{inner}.bias") if name in state]


def copy(state: State) -> dict[str, Tensor]:
    """Copy a state dict and its tensors."""
    return {name: value.detach().clone() for name, value in state.items()}


def check_units(state: State, units: tuple[int, ...], inner: str, outer: str) -> None:
    """Refuse layers that do not fit and units that do not exist or coincide."""
    for name in (f"{inner}.weight", f"{outer}.weight"):
        if name not in state:
            raise ValueError(
                f"the state dict must hold {name!r}; it holds {', '.join(state)}. "
                "Name the two linear layers with inner= and outer=."
            )
    width = len(state[f"{inner}.weight"])
    if state[f"{outer}.weight"].shape[1:] != (width,):
        raise ValueError(
            f"{outer}.weight must read the {width} units of {inner}.weight; "
            f"got shape {tuple(state[f'{outer}.weight'].shape)}."
        )
    if len(set(units)) < len(units) or not all(0 <= unit < width for unit in units):
        raise ValueError(f"the units must be different ones of 0 to {width - 1}; got {units}.")
