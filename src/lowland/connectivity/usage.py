"""Which operations of a forward pass its outputs depend on."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lowland.training import tensors_in

__all__ = ["Mode", "Usage", "by_name", "storage", "written_by"]


class Mode(TorchDispatchMode):
    """Sees every operation; the compiler, which takes seconds to load, is not asked about it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Usage(Mode):
    """Counts operations, and finds those that the outputs do not depend on.

    Attributes:
        live: Numbers of the operations that matter, after :meth:`finish`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[set[int], set[int]]] = []
        self.kept: list[Any] = []  # so that no storage is used for another tensor
        self.live: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and remember what it read and wrote."""
        given = by_name(func, args, kwargs or {})
        out = func(*args, **(kwargs or {}))
        read = {storage(t) for t in tensors_in(given)}
        made = {storage(t) for t in [*tensors_in(out), *written_by(func, given)]}
        self.kept.append((given, out))
        self.events.append((read, made))
        return out

    def finish(self, outputs: Any) -> None:
        """Go back from the outputs.

        Args:
            outputs: What the model returned.
        """
        needed = {storage(tensor) for tensor in tensors_in(outputs)}
        for number in range(len(self.events) - 1, -1, -1):
            read, made = self.events[number]
            if made & needed or not made:  # a number may decide what is done next
                self.live.add(number)
                needed |= read
        self.kept.clear()


def storage(tensor: Tensor) -> int:
    """Where the numbers of a tensor lie, of views too."""
    return tensor.untyped_storage()._cdata


def by_name(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Name the arguments of an operation, with their defaults."""
    schema = func._schema.arguments
    given = {arg.name: arg.default_value for arg in schema if arg.has_default_value()}
    given |= dict(zip((arg.name for arg in schema), args, strict=False))
    return given | kwargs


def written_by(func: Any, given: Mapping[str, Any]) -> list[Tensor]:
    """List the tensors that an operation writes into."""
    return [
        tensor
        for arg in func._schema.arguments
        if arg.alias_info is not None and arg.alias_info.is_write
        for tensor in tensors_in(given.get(arg.name))
    ]
