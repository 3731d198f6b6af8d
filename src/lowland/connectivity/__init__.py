"""Paths of low loss between minima: the straight line, the elastic band, AutoNEB."""

from lowland.connectivity.autoneb import find_path
from lowland.connectivity.insert import insert_equal, insert_highest, insertion_residuals
from lowland.connectivity.line import linear_path
from lowland.connectivity.neb import Relaxed, from_potential, project, relax, tangents
from lowland.connectivity.path import (
    Path,
    arc_fractions,
    points_between,
    redistribute,
    segment_lengths,
)
from lowland.connectivity.path_result import CycleResult, PathResult
from lowland.connectivity.plane import Plane, measure_plane
from lowland.connectivity.profile import Profile
from lowland.connectivity.schedule import SCHEDULES, Cycle, Schedule
from lowland.training import recalibrate

__all__ = [
    "SCHEDULES",
    "Cycle",
    "CycleResult",
    "Path",
    "PathResult",
    "Plane",
    "Profile",
    "Relaxed",
    "Schedule",
    "arc_fractions",
    "find_path",
    "from_potential",
    "insert_equal",
    "insert_highest",
    "insertion_residuals",
    "linear_path",
    "measure_plane",
    "points_between",
    "project",
    "recalibrate",
    "redistribute",
    "relax",
    "segment_lengths",
    "tangents",
]
