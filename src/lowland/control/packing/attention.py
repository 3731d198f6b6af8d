"""Attention whose projections may be packed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PackedAttention"]


class PackedAttention(nn.MultiheadAttention):
    """:class:`torch.nn.MultiheadAttention` with its four projections as layers of their own.

    It is called like torch's. Nested tensors are not taken.

    Args:
        query, key, value, out: The projections: packed layers or :class:`torch.nn.Linear`.
        num_heads: Number of heads.
        batch_first: Whether the batch is the first axis of what comes and goes.
        add_zero_attn: Whether a zero is appended to keys and values.
        bias_k: Appended to the keys, shape ``(1, 1, embedding)``; None for nothing.
        bias_v: Appended to the values.

    Source:
        Vaswani et al., NeurIPS 2017; arguments as in torch.
    """

    # torch's encoder layers ask for these, and leave their fused path for packed layers
    in_proj_bias = None

    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(
        self,
        query: nn.Module,
        key: nn.Module,
        value: nn.Module,
        out: nn.Module,
        *,
        num_heads: int,
        batch_first: bool,
        add_zero_attn: bool = False,
        bias_k: Tensor | None = None,
        bias_v: Tensor | None = None,
    ):
        nn.Module.__init__(self)  # not torch's, which would draw weights
        self.query, self.key, self.value, self.out = query, key, value, out
        self.num_heads, self.batch_first = num_heads, batch_first
        self.add_zero_attn = add_zero_attn
        self._qkv_same_embed_dim = False
        self.embed_dim = int(query.out_features)  # type: ignore[arg-type]
        self.head_dim = self.embed_dim // num_heads
        self.register_buffer("bias_k", bias_k)
        self.register_buffer("bias_v", bias_v)

    @property
    def options(self) -> dict[str, Any]:
        """What is needed to build it again, beside the tensors."""
        names = ("num_heads", "batch_first", "add_zero_attn")
        return {name: getattr(self, name) for name in names}

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: Shape ``(batch, targets, embedding)`` with ``batch_first``, else
                ``(targets, batch, embedding)``; without a batch ``(targets, embedding)``.
            key: Likewise, over sources.
            value: Likewise.
            key_padding_mask: Shape ``(batch, sources)``; True or ``-inf`` leaves a source out.
            need_weights: Whether the weights are returned.
            attn_mask: Shape ``(targets, sources)`` or ``(batch * heads, targets, sources)``.
            average_attn_weights: Whether their mean over the heads is returned.
            is_causal: A hint, as in torch; the mask decides.

        Returns:
            The output, and the weights or None.
        """
        batched = query.ndim == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self.query(query), self.key(key), self.value(value)
        k, v, extra = self.appended(k, v)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        mask = merged(attn_mask, key_padding_mask, q, extra)
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask)
        out = self.out(mixed.transpose(1, 2).flatten(-2))
        if not batched:
            return out.squeeze(0), weights if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def appended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Append the learned and the zero source, and count them."""
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], 1)
            extra += 1
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            extra += 1
        return k, v, extra


def merged(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, extra: int
) -> Tensor | None:
    """Add both masks up, shape ``(batch, heads or 1, targets or 1, sources)``."""
    whole = None
    if attn_mask is not None:
        whole = additive(attn_mask, q.dtype)
        if whole.ndim == 3:
            whole = whole.view(len(q), q.shape[1], *whole.shape[1:])
    if key_padding_mask is not None:
        padding = additive(key_padding_mask, q.dtype)[:, None, None]
        whole = padding if whole is None else whole + padding
    return whole if whole is None or not extra else F.pad(whole, (0, extra))


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask of truth values into summands."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -torch.inf)
