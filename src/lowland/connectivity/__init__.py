"""Paths of low loss between minima: the straight line, the elastic band, AutoNEB."""

from lowland.connectivity.align import align
from lowland.connectivity.alignment import Alignment
from lowland.connectivity.autoneb import find_path
from lowland.connectivity.bends import curve_weights
from lowland.connectivity.compare import compare_paths
from lowland.connectivity.comparison import ComparedPath, Comparison
from lowland.connectivity.connect import connect_minima
from lowland.connectivity.curve import fit_curve
from lowland.connectivity.edge import Edge
from lowland.connectivity.ensemble import Ensemble, measure_ensemble
from lowland.connectivity.evaluate import measure_path
from lowland.connectivity.fit import bend_gradients
from lowland.connectivity.graph import (
    Merge,
    merges,
    minimax,
    route,
    spanning_tree,
    topographic_distance,
)
from lowland.connectivity.insert import insert_equal, insert_highest, insertion_residuals
from lowland.connectivity.landscape import Landscape
from lowland.connectivity.line import linear_path
from lowland.connectivity.neb import Relaxed, from_potential, relax
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
from lowland.connectivity.suggest import RULES, Known, suggest_pair
from lowland.connectivity.tangent import project, tangents
from lowland.training import recalibrate

__all__ = [
    "RULES",
    "SCHEDULES",
    "Alignment",
    "ComparedPath",
    "Comparison",
    "Cycle",
    "CycleResult",
    "Edge",
    "Ensemble",
    "Known",
    "Landscape",
    "Merge",
    "Path",
    "PathResult",
    "Plane",
    "Profile",
    "Relaxed",
    "Schedule",
    "align",
    "arc_fractions",
    "bend_gradients",
    "compare_paths",
    "connect_minima",
    "curve_weights",
    "find_path",
    "fit_curve",
    "from_potential",
    "insert_equal",
    "insert_highest",
    "insertion_residuals",
    "linear_path",
    "measure_ensemble",
    "measure_path",
    "measure_plane",
    "merges",
    "minimax",
    "points_between",
    "project",
    "recalibrate",
    "redistribute",
    "relax",
    "route",
    "segment_lengths",
    "spanning_tree",
    "suggest_pair",
    "tangents",
    "topographic_distance",
]
