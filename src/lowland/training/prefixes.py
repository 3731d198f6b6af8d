"""What stands before the names of a checkpoint: the wrappers and modules that held the network."""

from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["COUNTER", "among", "holders", "short_names", "without_prefix"]

PREFIXES = ("_orig_mod.", "module.", "model.")  # torch.compile, DataParallel, Lightning

# torch.optim.swa_utils.AveragedModel counts its updates beside the weights, without their prefix.
COUNTER = "n_averaged"


def without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes that wrappers add to every name.

    Args:
        tensors: Tensors by name.

    Returns:
        The same tensors by what is left of their names.
    """
    return {short: tensors[name] for name, short in short_names(tensors).items()}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Find what is left of each name without the prefixes that all names but a counter share.

    Args:
        names: Of a state dict.

    Returns:
        Each name with what is left of it.
    """
    short = {name: name for name in names}
    while others := [rest for rest in short.values() if rest != COUNTER]:
        shared = next((p for p in PREFIXES if all(rest.startswith(p) for rest in others)), None)
        is_taken = len(others) < len(short) and f"{shared}{COUNTER}" in others
        if shared is None or is_taken:
            break
        short = {name: rest.removeprefix(shared) for name, rest in short.items()}
    return short


def holders(names: Iterable[str], inner: Iterable[str], optional: Iterable[str] = ()) -> list[str]:
    """Find the prefixes under which all inner names stand among names.

    Args:
        names: Of a state dict that may hold another one.
        inner: Of that one.
        optional: Those of them that need not be there; if all are, one must.

    Returns:
        The prefixes, each ending in a dot.
    """
    known, inner, optional = set(names), list(inner), set(optional)
    wanted = [name for name in inner if name not in optional]
    first = wanted[:1] or inner  # where all are optional, any of them will do
    starts = {n.removesuffix(end) for n in known for end in first if n.endswith("." + end)}
    return [start for start in sorted(starts) if all(start + name in known for name in wanted)]


def among(held: list[str]) -> str:
    """Say how to take one network out of a state that holds more.

    Args:
        held: Prefixes under which it stands there.

    Returns:
        A sentence behind others, empty where it stands nowhere.
    """
    if not held:
        return ""
    return (
        f" Its names stand there under {' and '.join(held)} beside others: pass "
        f'{{name.removeprefix("{held[0]}"): value for name, value in read_state(file).items() '
        f'if name.startswith("{held[0]}")}}.'
    )
