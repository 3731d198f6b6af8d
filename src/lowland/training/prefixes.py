"""What stands before the names of a checkpoint: the wrappers and modules that held the network."""

from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["among", "holders", "short_names", "without_prefix"]

PREFIXES = ("_orig_mod.", "module.", "model.")  # torch.compile, DataParallel, Lightning


def without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes that wrappers add to every name.

    Args:
        tensors: Tensors by name.

    Returns:
        The same tensors by what is left of their names.
    """
    return {short: tensors[name] for name, short in short_names(tensors).items()}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Find what is left of each name without the prefixes that all names share.

    Args:
        names: Of a state dict.

    Returns:
        Each name with what is left of it.
    """
    # torch.optim.swa_utils.AveragedModel counts its updates beside the weights
    short = {name: name for name in names if name != "n_averaged"}
    while short:
        shared = next((p for p in PREFIXES if all(s.startswith(p) for s in short.values())), None)
        if shared is None:
            break
        short = {name: rest.removeprefix(shared) for name, rest in short.items()}
    return short


def holders(names: Iterable[str], inner: Iterable[str], optional: Iterable[str] = ()) -> list[str]:
    """Find the prefixes under which all inner names stand among names.

    Args:
        names: Of a state dict that may hold another one.
        inner: Of that one.
        optional: Those of them that need not be there.

    Returns:
        The prefixes, each ending in a dot.
    """
    known, inner, optional = set(names), list(inner), set(optional)
    wanted = [name for name in inner if name not in optional] or inner
    if not wanted:
        return []
    first = wanted[0]
    starts = sorted(name.removesuffix(first) for name in known if name.endswith("." + first))
    return [start for start in starts if all(start + name in known for name in wanted)]


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
