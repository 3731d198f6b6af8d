"""A path through parameter space: pivots joined by straight segments."""

import json
from dataclasses import dataclass, field
from pathlib import Path as FilePath

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lowland.connectivity.checks import refuse_no_whole
from lowland.params import Layout
from lowland.results import read_tensors, write_tensors
from lowland.training import wide_type

__all__ = [
    "Path",
    "arc_fractions",
    "places_of",
    "points_between",
    "redistribute",
    "refuse_no_shares",
    "segment_lengths",
]

# Differences of pivots held at once, 256 MiB in float32.
DIFFERENCES_AT_ONCE = 2**26


@dataclass(frozen=True, eq=False)
class Path:
    """A polyline of networks, from one minimum to another.

    Attributes:
        pivots: The corners, both minima included, shape ``(pivots, params)``.
        weights: Share of the arc length that each segment is to have, shape ``(segments,)``,
            positive, sum 1.
        layout: Which parameter each coordinate is.
        fixed: The tensors of the state dict that do not move along the path: frozen parameters
            and buffers, as at the start.
        fixed_end: Those of them that are others at the end: statistics of batch norms.
    """

    pivots: Float[Tensor, "pivots params"]
    weights: Float[Tensor, " segments"]
    layout: Layout
    fixed: dict[str, Tensor] = field(default_factory=dict)
    fixed_end: dict[str, Tensor] = field(default_factory=dict)

    def at(self, t: float) -> Float[Tensor, " params"]:
        """Give the point at a fraction of the arc length.

        Args:
            t: From 0 (start) to 1 (end).

        Returns:
            The parameter vector.

        Raises:
            ValueError: If ``t`` lies outside 0 and 1.
        """
        if not 0 <= t <= 1:
            raise ValueError(f"t must lie between 0 (start) and 1 (end); got {t}.")
        if t in (0, 1):  # the ends, bit for bit
            return self.pivots[-int(t)].clone()
        fractions = torch.tensor([t, 1 - t], dtype=self.pivots.dtype, device=self.pivots.device)
        return redistribute(self.pivots, fractions)[1]

    def length(self) -> float:
        """Arc length, as a Euclidean norm.

        Returns:
            The sum of the lengths of the segments.
        """
        return float(segment_lengths(self.pivots).sum())

    def reversed(self) -> "Path":
        """Walk the same path from the end to the start.

        Returns:
            The path with its pivots in the opposite order.
        """
        return Path(
            self.pivots.flip(0),
            self.weights.flip(0),
            self.layout,
            self.fixed | self.fixed_end,
            {name: self.fixed[name] for name in self.fixed_end},
        )

    def state_dict(self, t: float) -> dict[str, Tensor]:
        """Give the network at a fraction of the arc length.

        At the ends it is the network itself. Between them batch-norm statistics are those of the
        start, unless they moved with the path: recompute them with
        :func:`lowland.connectivity.recalibrate` before the network is used.

        Args:
            t: From 0 (start) to 1 (end).

        Returns:
            A state dict that ``model.load_state_dict`` takes.
        """
        named = {name: view.clone() for name, view in self.layout.views(self.at(t)).items()}
        tied = {name: named[kept] for name, kept in self.layout.aliases}
        fixed = self.fixed | self.fixed_end if t == 1 else self.fixed
        return {name: value.clone() for name, value in fixed.items()} | named | tied

    def save(self, file: str | FilePath) -> FilePath:
        """Write the path as one ``.safetensors`` file: tensors stacked over pivots.

        Args:
            file: Where to.

        Returns:
            The file.
        """
        named = {f"pivots.{name}": view for name, view in self.layout.views(self.pivots).items()}
        fixed = {f"fixed.{name}": value for name, value in self.fixed.items()}
        fixed |= {f"end.{name}": value for name, value in self.fixed_end.items()}
        metadata = {
            "format": "lowland path 1",
            "names": json.dumps(self.layout.names),
            "aliases": json.dumps(self.layout.aliases),
        }
        return write_tensors(file, named | fixed | {"weights": self.weights}, metadata)

    @classmethod
    def load(cls, file: str | FilePath, device: str = "cpu") -> "Path":
        """Read a path.

        Args:
            file: A file written by :meth:`save`.
            device: Where the pivots go.

        Returns:
            The path, bit-identical to the one saved.

        Raises:
            ValueError: If the file holds something else.
        """
        tensors, metadata = read_tensors(file)
        if metadata.get("format") != "lowland path 1":
            raise ValueError(f"{file} must be a path written by Path.save; it is something else.")
        names = tuple(json.loads(metadata["names"]))
        stacked = [tensors[f"pivots.{name}"] for name in names]
        layout = Layout(
            names,
            tuple(tuple(part.shape[1:]) for part in stacked),
            tuple((name, kept) for name, kept in json.loads(metadata["aliases"])),
        )
        pivots = torch.cat([part.reshape(len(part), -1) for part in stacked], dim=1)
        fixed, fixed_end = (
            {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
            for prefix in ("fixed.", "end.")
        )
        return cls(pivots.to(device), tensors["weights"], layout, fixed, fixed_end)


def segment_lengths(path: Float[Tensor, "pivots params"]) -> Float[Tensor, " segments"]:
    """Euclidean length of each segment.

    Args:
        path: Pivots, ends included.

    Returns:
        Lengths, in float64 where the device has it: their cumulative sums are compared.
    """
    rows = max(1, DIFFERENCES_AT_ONCE // max(1, path.shape[1]))
    parts = zip(path[1:].split(rows), path[:-1].split(rows), strict=True)
    lengths = [torch.linalg.vector_norm(ahead - here, dim=1) for ahead, here in parts]
    return torch.cat(lengths).to(wide_type(path.device))


def redistribute(
    path: Float[Tensor, "pivots params"], weights: Float[Tensor, " segments"]
) -> Float[Tensor, "new params"]:
    r"""Slide the pivots along the polyline until the segments have their share of its length.

    With arc lengths :math:`s_j` at the old pivots and :math:`W_i = \sum_{l<i} w_l`, the new
    pivot :math:`i` is the point of the old polyline at arc length :math:`s_{N+1} W_i`. The number
    of pivots follows the weights; the ends are kept bit for bit. Coinciding pivots are no problem.

    Args:
        path: Old pivots, ends included.
        weights: Share of each new segment; positive, sum 1.

    Returns:
        New pivots, one more than there are weights.

    Raises:
        ValueError: If the weights are no shares.

    Source:
        Draxler et al., ICML 2018, section 3.2 and Eq. E7 of the specification.
    """
    refuse_no_shares(weights)
    segment, alpha = places_of(segment_lengths(path), weights)
    last = segment.new_full((1,), len(path) - 1)
    new = path.index_select(0, torch.cat([segment.new_zeros(1), segment, last]))
    new[1:-1].lerp_(path.index_select(0, segment + 1), alpha.to(path.dtype).unsqueeze(1))
    return new


def refuse_no_shares(weights: Float[Tensor, " segments"]) -> None:
    """Refuse shares that do not divide the length of a path."""
    if weights.ndim != 1 or not bool((weights > 0).all() & ((weights.sum() - 1).abs() < 1e-3)):
        raise ValueError(
            "weights must hold a positive share of the length for each segment, sum 1; got "
            f"{weights.tolist()}. Divide them by their sum."
        )


def places_of(
    lengths: Float[Tensor, " segments"], weights: Float[Tensor, " new"]
) -> tuple[Int[Tensor, " inner"], Float[Tensor, " inner"]]:
    """Say where on the old segments the new pivots lie.

    Args:
        lengths: Of the old segments.
        weights: Share of each new segment; positive, sum 1.

    Returns:
        For each new pivot between the ends the old segment, and the fraction of it that lies
        before the pivot.
    """
    arc = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    wanted = arc[-1] * weights.to(lengths.device, lengths.dtype).cumsum(0)[:-1]
    segment = torch.searchsorted(arc, wanted, right=True).sub_(1).clamp_(0, len(lengths) - 1)
    tiny = torch.finfo(lengths.dtype).tiny
    return segment, ((wanted - arc[segment]) / lengths[segment].clamp_min(tiny)).clamp_(0, 1)


def points_between(
    path: Float[Tensor, "pivots params"], samples: int, rows: range | None = None
) -> Float[Tensor, "points params"]:
    """Sample every segment evenly, pivots included.

    Args:
        path: Pivots, ends included.
        samples: Points strictly inside each segment.
        rows: Which of the ``(pivots - 1) (samples + 1) + 1`` points; all by default.

    Returns:
        The points, in the order of the path; pivots bit for bit.

    Raises:
        ValueError: If ``samples`` is no whole number, or negative.
    """
    refuse_no_whole(0, samples=samples)
    number = (len(path) - 1) * (samples + 1) + 1
    index = torch.tensor(range(number) if rows is None else rows, device=path.device)
    segment = (index // (samples + 1)).clamp_max(len(path) - 2)
    alpha = (index - segment * (samples + 1)).to(path.dtype) / (samples + 1)
    return path[segment].lerp_(path[segment + 1], alpha.unsqueeze(1))


def arc_fractions(path: Float[Tensor, "pivots params"], samples: int) -> Float[Tensor, " points"]:
    """Where along the path the points of :func:`points_between` lie.

    Args:
        path: Pivots, ends included.
        samples: Points strictly inside each segment.

    Returns:
        Fractions of the arc length, from 0 to 1.

    Raises:
        ValueError: If ``samples`` is no whole number, or negative.
    """
    refuse_no_whole(0, samples=samples)
    lengths = segment_lengths(path)
    arc = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    alpha = torch.arange(samples + 1, dtype=lengths.dtype, device=path.device) / (samples + 1)
    t = torch.cat([(arc[:-1, None] + lengths[:, None] * alpha).flatten(), arc[-1:]])
    return t / arc[-1].clamp_min(torch.finfo(arc.dtype).tiny)
