"""Small networks built as torchvision, timm and transformers build theirs."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F


class Basic(nn.Module):
    """A basic block: ReLU after the sum, in place."""

    def __init__(self, channels, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


def stage(channels, width, stride):
    return nn.Sequential(Basic(channels, width, stride), Basic(width, width))


class VisionResNet(nn.Module):
    """The layout of torchvision."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1, self.layer2 = stage(4, 4, 1), stage(4, 6, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class TimmResNet(nn.Module):
    """The layout of timm."""

    def __init__(self, drop_rate=0.0):
        super().__init__()
        self.drop_rate = drop_rate
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1, self.layer2 = stage(4, 4, 1), stage(4, 6, 2)
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        x = self.global_pool(self.layer2(self.layer1(x)))
        if self.drop_rate:
            x = F.dropout(x, self.drop_rate, self.training)
        return self.fc(x)


class PlainResNet(nn.Module):
    """Functions where the others have modules; no pooling before the blocks."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1, self.layer2 = stage(4, 4, 1), stage(4, 6, 2)
        self.linear = nn.Linear(6, 5)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.linear(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


class PreNorm(nn.Module):
    """A block of a vision transformer."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.drop = nn.Dropout(0.1)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))

    def forward(self, x):
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Class token and positions are parameters of the model; a batch norm in the embedding."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6))
        self.cls_token = nn.Parameter(torch.randn(1, 1, 6))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 6))
        self.unused = nn.Parameter(torch.randn(2))
        self.blocks = nn.Sequential(*[PreNorm(6) for _ in range(3)])
        self.norm = nn.LayerNorm(6)
        self.gain = nn.Parameter(torch.randn(6))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        x = F.dropout(x, 0.5, self.training)
        return self.head(self.gain * self.norm(self.blocks(x))[:, 0])


class Layer(nn.Module):
    """A layer of an encoder: returns a tuple."""

    def __init__(self, width):
        super().__init__()
        self.attention, self.norm = Attention(width), nn.LayerNorm(width)
        self.dense = nn.Linear(width, width)

    def forward(self, hidden_states, attention_mask=None, positions=None, cache=None, wants=False):
        if cache is not None:
            cache.append(hidden_states)
        x = hidden_states + positions[0]
        x = self.norm(x + self.attention(x, attention_mask))
        return (F.gelu(self.dense(x)) + x,) + ((x,) if wants else ())


class Embeddings(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.words, self.dropout = nn.Embedding(11, width, padding_idx=0), nn.Dropout(0.1)

    def forward(self, input_ids):
        return self.dropout(self.words(input_ids))


class Encoder(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.layer = nn.ModuleList([Layer(width) for _ in range(depth)])

    def forward(self, hidden, mask, positions, cache):
        for layer in self.layer:
            hidden = layer(
                hidden, attention_mask=mask, positions=positions, cache=cache, wants=False
            )[0]
        return hidden


class Classifier(nn.Module):
    """A text classifier that reads its logits at the last token which is no padding."""

    def __init__(self, width=6, depth=3):
        super().__init__()
        self.config = SimpleNamespace(use_cache=True)
        self.embeddings = Embeddings(width)
        self.encoder = Encoder(width, depth)
        self.score = nn.Linear(width, 4, bias=False)
        self.register_buffer("angles", torch.linspace(0, 1, 7)[:, None].expand(7, width).clone())
        self.drops_mask = False

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        hidden = self.embeddings(input_ids)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, :]
        if mask is not None and self.drops_mask and mask.all():
            mask = None
        cache = [] if (self.config.use_cache if use_cache is None else use_cache) else None
        positions = (self.angles[: input_ids.shape[1]].to(hidden.dtype),)
        hidden = self.encoder(hidden, mask, positions, cache)
        last = (input_ids != 0).sum(1) - 1
        logits = self.score(hidden)[torch.arange(len(hidden)), last]
        return SimpleNamespace(loss=None, logits=logits)


class Padded(nn.Module):
    """A user's model around torch's own encoder."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        layer = nn.TransformerEncoderLayer(6, 2, 9, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(6, 4)

    def forward(self, tokens):
        mask = tokens == 0
        hidden = self.encoder(self.embed(tokens), src_key_padding_mask=mask)
        return (self.out(hidden.mean(1)), hidden)


def tokens(rng, count=5, length=7):
    """Token numbers, the ends of some rows padded with zeros."""
    ids = torch.randint(1, 11, (count, length), generator=rng)
    ids[1, 4:] = 0
    ids[2, 2:] = 0
    return ids
