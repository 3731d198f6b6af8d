"""Numbers on their way from the device, which nobody waits for before they are needed."""

import torch
from torch import Tensor

__all__ = ["Reading"]


class Reading:
    """Numbers on their way from the device; reading them waits for these numbers only."""

    def __init__(self, numbers: Tensor):
        self.event = None
        self.host = numbers.detach()
        if numbers.device.type == "cuda":
            self.host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self.host.copy_(numbers.detach(), non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def values(self) -> Tensor:
        """The numbers, on the CPU."""
        if self.event is not None:
            self.event.synchronize()
        return self.host.cpu()
