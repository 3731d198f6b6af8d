"""What a finished round leaves in its folder, so that a killed run does not train it again."""

from pathlib import Path

from torch import nn

from lowland.boosting.result import Round
from lowland.results import read_json, read_tensors, write_json, write_tensors

__all__ = ["keep_round", "kept_round"]

WEIGHTS, ROUND = "weights.safetensors", "round.json"


def keep_round(folder: Path, found: Round, module: nn.Module, head: nn.Module) -> None:
    """Write a round that is finished; its numbers come last and say that it is whole.

    Args:
        folder: Of the round.
        found: Its numbers.
        module: What it trained, as it is to stay.
        head: Its head.
    """
    write_tensors(folder / WEIGHTS, nn.ModuleList([module, head]).state_dict())
    write_json(folder / ROUND, found)


def kept_round(folder: Path | None, module: nn.Module, head: nn.Module) -> Round | None:
    """Read a round that was finished before.

    Args:
        folder: Of the round, or None.
        module: Gets its weights.
        head: Likewise.

    Returns:
        Its numbers, None if it was not finished.
    """
    if folder is None or not (folder / ROUND).exists():
        return None
    weights, _ = read_tensors(folder / WEIGHTS)
    nn.ModuleList([module, head]).load_state_dict(weights)
    return Round(**read_json(folder / ROUND))
