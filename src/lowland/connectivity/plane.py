"""The loss in the plane through both minima and the middle of a path between them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.connectivity.along import read_path
from lowland.connectivity.band import chosen_backend
from lowland.connectivity.checks import refuse_no_number, refuse_no_whole
from lowland.connectivity.path import Path
from lowland.connectivity.profile import measure_points
from lowland.training import generator

__all__ = ["Plane", "measure_plane"]


@dataclass(frozen=True, eq=False)
class Plane:
    """Training loss on a grid in a plane.

    Attributes:
        x: Coordinates along the line from start to end, as Euclidean distance from the start.
        y: Coordinates across it, towards the mean of the path.
        loss: Loss at each grid point.
        pivots: The path's pivots, projected onto the plane.
        backend: How the networks were run.
    """

    x: Float[Tensor, " columns"]
    y: Float[Tensor, " rows"]
    loss: Float[Tensor, "rows columns"]
    pivots: Float[Tensor, "pivots 2"]
    backend: str


def measure_plane(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    path: Path,
    *,
    resolution: int = 25,
    margin: float = 0.25,
    examples: int = 1000,
    calibration: int = 2000,
    backend: str = "auto",
    seed: int = 0,
) -> Plane:
    """Evaluate the loss on a grid in the plane of the ends and the mean of the pivots.

    The model itself is not changed.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example.
        batches: Training batches of (inputs, target).
        path: The path; one without a bend shows a random direction across it.
        resolution: Grid points in each direction.
        margin: How far the grid reaches beyond the path, as a share of its extent.
        examples: Fixed examples the loss is measured on.
        calibration: Training examples over which batch-norm statistics are recomputed, unless
            they are coordinates of the path.
        backend: ``"vmap"``, ``"loop"`` or ``"auto"``.
        seed: Decides which examples are used where the batches draw from torch's generators.

    Returns:
        The grid.

    Raises:
        ValueError: If the ends of the path are equal, or ``resolution`` is below 2.

    Source:
        Draxler et al., ICML 2018, Figure 1.
    """
    refuse_no_whole(2, resolution=resolution)
    refuse_no_number(margin=margin)
    task, path = read_path(
        model, loss_fn, batches, path, examples=examples, calibration=calibration, seed=seed
    )
    if not task.distance:
        raise ValueError("the ends of the path must differ; a plane through one point has no axes.")
    corners = path.pivots
    backend = chosen_backend(backend, task.stack, corners, task.deciding[0])
    axes = plane_axes(corners, seed)
    pivots = (corners - corners[0]) @ axes.T
    x, y = (grid(pivots[:, axis], resolution, margin) for axis in (0, 1))
    places = torch.cartesian_prod(y, x).flip(1)
    ((loss, _),) = measure_points(
        task.stack.with_backend(backend),
        lambda rows: corners[0] + places[rows.start : rows.stop : rows.step] @ axes,
        len(places),
        [task.deciding],
        calibration=task.calibration,
        seed=seed,
    )
    return Plane(x.cpu(), y.cpu(), loss.view(resolution, resolution), pivots.cpu(), backend)


def plane_axes(pivots: Float[Tensor, "pivots params"], seed: int) -> Float[Tensor, "2 params"]:
    """Two orthonormal directions: to the end, and across that to the mean of the pivots."""
    along = pivots[-1] - pivots[0]
    along = along / torch.linalg.vector_norm(along)
    bend = pivots.mean(0) - pivots[0]
    across = bend - (bend @ along) * along
    if torch.linalg.vector_norm(across) <= 1e-3 * torch.linalg.vector_norm(bend):
        noise = torch.randn(len(along), generator=generator(seed, "plane"), dtype=along.dtype)
        noise = noise.to(along.device)
        across = noise - (noise @ along) * along
    return torch.stack([along, across / torch.linalg.vector_norm(across)])


def grid(values: Float[Tensor, " pivots"], resolution: int, margin: float) -> Tensor:
    """Even coordinates that cover some values and a margin around them."""
    low, high = float(values.min()), float(values.max())
    reach = margin * max(high - low, 1e-12)
    return torch.linspace(low - reach, high + reach, resolution, dtype=values.dtype).to(
        values.device
    )
