"""Small packed networks, the same at every call."""

import torch
from torch import tensor

from lowland.control.packing.formats import FORMATS, encode


def signs_for(name, rows=3, columns=70):
    """Signs that a format can hold, the same at every call."""
    rng = torch.Generator().manual_seed(7)
    signs = torch.randint(-1, 2, (rows, columns), generator=rng).to(torch.int8)
    return signs.where(signs != 0, 1) if name == "bit1" else signs


def network(names=tuple(FORMATS), rows=3, columns=70):
    """Header and tensors of a network with a layer in each format, and a float tensor."""
    layers, tensors = {}, {"norm.weight": tensor([0.5, -2.0]), "norm.count": tensor(3)}
    for name in names:
        layers[name] = {"kind": "linear", "format": name, "rows": rows, "columns": columns}
        held = encode(signs_for(name, rows, columns), name)
        tensors |= {f"{name}.packed.{part}": value for part, value in held.items()}
    return {"layers": layers, "program": {"steps": [1, 2.5, None, "ä"]}}, tensors
