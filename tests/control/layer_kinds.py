"""Layers and small models of every kind, on which costates and products meet autograd."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ALL", "CONVOLUTIONS", "EVEN", "LINEAR", "Attention", "Two", "made"]


class Residual(nn.Module):
    """Functions, a branch that is read twice, a product and a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.1]))

    def forward(self, x):
        h = x + 0.25 * torch.tanh(self.first(x))
        h = torch.cat([h, F.relu(h - self.second(h) * self.scale)], dim=1)
        return h.view(len(x), 2, -1).mean(1)


class Shared(nn.Module):
    """A layer that is used three times, and its weight once more under another name."""

    def __init__(self):
        super().__init__()
        self.fc, self.again = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.again.weight = self.fc.weight

    def forward(self, x):
        x = self.fc(torch.tanh(self.fc(x)))
        return self.again(torch.tanh(x)) + F.linear(x, self.fc.weight)


class Two(nn.Module):
    """Two inputs, by place or by name, and an option that is not given."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 5), nn.Linear(2, 5), nn.Bilinear(5, 5, 2)

    def forward(self, left, right, mask=None):
        left, right = torch.tanh(self.left(left)), self.right(right)
        if mask is not None:
            left = left * mask
        return self.out(left, right)


class Attention(nn.Module):
    """Positions, attention, a recurrent layer that returns several tensors, layer norm."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4, padding_idx=0), nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=True)
        self.memory = nn.LSTM(4, 3, batch_first=True)

    def forward(self, words):
        x = self.words(words) + self.places(torch.arange(words.shape[1]))
        x = x + self.attention(x, x, x)[0]
        steps, (last, _) = self.memory(self.encoder(x))
        return steps.max(dim=1).values + last[0]


class InPlace(nn.Module):
    """What networks for images do to save memory."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True)
        self.drop, self.last = nn.Dropout(0.4, inplace=True), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        h = self.act(self.conv(x) - 0.1)
        out = self.last(h)
        out += h
        F.relu(out, inplace=True)
        result = torch.zeros_like(out)
        result[:, 1:] = self.drop(out + 0.1)[:, 1:]
        return result.mul_(2)


class Normalized(nn.Module):
    """A control that is used through a function of it, and one that is parametrized."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))

    def forward(self, x):
        unit = self.weight / self.weight.norm(dim=1, keepdim=True)
        return self.fc(torch.tanh(x @ unit.T)) + unit[:3, 0]


def normed(layer, *shape):
    """A norm in the middle, with scale and offset away from 1 and 0."""
    for value in layer.parameters():
        nn.init.normal_(value, 0.5, 1)
    return nn.Sequential(nn.Tanh(), layer, nn.Softplus())


def evaluating(layer, *_):
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    return normed(layer).eval()


IMAGE, LINE, CUBE, FLAT = (4, 4, 7, 6), (4, 4, 9), (3, 2, 4, 5, 4), (5, 4)
CONVOLUTIONS = {
    "1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, dilation=2, padding=3, groups=2), LINE),
    "2d": (lambda: nn.Conv2d(4, 6, 3), IMAGE),
    "asymmetric": (lambda: nn.Conv2d(4, 6, (2, 3), (3, 1), (2, 0), (1, 2), groups=2), IMAGE),
    "same": (lambda: nn.Conv2d(4, 3, (2, 4), padding="same", dilation=(1, 1)), IMAGE),
    "valid": (lambda: nn.Conv2d(4, 3, 2, stride=2, padding="valid", bias=False), IMAGE),
    "circular": (lambda: nn.Conv2d(4, 4, 3, padding=(1, 2), padding_mode="circular"), IMAGE),
    "reflect": (lambda: nn.Conv2d(4, 4, 3, 2, padding=2, padding_mode="reflect"), IMAGE),
    "replicate": (lambda: nn.Conv2d(4, 4, 2, padding="same", padding_mode="replicate"), IMAGE),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), IMAGE),
    "3d": (lambda: nn.Conv3d(2, 4, (1, 2, 3), (2, 1, 1), (0, 1, 0), groups=2), CUBE),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2), LINE),
    "transposed 2d": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, dilation=(2, 1)),
        IMAGE,
    ),
    "transposed dilated": (lambda: nn.ConvTranspose2d(4, 2, 2, 1, 0, 1, dilation=3), IMAGE),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 2, 2, 2, bias=False), CUBE),
}
LINEAR = {
    "linear": (lambda: nn.Linear(4, 3), FLAT),
    "linear along axes": (lambda: nn.Linear(4, 3, bias=False), (3, 2, 5, 4)),
    "chain": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), FLAT),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 3)), FLAT
    ),
    "batch norm": (lambda: normed(nn.BatchNorm1d(4)), FLAT),
    "batch norm of images": (lambda: normed(nn.BatchNorm2d(4)), IMAGE),
    "batch norm in eval mode": (lambda: evaluating(nn.BatchNorm2d(4)), IMAGE),
    "batch norm without statistics": (
        lambda: normed(nn.BatchNorm1d(4, track_running_stats=False)).eval(), FLAT
    ),
    "instance norm": (lambda: normed(nn.InstanceNorm2d(4, affine=True)), IMAGE),
    "layer norm": (lambda: normed(nn.LayerNorm((7, 6))), IMAGE),
    "group norm": (lambda: normed(nn.GroupNorm(2, 4)), IMAGE),
    "rms norm": (lambda: normed(nn.RMSNorm(4)), FLAT),
    "prelu": (lambda: nn.Sequential(nn.PReLU(4), nn.PReLU()), IMAGE),
    "shared": (Shared, FLAT),
}  # fmt: skip
OTHERS = {
    "pooling": (
        lambda: nn.Sequential(
            nn.MaxPool2d(2), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ELU()
        ),
        IMAGE,
    ),
    "activations": (
        lambda: nn.Sequential(
            nn.GELU(), nn.SiLU(), nn.LeakyReLU(), nn.Softmax(1), nn.Sigmoid(), nn.Hardtanh()
        ),
        FLAT,
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 2)), FLAT),
    "residual": (Residual, FLAT),
    "in place": (InPlace, (3, 2, 4, 4)),
    "normalized weight": (Normalized, FLAT),
}
EVEN = "ignore:Using padding='same' with even kernel lengths:UserWarning"
ALL = CONVOLUTIONS | LINEAR | OTHERS


def made(kind, seed=0):
    """A model of a kind in float64, inputs and a target."""
    make, shape = ALL[kind]
    torch.manual_seed(seed)
    model = make().double()
    return model, torch.randn(*shape, dtype=torch.float64), torch.rand(shape[0]).double() + 0.5
