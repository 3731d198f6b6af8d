"""Directions in which the loss of a ReLU network is flat for reasons that have nothing to learn."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lowland.errors import UnsupportedModelError
from lowland.params import trainable

__all__ = ["linear_layers", "trivial_directions"]


def trivial_directions(
    mlp: nn.Module, inputs: Float[Tensor, "examples ..."]
) -> Float[Tensor, "directions params"]:
    r"""List the trivial null directions of the Hessian of a ReLU network with a softmax.

    They are, each a unit vector, linearly independent:

    - *unused weights*: weights that only ever see zero (inputs that are zero for all examples,
      units that are never active), and all incoming weights and the bias of a unit that is never
      active. Where such weights lie, nothing moves: :math:`H z = 0` at any point.
    - *softmax shift*: an equal change of all outgoing weights of one unit of the last hidden layer,
      or of all output biases, adds the same number to all scores: :math:`H z = 0` at any point.
    - *rescaling*: the incoming weights and the bias of a unit against its outgoing weights. With
      :math:`z = (w_{in}, -w_{out})` and gradient :math:`g` it holds at any point that
      :math:`H z = (-g_{in}, g_{out})`, so that it is zero where the gradient is.

    Args:
        mlp: ``nn.Sequential`` of linear layers with a ReLU between each two of them (flatten and
            identity layers may stand anywhere), all parameters trainable.
        inputs: All inputs that the loss is about; they decide what is unused.

    Returns:
        Unit vectors in the order of ``mlp.named_parameters()``. They are not orthogonal: take
        ``torch.linalg.qr`` of their transpose to project them out.

    Raises:
        UnsupportedModelError: If the network is something else.

    Source:
        no_barriers, section 7.6.
    """
    layers = linear_layers(mlp)
    unused = unused_weights(mlp, layers, inputs)
    layout = trainable(mlp)
    rows = []
    for (name, layer), (no_weight, no_bias) in zip(layers.items(), unused, strict=True):
        rows += [{f"{name}.weight": e} for e in one_hot(no_weight)]
        if layer.bias is not None:
            rows += [{f"{name}.bias": e} for e in one_hot(no_bias)]
    names = list(layers)
    for k in range(len(names) - 1):
        for unit in (~unused[k][1]).nonzero().flatten().tolist():
            rows.append(rescaling(layers, names[k], names[k + 1], unit))
    rows += softmax_shifts(names[-1], layers[names[-1]], unused[-1][0])
    zero = {name: torch.zeros_like(p.detach()) for name, p in mlp.named_parameters()}
    directions = layout.flatten(zero).new_zeros(len(rows), layout.size)
    for direction, row in zip(directions, rows, strict=True):
        direction.copy_(layout.flatten(zero | row))
    return directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)


def linear_layers(mlp: nn.Module) -> dict[str, nn.Linear]:
    """Name the linear layers of a plain ReLU network, in order.

    Args:
        mlp: See :func:`trivial_directions`.

    Returns:
        Name to layer.

    Raises:
        UnsupportedModelError: If there is another layer, no ReLU or two of them between linear
            layers, one at an end, or a tied or frozen parameter.
    """
    known = (nn.Linear, nn.ReLU, nn.Flatten, nn.Identity)
    children = dict(mlp.named_children()) if isinstance(mlp, nn.Sequential) else {"": mlp}
    for name, module in children.items():
        if not isinstance(module, known):
            raise UnsupportedModelError(
                "the network must be an nn.Sequential of Linear, ReLU, Flatten and Identity "
                f"layers; got {type(module).__name__} {name!r}."
            )
    acting = [module for module in children.values() if isinstance(module, nn.Linear | nn.ReLU)]
    wanted = [nn.Linear if k % 2 == 0 else nn.ReLU for k in range(len(acting))]
    if len(acting) % 2 == 0 or not all(map(isinstance, acting, wanted)):
        kinds = ", ".join(type(module).__name__ for module in acting)
        raise UnsupportedModelError(
            f"the network must alternate Linear and ReLU, Linear at both ends; got {kinds}."
        )
    layers = {name: module for name, module in children.items() if isinstance(module, nn.Linear)}
    if len(trainable(mlp).names) < sum(1 + (layer.bias is not None) for layer in layers.values()):
        raise UnsupportedModelError(
            "all parameters of the network must be trainable and its own; one is frozen or tied."
        )
    return layers


@torch.no_grad()
def unused_weights(
    mlp: nn.Module, layers: dict[str, nn.Linear], inputs: Tensor
) -> list[tuple[Bool[Tensor, "outputs inputs"], Bool[Tensor, " outputs"]]]:
    """Mark, for every linear layer, the weights and the biases that nothing depends on."""
    seen: dict[str, Tensor] = {}
    hidden = inputs.to(next(mlp.parameters()).dtype)
    for name, module in mlp.named_children():
        if name in layers:
            seen[name] = hidden.reshape(-1, hidden.shape[-1])
        hidden = module(hidden)
    marks, names = [], list(layers)
    for name, after in zip(names, [*names[1:], None], strict=True):
        always_zero = (seen[name] == 0).all(0)
        rows = layers[name].weight.shape[0]
        dead = always_zero.new_zeros(rows) if after is None else (seen[after] == 0).all(0)
        marks.append((dead[:, None] | always_zero[None, :], dead))
    return marks


def one_hot(mask: Bool[Tensor, "..."]) -> Float[Tensor, "marked ..."]:
    """Give one tensor of the mask's shape per marked entry, 1 there and 0 elsewhere."""
    where = mask.flatten().nonzero().flatten()
    basis = torch.zeros(len(where), mask.numel(), dtype=torch.float64, device=mask.device)
    basis[torch.arange(len(where), device=mask.device), where] = 1
    return basis.view(-1, *mask.shape)


def rescaling(layers: dict[str, nn.Linear], inner: str, outer: str, unit: int) -> dict[str, Tensor]:
    """Scale up what comes into a unit and down what leaves it."""
    weight, bias = layers[inner].weight.detach(), layers[inner].bias
    row = {f"{inner}.weight": torch.zeros_like(weight)}
    row[f"{inner}.weight"][unit] = weight[unit]
    if bias is not None:
        row[f"{inner}.bias"] = torch.zeros_like(bias.detach())
        row[f"{inner}.bias"][unit] = bias.detach()[unit]
    away = layers[outer].weight.detach()
    row[f"{outer}.weight"] = torch.zeros_like(away)
    row[f"{outer}.weight"][:, unit] = -away[:, unit]
    return row


def softmax_shifts(
    name: str, layer: nn.Linear, unused: Bool[Tensor, "outputs inputs"]
) -> list[dict[str, Tensor]]:
    """Raise all scores alike: through each unit that is ever active, and through the biases."""
    rows = []
    for unit in (~unused.all(0)).nonzero().flatten().tolist():
        weight = torch.zeros_like(layer.weight.detach())
        weight[:, unit] = 1
        rows.append({f"{name}.weight": weight})
    if layer.bias is not None:
        rows.append({f"{name}.bias": torch.ones_like(layer.bias.detach())})
    return rows
