"""Tiny networks and data of every kind that a user may bring, and what must not change of them."""

import random
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lowland.connectivity import Cycle, Schedule
from lowland.params import call

# Three short cycles: insert evenly, insert on bumps, slow down.
SHORT = Schedule(
    (Cycle(6, 0.1, insert="equal", count=2), Cycle(6, 0.1, count=1), Cycle(4, 0.01, count=1)),
    threshold=0.0,
    samples=2,
    examples=24,
    calibration=24,
)


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example, spelled out: torch's own takes vmap seconds to load."""
    return output.logsumexp(1) - output.gather(1, target.unsqueeze(1)).squeeze(1)


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Squared error of each example of a regression."""
    return (output.squeeze(1) - target).square()


def class_batches(
    *shape: int, sizes: tuple[int, ...] = (8, 8, 8), classes: int = 3, dtype=torch.float32, seed=0
) -> list[tuple[Tensor, Tensor]]:
    """Random inputs whose class depends on them; a list can be read again and again."""
    draws = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(size, *shape, dtype=dtype, generator=draws) for size in sizes]
    return [(x, x.flatten(1).abs().argmax(1) % classes) for x in inputs]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def norm_mlp() -> nn.Module:
    """Two batch norms; their statistics start away from 0 and 1, as after training."""
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5), nn.BatchNorm1d(5),
        nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    for layer in (model[1], model[4]):
        nn.init.normal_(layer.running_mean, 0, 0.5)
        nn.init.uniform_(layer.running_var, 0.5, 2)
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias, 0, 0.3)
        layer.num_batches_tracked.fill_(17)
    return model


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip


def group_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, 3))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))


class Tied(nn.Module):
    """One weight under two names, a frozen layer, and a scalar parameter."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4, bias=False)
        self.again.weight = self.inner.weight
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.outer = nn.Linear(4, 3)
        self.outer.requires_grad_(requires_grad=False)
        nn.init.ones_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.outer.weight.data[0] = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.again(torch.tanh(self.inner(x)))) * self.scale)


class Named(nn.Module):
    """Takes two inputs by name or by place."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 5), nn.Linear(2, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out(torch.tanh(self.left(left) + self.right(right)))


class Branching(nn.Module):
    """A forward pass that depends on its values: no batching rule can run it."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else 2 * x


def two(
    make: Callable[[], nn.Module], dtype=torch.float32, batches=(), loss_fn=losses
) -> tuple[nn.Module, ...]:
    """Two networks from different seeds; with batches they have learned them.

    Only then is there a hill between them, and a path lower than the straight line.
    """
    with torch.random.fork_rng(devices=[]):
        nets = tuple(seeded(make, seed).to(dtype) for seed in (1, 2))
        for net in nets if batches else ():
            train(net, batches, loss_fn)
    return nets


def train(model: nn.Module, batches, loss_fn, steps: int = 200) -> None:
    """Gradient descent with momentum."""
    params = [p for p in model.parameters() if p.requires_grad]
    velocity = [torch.zeros_like(p) for p in params]
    for step in range(steps):
        inputs, target = batches[step % len(batches)]
        grads = torch.autograd.grad(loss_fn(call(model, inputs), target).mean(), params)
        torch._foreach_mul_(velocity, 0.9)
        torch._foreach_add_(velocity, grads)
        with torch.no_grad():
            torch._foreach_add_(params, velocity, alpha=-0.1)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def snapshot(model: nn.Module) -> dict[str, object]:
    """Everything about a module that a search for a path must leave as it is."""
    named = [*model.named_parameters(remove_duplicate=False)]
    return {
        "identities": {name: (id(p), id(p.grad), p.requires_grad) for name, p in named},
        "buffers": {name: id(b) for name, b in model.named_buffers(remove_duplicate=False)},
        "bits": {name: value.clone() for name, value in model.state_dict().items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in named},
        "modules": {
            name: (
                module.training,
                getattr(module, "momentum", None),
                *(list(hooks) for name, hooks in vars(module).items() if name.endswith("_hooks")),
            )
            for name, module in model.named_modules()
        },
    }


def generators() -> dict[str, object]:
    """States of the global generators; a type checker draws from Python's itself."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    states = {"torch": torch.get_rng_state(), "numpy": [name, keys.tolist(), *rest]}
    return states if "beartype" in sys.modules else states | {"python": random.getstate()}


def same(a: object, b: object) -> bool:
    """Whether nested values agree, tensors bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
