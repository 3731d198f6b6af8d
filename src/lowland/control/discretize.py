"""Give a model's linear layers weights from a finite set, and say what that leaves in bytes."""

import logging
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from math import ceil, log2
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from lowland.control.checks import check_type, check_values
from lowland.control.held import BINARY
from lowland.control.marks import mark, values_of
from lowland.errors import UnsupportedModelError
from lowland.training import generator

__all__ = ["RowScale", "describe", "discretize"]

LINEAR = (nn.Linear, _ConvNd, nn.Embedding, nn.Bilinear)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)
PASSED = (nn.Dropout, nn.Flatten, nn.Identity, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
          nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
          nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Unflatten)  # fmt: skip
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

log = logging.getLogger(__name__)


class RowScale(nn.Module):
    """Multiply every row of a discrete weight by a learned float.

    Args:
        weight: The weight; its scales start at one over the root of the row's number of weights.
        axis: Axis of the rows (outputs): 0, or 1 for transposed convolutions.

    Source:
        Ours; the start keeps outputs at the size of the inputs.
    """

    def __init__(self, weight: Tensor, axis: int = 0) -> None:
        """Start with one scale per row."""
        super().__init__()
        rows = weight.shape[axis]
        shape = [1] * weight.ndim
        shape[axis] = rows
        start = (weight.numel() / rows) ** -0.5
        self.scale = nn.Parameter(weight.new_full(shape, start))

    def forward(self, weight: Tensor) -> Tensor:
        """Scale the rows."""
        return self.scale * weight


@torch.no_grad()
def discretize(
    model: nn.Module,
    values: Sequence[float] = BINARY,
    *,
    skip: str | type[nn.Module] | Iterable[str | type[nn.Module]] = (),
    row_scale: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Turn the weights of a model's linear layers into discrete ones, in place.

    Linear, convolutional and transposed convolutional, bilinear and embedding layers and the
    projections of attention get weights drawn uniformly from the set; biases, norms and all else
    stay floats, and so do frozen and parametrized weights, and shared ones with a user that is
    skipped. Train the weights with :class:`DiscreteMSA` on :func:`discrete_parameters`, and the
    rest with any optimizer on :func:`float_parameters`; :func:`describe` gives a table.

    Weights of size one make sums as large as the root of their number. A layer that no
    normalization follows is warned of: give it ``row_scale``, a norm, or skip it.

    Args:
        model: Any module.
        values: The set: ``(-1, 1)`` by default, as for :class:`DiscreteMSA`. The driver
            :func:`train_msa`, whose ``target_nonzero`` is a share of zeros, draws from
            ``(-1, 0, 1)`` where it meets a model without discrete weights: name the set where both
            are used.
        skip: What stays float, with all its parts: qualified names (``"head"``), patterns
            (``"blocks.*.attention"``) or module types.
        row_scale: Give every output a learned float factor, as a parametrization of the weight
            (the outputs of a grouped transposed convolution share them among groups).
        seed: Seed of the draw.

    Returns:
        The same model.

    Raises:
        ValueError: If ``values`` is not a set of numbers, or a name in ``skip`` meets nothing.
        TypeError: If ``skip`` holds neither names nor types.
        UnsupportedModelError: If no layer is left, or an embedding pads with zeros that the set
            does not have.

    Source:
        Li & Hao, ICML 2018, algorithm 2; the layers beyond linear ones and the scale are ours.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3))
        >>> sorted(set(discretize(model).get_parameter("0.weight").flatten().tolist()))
        [-1.0, 1.0]
    """
    found = check_values(values)
    targets = weights_to_change(model, checked_skip(skip))
    if not targets:
        raise UnsupportedModelError(
            f"the model must have a linear, convolutional or embedding layer that is neither "
            f"skipped, nor frozen, nor parametrized (weight_norm, pruning); {type(model).__name__} "
            "has none."
        )
    for path, module, name in targets:
        check_padding(path, module, found)
        check_type(getattr(module, name), found, path)
    for path, module, name in targets:
        weight = getattr(module, name)
        draws = generator(seed, "discretize", path, name)
        drawn = torch.tensor(found)[torch.randint(len(found), weight.shape, generator=draws)]
        weight.copy_(drawn)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            weight[module.padding_idx] = 0
        if row_scale:
            axis = 1 if isinstance(module, _ConvTransposeNd) else 0
            parametrize.register_parametrization(module, name, RowScale(weight, axis))
            mark(module.parametrizations[name], "original", found)  # type: ignore[index]
        else:
            mark(module, name, found)
    if not row_scale:
        warn_of_bare_layers(model)
    log.info("%s", describe(model))
    return model


def checked_skip(skip: Any) -> tuple[str | type[nn.Module], ...]:
    """List what is skipped, or say what that must be."""
    items = [skip] if isinstance(skip, str | type) or not isinstance(skip, Iterable) else list(skip)
    wrong = [item for item in items if not isinstance(item, str | type)]
    if wrong or isinstance(skip, nn.Module):  # a sequence of layers is iterable, too
        got = skip if isinstance(skip, nn.Module) else wrong[0]
        raise TypeError(
            "skip must be names, patterns or types of modules; got an "
            f'object of type {type(got).__name__}. Pass for instance skip="head", or '
            'skip=["blocks.*", torch.nn.Embedding].'
        )
    return tuple(items)


def weights_to_change(
    model: nn.Module, skip: tuple[str | type[nn.Module], ...]
) -> list[tuple[str, nn.Module, str]]:
    """Find path, module and name of every weight that becomes discrete, shared ones once."""
    unmet = {item for item in skip if isinstance(item, str)}
    left_out: list[str] = []
    float_users: set[int] = set()
    found = []
    for path, module in model.named_modules():
        hits = [item for item in skip if is_meant(path, module, item)]
        unmet -= set(hits)
        if hits or any(path.startswith(f"{parent}.") for parent in left_out):
            left_out.append(path)
            float_users |= {id(getattr(module, name)) for name in weight_names(module)}
        else:
            found += [(path, module, name) for name in weight_names(module)]
    if unmet:
        names = [path for path, module in model.named_modules() if weight_names(module)]
        raise ValueError(
            f"every name in skip must meet a module; {sorted(unmet)} met none. "
            f"The layers with weights are {names}."
        )
    once: dict[int, tuple[str, nn.Module, str]] = {}
    for path, module, name in found:
        weight = getattr(module, name)
        check_kind(path, weight)
        if weight.requires_grad and id(weight) not in float_users:
            once.setdefault(id(weight), (path, module, name))
    return list(once.values())


def is_meant(path: str, module: nn.Module, item: str | type[nn.Module]) -> bool:
    """Tell whether a module is meant by a name, a pattern or a type."""
    return fnmatchcase(path, item) if isinstance(item, str) else isinstance(module, item)


def weight_names(module: nn.Module) -> list[str]:
    """Name the weights of one module that multiply what enters it."""
    if isinstance(module, nn.MultiheadAttention):
        return [name for name in ATTENTION if getattr(module, name) is not None]
    is_plain = isinstance(module, LINEAR) and isinstance(module._parameters.get("weight"), Tensor)
    return ["weight"] if is_plain else []


def check_kind(path: str, weight: Tensor) -> None:
    """Refuse weights that have no shape yet, or no order."""
    if isinstance(weight, nn.UninitializedParameter):
        raise UnsupportedModelError(
            f"every layer must know its shape; {path} is lazy. Run a batch through the model first."
        )
    if weight.is_complex():
        raise UnsupportedModelError(
            f"discrete weights must be real; {path} has {weight.dtype}. Skip it: skip={path!r}."
        )


def check_padding(path: str, module: nn.Module, values: tuple[float, ...]) -> None:
    """Refuse an embedding whose padding cannot be zero."""
    padding = module.padding_idx if isinstance(module, nn.Embedding) else None
    if padding is not None and 0.0 not in values:
        raise UnsupportedModelError(
            f"{path or 'the model'} pads with zeros (padding_idx={padding}), and {values} has no "
            f"0. Take (-1, 0, 1){f', or skip={path!r}' if path else ''}."
        )


def warn_of_bare_layers(model: nn.Module) -> None:
    """Warn of discrete layers that no normalization follows, in the order of registration."""
    leaves = [(path, m) for path, m in model.named_modules() if not list(m.children())]
    marked = {name.rpartition(".")[0] for name in values_of(model)}
    bare = []
    for i, (path, module) in enumerate(leaves):
        if path not in marked or isinstance(module, nn.Embedding):
            continue
        after = next((m for _, m in leaves[i + 1 :] if not isinstance(m, PASSED)), None)
        if not isinstance(after, NORMS):
            bare.append(path or type(model).__name__)
    if bare:
        warn(
            f"no normalization follows {', '.join(bare)} (in the order of registration): sums of "
            "weights of size one grow as the root of their number. Add a norm, pass "
            "row_scale=True, or skip these layers.",
            stacklevel=4,
        )


def describe(model: nn.Module) -> str:
    """Make a table of what is discrete and what it weighs.

    Args:
        model: Any module.

    Returns:
        A row per layer with parameters: its set ("not in" where somebody else wrote a weight),
        nonzero share, discrete weights, float parameters, bits per weight, and bytes when packed
        (one bit for two values, two for three or four) against bytes as float32.

    Source:
        Ours; specification section 9.
    """
    found = values_of(model)
    rows = [["layer", "values", "nonzero", "weights", "floats", "bits", "bytes", "float32"]]
    totals = [0, 0, 0, 0]
    layers: dict[str, list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        layers.setdefault(name.rpartition(".")[0], []).append((name, parameter.detach()))
    for layer, held in layers.items():
        weights = [(name, p) for name, p in held if name in found]
        floats = sum(p.numel() for name, p in held if name not in found)
        count = sum(p.numel() for _, p in weights)
        bits = max((ceil(log2(len(found[name]))) for name, _ in weights), default=0)
        size = ceil(count * bits / 8) + 4 * floats
        nonzero = sum(int(p.count_nonzero()) for _, p in weights) / count if count else 0.0
        values = ", ".join(f"{v:g}" for v in found[weights[0][0]]) if weights else "-"
        if not all(torch.isin(p, p.new_tensor(found[name])).all() for name, p in weights):
            values = f"not in {values}"
        share = f"{nonzero:.1%}" if weights else "-"
        numbers = [count, floats, size, 4 * (count + floats)]
        totals = [a + b for a, b in zip(totals, numbers, strict=True)]
        rows.append([layer or "(top)", values, share, *texts(count, floats, bits, *numbers[2:])])
    rows.append(["all", "", "", *texts(totals[0], totals[1], "", totals[2], totals[3])])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(w) if i > 1 else cell.ljust(w) for i, (cell, w) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def texts(*numbers: int | str) -> list[str]:
    """Write numbers with separators."""
    return [number if isinstance(number, str) else f"{number:,}" for number in numbers]
