"""Networks of every kind that can be packed, with an input each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lowland.control import discretize

__all__ = ["KINDS", "trained"]


class Residual(nn.Module):
    """Convolutions in groups, sums, a pool before a norm, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.pool, self.norm3 = nn.MaxPool2d(2), nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2)
        self.head = nn.Linear(4 * 8 * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + self.norm2(self.second(x))
        x = self.up(self.norm3(self.pool(x)))
        return self.head(x.flatten(1))


class Text(nn.Module):
    """An encoder over tokens with a causal mask and a head tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=0)
        self.place = nn.Parameter(torch.randn(12, 16))
        mask = nn.Transformer.generate_square_subsequent_mask(12)
        self.register_buffer("mask", mask, persistent=False)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = self.mask[:length, :length]
        x = self.encoder(self.embedding(tokens) + self.place[:length], mask=mask)
        return self.head(x)


class Pair(nn.Module):
    """Two inputs by name, a bilinear layer, a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 5), nn.Linear(6, 5)
        self.shared, self.norm = nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5)
        self.both = nn.Bilinear(5, 5, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = torch.tanh(self.left(left)), torch.tanh(self.right(right))
        return self.both(self.norm(self.shared(left)), self.shared(right))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 130, bias=False),
        nn.BatchNorm1d(130),
        nn.ReLU(),
        nn.Linear(130, 10, bias=False),
        nn.BatchNorm1d(10, affine=False),
    )


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 6, 4, padding="same", padding_mode="circular"),
        nn.BatchNorm1d(6),
        nn.Conv1d(6, 4, 3, stride=2, dilation=2),
        nn.LayerNorm(8),
    )


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.ConvTranspose3d(3, 2, 2))


def sequences() -> nn.Module:
    """A norm over the second axis of a linear layer's output with three axes."""
    return nn.Sequential(nn.Linear(7, 9, bias=False), nn.BatchNorm1d(9), nn.Linear(7, 9))


def floats(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda rng: torch.randn(shape, generator=rng)


def tokens(rng: torch.Generator) -> Tensor:
    return torch.randint(50, (3, 12), generator=rng)


KINDS = {
    "perceptron": (perceptron, floats(9, 1, 8, 8)),
    "residual": (Residual, floats(4, 3, 8, 8)),
    "text": (Text, tokens),
    "pair": (Pair, lambda rng: {"left": floats(4, 6)(rng), "right": floats(4, 6)(rng)}),
    "signals": (signals, floats(2, 3, 20)),
    "volumes": (volumes, floats(2, 2, 4, 4, 4)),
    "one layer": (lambda: nn.Linear(5, 3), floats(2, 5)),
}


def trained(name: str, values=(-1, 0, 1), *, row_scale=False, dtype=torch.float32):
    """A network with discrete weights, norms with statistics and every sign of scale, in eval."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make, draw = KINDS[name]
        rng = torch.Generator().manual_seed(1)
        model, inputs = make(), draw(rng)
        discretize(model, values, row_scale=row_scale)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.1, 3)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
    model = model.to(dtype)
    if isinstance(inputs, dict):
        inputs = {key: value.to(dtype) for key, value in inputs.items()}
    elif inputs.is_floating_point():
        inputs = inputs.to(dtype)
    return model.eval(), inputs
