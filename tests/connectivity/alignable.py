"""Networks of every kind whose units can be permuted, with data for each."""

import torch
from torch import nn
from torch.nn.functional import gelu, relu
from torch.nn.utils import parametrize

from lowland.models import build, lstm


def named(name, *shape):
    return lambda: build(name, in_shape=shape, classes=5, seed=int(torch.randint(1000, ())))


class Recurrent(nn.Module):
    """Two layers, both directions."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 6, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.out = nn.Linear(12, 5)

    def forward(self, x):
        _, states = self.rnn(x.flatten(1, 2))
        return self.out(torch.cat([states[-2], states[-1]], 1))


class VisionTransformer(nn.Module):
    """Patches, a class token, and torch's own encoder."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 5, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.encoder(x))[:, 0])


class Block(nn.Module):
    """Causal attention and a perceptron, written out."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.norm, self.after = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.register_buffer("causal", torch.ones(8, 8).tril().view(1, 1, 8, 8))

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm(x)).split(width, 2)
        )
        scores = q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5
        hidden = self.causal[:, :, :length, :length] == 0
        scores = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        x = x + self.proj((scores @ v).transpose(1, 2).contiguous().view(batch, length, width))
        return x + self.down(gelu(self.up(self.after(x))))


class Language(nn.Module):
    """A GPT whose embedding is its output layer."""

    def __init__(self):
        super().__init__()
        self.token, self.place = nn.Embedding(11, 16), nn.Embedding(8, 16)
        self.blocks = nn.ModuleList([Block(16, 4), Block(16, 4)])
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 11, bias=False)
        self.head.weight = self.token.weight

    def forward(self, index):
        x = self.token(index) + self.place(torch.arange(index.shape[1], device=index.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LowRank(nn.Module):
    """What an adapter adds to a weight."""

    def __init__(self, outputs, inputs, rank=3):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs))
        self.up = nn.Parameter(torch.randn(outputs, rank))

    def forward(self, weight):
        return weight + self.up @ self.down


def adapters():
    """A frozen network, and adapters on all of its weights."""
    model = perceptron().requires_grad_(requires_grad=False)
    for layer in (model[0], model[2], model[4]):
        parametrize.register_parametrization(layer, "weight", LowRank(*layer.weight.shape))
    return model


def perceptron():
    return nn.Sequential(
        nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 5)
    )


def frozen_trunk():
    model = perceptron()
    model[0].requires_grad_(requires_grad=False)
    return model


class Extra(nn.Module):
    """Buffers of all kinds, a scalar parameter, and one that is never used."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 12), nn.Linear(12, 5)
        self.scale, self.unused = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.randn(3))
        self.register_buffer("mask", torch.arange(12) % 3 > 0)
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("order", torch.randperm(8))
        self.register_buffer("table", torch.linspace(0.5, 1, 8), persistent=False)

    def forward(self, x):
        x = x[:, self.order] * self.table
        return self.outer(relu(self.inner(x)) * self.mask) * self.scale


def vgg():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(), nn.Linear(48, 16), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(16, 5),
    )  # fmt: skip


def norms():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(1, 8),
        nn.ReLU(), nn.Conv2d(8, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 10), nn.LayerNorm(10), nn.GELU(), nn.Linear(10, 5),
    )  # fmt: skip


def grouped():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


IMAGES, ROWS = (3, 8, 8), (8,)

# Name to the model, the shape of its inputs (None for tokens), and how many groups it has.
MODELS = {
    "mlp with batch norm": (named("mlp-bn-64-32-32-5", 1, 8, 8), (1, 8, 8), 2),
    "resnet": (named("resnet-8", *IMAGES), IMAGES, 6),
    "padded resnet": (named("pad-resnet-26", *IMAGES), IMAGES, 15),
    "densenet": (named("densenet-10-4", *IMAGES), IMAGES, 9),
    "vgg": (vgg, IMAGES, 3),
    "gru": (Recurrent, (1, 4, 8), 4),
    "lstm": (lambda: lstm("rows", 6, 5, (1, 8, 8)), (1, 8, 8), 1),
    "vision transformer": (VisionTransformer, IMAGES, 7),
    "gpt": (Language, None, 9),
    "frozen trunk": (frozen_trunk, ROWS, 2),
    "adapters": (adapters, ROWS, 5),
    "norms": (norms, IMAGES, 5),
    "extra buffers": (Extra, ROWS, 1),
    "grouped convolution": (grouped, IMAGES, 1),
}


def network(name, seed=0):
    """A network whose units all differ, as after training, and batches for it."""
    make, shape, _ = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            for key, buffer in model.named_buffers():
                if key.endswith(("running_mean", "running_var")):
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
        torch.manual_seed(7)
        tokens = torch.randint(11, (8, 7))
        inputs = tokens if shape is None else torch.randn(8, *shape)
    return model, [(inputs, torch.arange(8) % 5)]
