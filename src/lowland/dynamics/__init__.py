"""What a training run does in time, by two-time observables, beside the exactly solved glass.

Baity-Jesi et al., *Comparing Dynamics: Deep Neural Networks versus Glassy Systems*, ICML 2018.
"""

from lowland.dynamics.clock import log_times, plan
from lowland.dynamics.clones import Clones, clone_displacement, measure_clones
from lowland.dynamics.collapse import aging_exponent, collapse_score, local_exponents
from lowland.dynamics.correlator import MultiTau
from lowland.dynamics.directions import FilterMotion, direction_displacement
from lowland.dynamics.eigen_displacement import (
    Directions,
    eigen_displacement,
    leading_directions,
)
from lowland.dynamics.filter_counts import filtered_count
from lowland.dynamics.flat_directions import flat_directions, negative_directions
from lowland.dynamics.free_walk import free_displacement
from lowland.dynamics.landscape import hessian_edges, negative_fraction
from lowland.dynamics.langevin import simulate_p_spin
from lowland.dynamics.langevin_sgd import LangevinSGD
from lowland.dynamics.mean_field import solve_mean_field
from lowland.dynamics.mean_field_result import MeanField
from lowland.dynamics.measure import measure_dynamics
from lowland.dynamics.measure_result import Dynamics
from lowland.dynamics.noise import GradientNoise, gradient_noise
from lowland.dynamics.normalized import over_integral, over_noise
from lowland.dynamics.p_spin import PSpin
from lowland.dynamics.phases import Phases, find_phases
from lowland.dynamics.products import hessian_product
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.sharpness import Sharpness, find_sharpness
from lowland.dynamics.spectral_density import (
    SpectralDensity,
    exact_spectrum,
    spectral_density,
)
from lowland.dynamics.spherical_sk import SphericalSK
from lowland.dynamics.statics import aging_solution, statics
from lowland.dynamics.stationary import StationaryWindow
from lowland.dynamics.structural import structural_zeros
from lowland.dynamics.susceptibility import dynamic_susceptibility, stay_fraction
from lowland.dynamics.two_time import TwoTime
from lowland.dynamics.units import steps_at

__all__ = [
    "Clones",
    "Directions",
    "Dynamics",
    "FilterMotion",
    "GradientNoise",
    "LangevinSGD",
    "MeanField",
    "MultiTau",
    "PSpin",
    "Phases",
    "Sharpness",
    "SpectralDensity",
    "SphericalSK",
    "StationaryWindow",
    "TwoTime",
    "TwoTimeRecorder",
    "aging_exponent",
    "aging_solution",
    "clone_displacement",
    "collapse_score",
    "direction_displacement",
    "dynamic_susceptibility",
    "eigen_displacement",
    "exact_spectrum",
    "filtered_count",
    "find_phases",
    "find_sharpness",
    "flat_directions",
    "free_displacement",
    "gradient_noise",
    "hessian_edges",
    "hessian_product",
    "leading_directions",
    "local_exponents",
    "log_times",
    "measure_clones",
    "measure_dynamics",
    "negative_directions",
    "negative_fraction",
    "over_integral",
    "over_noise",
    "plan",
    "simulate_p_spin",
    "solve_mean_field",
    "spectral_density",
    "statics",
    "stay_fraction",
    "steps_at",
    "structural_zeros",
]
