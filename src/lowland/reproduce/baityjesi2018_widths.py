"""Train many widths and seeds of one hidden layer at once (claim C13)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from lowland.reproduce.baityjesi2018_settings import Widths
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images
from lowland.results import plain
from lowland.training import train

__all__ = ["Together", "scan_widths"]


class Together(nn.Module):
    """Perceptrons with one hidden layer, side by side.

    Units that a narrow one does not have are zero with all their weights, and stay so: neither
    their inputs nor their outputs get a gradient.

    Args:
        inputs: Numbers of an example.
        widths: Hidden units of each network.
        classes: Number of classes.
        seeds: Of the weights of each network, which are torch's own.
    """

    def __init__(self, inputs: int, widths: list[int], classes: int, seeds: list[int]):
        super().__init__()
        count, most = len(widths), max(widths)
        first, second = torch.zeros(count, inputs + 1, most), torch.zeros(count, most + 1, classes)
        with torch.random.fork_rng(devices=[]):
            for number, (width, seed) in enumerate(zip(widths, seeds, strict=True)):
                torch.default_generator.manual_seed(seed)
                for weights, layer in (
                    (first[number, :, :width], nn.Linear(inputs, width)),
                    (second[number], nn.Linear(width, classes)),
                ):
                    fan_in = layer.in_features
                    weights[:fan_in] = layer.weight.detach().T
                    weights[-1] = layer.bias.detach()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, images: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch nets classes"]:
        """Give the logits of all networks.

        Args:
            images: Of any shape; flattened.

        Returns:
            Logits.
        """
        x = images.flatten(1).expand(len(self.first), -1, -1)
        hidden = torch.baddbmm(self.first[:, -1:], x, self.first[:, :-1]).relu()
        return torch.baddbmm(self.second[:, -1:], hidden, self.second[:, :-1]).transpose(0, 1)


def losses_of_all(output: Tensor, target: Tensor) -> Tensor:
    """Sum over networks, so that each moves as if it were alone."""
    return each(output, target).sum(1)


def each(output: Tensor, target: Tensor) -> Float[Tensor, "batch nets"]:
    """Cross-entropy of every network."""
    targets = target.unsqueeze(1).expand(output.shape[:2])
    return cross_entropy(output.transpose(1, 2), targets, reduction="none")


def scan_widths(widths: Widths, images: Images, display: Any = False) -> list[dict[str, Any]]:
    """Train every width.

    Args:
        widths: What to do.
        images: Its data.
        display: Progress display.

    Returns:
        One dict per width and seed: first and last loss, and the share of wrong examples.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    nets = [(width, seed) for width in widths.widths for seed in range(widths.seeds)]
    inputs = images.train[0][0].numel()
    model = Together(inputs, [w for w, _ in nets], images.classes, [s for _, s in nets])
    model.to(images.device)
    before = measured(model, images)
    result = train(
        model,
        losses_of_all,
        images.training(0),
        steps=widths.steps,
        optimizer=lambda params: SGD(params, widths.learning_rate),
        evaluate_every=10**9,
        progress=display,
    )
    pass_ctrl_c_on(result.status)
    after = measured(model, images)
    found = [
        {"width": width, "seed": seed, "params": (inputs + 1 + images.classes) * width
         + images.classes, "first": float(first), "last": float(last), "error": float(error)}
        for (width, seed), first, last, error in zip(nets, before[0], *after, strict=True)
    ]  # fmt: skip
    return plain(found)


@torch.no_grad()
def measured(model: nn.Module, images: Images) -> tuple[Tensor, Tensor]:
    """Mean loss and error of every network."""
    losses, wrong, count = torch.zeros(()), torch.zeros(()), 0
    for inputs, target in images.reading:
        output = model(inputs)
        losses = losses + each(output, target).double().sum(0).cpu()
        wrong = wrong + (output.argmax(2) != target.unsqueeze(1)).double().sum(0).cpu()
        count += len(target)
    return losses / count, wrong / count
