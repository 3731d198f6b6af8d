"""Cut ResNets in the manner of torchvision and timm, which are told by the names of their parts."""

from itertools import count

from torch import nn

from lowland.boosting.part import Cut, InOrder
from lowland.boosting.sequential import is_plain_sequential, only_tensor

__all__ = ["cut_resnet", "stage_blocks"]


def stage_blocks(model: nn.Module) -> list[str]:
    """Name the blocks of the stages ``layer1``, ``layer2``, and so on.

    Args:
        model: Any module.

    Returns:
        Qualified names in the order of the stages; none if there are no such stages.
    """
    names: list[str] = []
    stages = dict(model.named_children())
    for number in count(1):
        stage = stages.get(f"layer{number}")
        if stage is None or not is_plain_sequential(stage):
            break
        names += [f"layer{number}.{name}" for name, _ in stage.named_children()]
    return names


def cut_resnet(model: nn.Module) -> Cut | None:
    """Cut a ResNet in the manner of torchvision or timm.

    Both are a convolution ``conv1``, a norm ``bn1``, an activation (``relu``, in timm ``act1``), a
    ``maxpool``, stages ``layer1`` to ``layer4`` (or fewer), a pooling (``avgpool`` with a flatten
    after it, in timm ``global_pool``) and ``fc``.

    Args:
        model: Any module.

    Returns:
        The parts; None if the model has other parts than these, or drops units before ``fc``.

    Source:
        torchvision ``models/resnet.py``, timm ``models/resnet.py``.
    """
    modules = dict(model.named_children())
    act = "act1" if "act1" in modules else "relu"
    pool = "global_pool" if "global_pool" in modules else "avgpool"
    stem = ["conv1", "bn1", act, "maxpool"]
    blocks = stage_blocks(model)
    stages = {name.partition(".")[0] for name in blocks}
    if not blocks or modules.keys() != {*stem, *stages, pool, "fc"}:
        return None
    if getattr(model, "drop_rate", 0):
        return None
    head: dict[str, nn.Module] = {pool: modules[pool]}
    if pool == "avgpool":
        head["flatten"] = nn.Flatten(1)
    return Cut(
        enter=only_tensor,
        stem=InOrder("stem", {name: modules[name] for name in stem}),
        blocks=[InOrder(name, {name: model.get_submodule(name)}) for name in blocks],
        head=InOrder("head", head | {"fc": modules["fc"]}, is_head=True),
    )
