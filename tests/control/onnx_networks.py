"""Small networks of binary and ternary weights, as users leave them between float layers."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Block", "Images", "drawn", "perceptron"]

DISCRETE = (nn.Linear, nn.Embedding, nn.Bilinear, nn.modules.conv._ConvNd)
NORMS = nn.modules.batchnorm._BatchNorm


class Images(nn.Module):
    """Convolutions, one of them grouped, with norms, pooling and a residual sum."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.again = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.head = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        x = F.avg_pool2d(self.up(F.relu(x + self.again(self.grouped(x)))), 2)
        return self.head(x.flatten(1))


class Block(nn.Module):
    """An embedding and a transformer block; the head has the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 42, batch_first=True)
        self.head = nn.Linear(16, 30)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.block(self.embedding(tokens)))


def perceptron(inputs=33, hidden=42, outputs=10):
    """Linear layers with norms; no width is a multiple of 4."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, outputs),
    )  # fmt: skip


@torch.no_grad()
def drawn(model, rng, binary=()):
    """Draw ternary weights (binary ones in the layers named), and norms that fold to any sign."""
    for name, module in model.named_modules():
        if isinstance(module, DISCRETE):
            shape = module.weight.shape
            if name in binary:
                module.weight.copy_(torch.randint(2, shape, generator=rng) * 2 - 1)
            else:
                module.weight.copy_(torch.randint(-1, 2, shape, generator=rng))
        elif isinstance(module, nn.MultiheadAttention):
            shape = module.in_proj_weight.shape
            scale = torch.rand((shape[0], 1), generator=rng) + 0.5
            module.in_proj_weight.copy_(scale * torch.randint(-1, 2, shape, generator=rng))
        elif isinstance(module, NORMS):
            module.weight.normal_(generator=rng)
            module.bias.normal_(generator=rng)
            module.running_mean.normal_(generator=rng)
            module.running_var.uniform_(0.5, 2, generator=rng)
    return model
