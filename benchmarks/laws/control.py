"""Laws of discrete weights: a step, its memory, packed files and products."""

from functools import partial

import torch
from torch import Tensor, nn

from laws.law import Law, Point, cpu_seconds, peak_bytes
from lowland.control import DiscreteMSA
from lowland.control.packing import kernels
from lowland.control.packing.formats import bytes_of, encode

__all__ = ["LAWS"]

COLUMNS = 1000
KINDS = {
    "binary": {"values": (-1, 1)},
    "ternary": {"values": (-1, 0, 1), "lam": 1e-5},
    "dial": {"values": (-1, 0, 1), "target_nonzero": 0.02},
}


def signs(params: float, share: float) -> Tensor:
    """A matrix of -1, 0 and 1 with about so many entries, 1000 in a row."""
    draws = torch.Generator().manual_seed(0)
    shape = round(params / COLUMNS), COLUMNS
    drawn = torch.randint(2, shape, generator=draws, dtype=torch.int8) * 2 - 1
    return drawn * (torch.rand(shape, generator=draws) < share)


def optimizer(kind: str, params: float) -> tuple[DiscreteMSA, int]:
    """Four layers, with gradients."""
    draws = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(signs(params / 4, 1.0).float()) for _ in range(4)]
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=draws)
    return DiscreteMSA(weights, **KINDS[kind]), sum(weight.numel() for weight in weights)


def step_by_params(kind: str, params: float) -> Point:
    """A step."""
    stepper, size = optimizer(kind, params)
    return size, cpu_seconds(stepper.step)


def memory_by_params(kind: str, params: float) -> Point:
    """Most bytes beyond weights and gradients, averages included."""
    stepper, size = optimizer(kind, params)
    return size, peak_bytes(stepper.step)


def packed(form: str, share: float, params: float) -> Point:
    """Bytes of a packed matrix."""
    matrix = signs(params, share)
    return matrix.numel(), bytes_of(encode(matrix, form))


def entropy(share: float) -> float:
    """Bits of a weight that is 0, or 1 or -1 with equal chances."""
    places = -share * torch.tensor(share).log2() - (1 - share) * torch.tensor(1 - share).log2()
    return float(places) + share


def packed_by_share(share: float) -> Point:
    """Bits per weight of a million weights, by their entropy."""
    matrix = signs(1e6, share)
    real = float(matrix.count_nonzero()) / matrix.numel()
    return entropy(real), 8 * bytes_of(encode(matrix, "gaps")) / matrix.numel()


def product(form: str, share: float, params: float) -> Point:
    """A matrix times one vector."""
    matrix, x = signs(params, share), torch.randn(1, COLUMNS)
    held = encode(matrix, form)
    return matrix.numel(), cpu_seconds(lambda: kernels.multiply(form, held, *matrix.shape, x))


SIZES = (1e5, 3e5, 1e6, 3e6, 1e7)
LARGE = (1e6, 3e6, 1e7, 3e7, 1e8)
FORMS = {
    "bit1": (1.0, "a bit each"),
    "sparse16": (0.02, "16 bits for each nonzero one, 64 for each row of 1,000"),
    "gaps": (0.02, "the entropy of a weight, and a few percent"),
}

LAWS = (
    *(
        Law(
            f"control-step-{kind}", f"a DiscreteMSA step, {kind}", "weights D", "s", 1.0, SIZES,
            partial(step_by_params, kind), lambda d: d, "seconds per weight",
            "some passes over the weights",
        )
        for kind in KINDS
    ),
    *(
        Law(
            f"control-memory-{kind}", f"bytes of a first step beside weights and gradients, {kind}",
            "weights D", "bytes", 1.0, LARGE, partial(memory_by_params, kind), lambda d: d,
            "bytes per weight", why,
        )
        for kind, why in (
            ("binary", "one average each, and blocks that fit the cache"),
            ("ternary", "the same"),
            ("dial", "the same"),
        )
    ),
    *(
        Law(
            f"control-bytes-{form}", f"packed weights, {form}, {100 * share:g} % nonzero",
            "weights D", "bytes", 1.0, SIZES, partial(packed, form, share), lambda d: d / 8,
            "bits per weight", why,
        )
        for form, (share, why) in FORMS.items()
    ),
    Law(
        "control-bytes-entropy", "bits per weight in gaps", "entropy of a weight", "bits", 1.0,
        (3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2), packed_by_share, lambda h: h,
        "bits per bit of entropy", "Rice codes lie close to the entropy",
    ),
    *(
        Law(
            f"control-product-{form}", f"a packed matrix times a vector, {form}", "weights D", "s",
            1.0, LARGE, partial(product, form, FORMS[form][0]),
            lambda d: d, "seconds per weight", "every weight is read once",
        )
        for form in ("bit1", "sparse16")
    ),
)  # fmt: skip
