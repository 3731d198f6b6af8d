"""What a file may call: functions and methods of tensors that neither read, write nor import."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["ATTRIBUTES", "FUNCTIONS", "METHODS", "NAMES"]

OF_LAYERS = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d alpha_dropout
avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear celu conv1d conv2d conv3d conv_transpose1d
conv_transpose2d conv_transpose3d cosine_similarity dropout dropout1d dropout2d dropout3d elu
embedding fold gelu glu group_norm hardsigmoid hardswish hardtanh instance_norm interpolate
layer_norm leaky_relu linear local_response_norm log_softmax max_pool1d max_pool2d max_pool3d
mish normalize one_hot pad pixel_shuffle pixel_unshuffle prelu relu relu6 rms_norm
scaled_dot_product_attention selu sigmoid silu softmax softmin softplus softsign tanh threshold
unfold
"""
OF_TENSORS = """
abs adaptive_avg_pool1d add addcmul addmm amax amin arange argmax argmin avg_pool1d baddbmm bmm
cat celu chunk clamp clone conv1d conv2d conv3d cos cumsum div einsum erf exp eye flatten flip
full full_like gather gelu hardtanh index_select layer_norm log log_softmax logical_not
masked_fill matmul max max_pool1d maximum mean min minimum mm movedim mul neg norm ones
ones_like permute pow prelu prod relu repeat_interleave reshape rms_norm roll rsqrt select selu
sigmoid sign sin softmax sort split sqrt square squeeze stack std sub sum swapaxes tanh tensor
tile topk transpose tril triu unbind unsqueeze var where zeros zeros_like
"""
OF_PYTHON = """
abs add and_ eq floordiv ge getitem gt iadd imul inv invert isub itruediv le lt matmul mod mul
ne neg not_ or_ pos pow sub truediv xor
"""
METHODS_OF_TENSORS = """
abs add add_ addcmul amax amin argmax argmin bmm bool chunk clamp clamp_min clone contiguous cos
cumsum detach dim div div_ double eq exp expand expand_as flatten flip float gather ge gt half
index_select int item le log log_softmax long lt masked_fill masked_fill_ matmul max mean min mm
movedim mul mul_ narrow ne neg new_full new_ones new_zeros norm numel permute pow prod relu
relu_ repeat repeat_interleave reshape reshape_as roll rsqrt select sigmoid sign sin size
softmax sort split sqrt square squeeze std sub sub_ sum swapaxes t tanh tile to topk transpose
tril triu type_as unbind unflatten unfold unsqueeze var view view_as where
"""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{place}.{name}": getattr(module, name)
    for place, module, names in (
        ("F", F, OF_LAYERS),
        ("torch", torch, OF_TENSORS),
        ("operator", operator, OF_PYTHON),
    )
    for name in names.split()
    if hasattr(module, name)
}
NAMES = {function: name for name, function in reversed(FUNCTIONS.items())}
METHODS = frozenset(METHODS_OF_TENSORS.split())
ATTRIBUTES = frozenset(("shape", "dtype", "device", "ndim", "T", "mT", "H", "mH", "is_cuda"))
