"""What a training run does in time, by two-time observables, beside the exactly solved glass.

Baity-Jesi et al., *Comparing Dynamics: Deep Neural Networks versus Glassy Systems*, ICML 2018.
"""

from lowland.dynamics.clock import log_times, plan
from lowland.dynamics.clones import Clones, clone_displacement, measure_clones
from lowland.dynamics.collapse import aging_exponent, collapse_score, local_exponents
from lowland.dynamics.flat_directions import flat_directions
from lowland.dynamics.landscape import hessian_edges, negative_fraction
from lowland.dynamics.langevin import simulate_p_spin
from lowland.dynamics.mean_field import solve_mean_field
from lowland.dynamics.mean_field_result import MeanField
from lowland.dynamics.measure import Dynamics, measure_dynamics
from lowland.dynamics.noise import GradientNoise, gradient_noise
from lowland.dynamics.p_spin import PSpin
from lowland.dynamics.phases import Phases, find_phases
from lowland.dynamics.products import hessian_product
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.spectral_density import SpectralDensity, spectral_density
from lowland.dynamics.spherical_sk import SphericalSK
from lowland.dynamics.statics import aging_solution, statics
from lowland.dynamics.two_time import TwoTime

__all__ = [
    "Clones",
    "Dynamics",
    "GradientNoise",
    "MeanField",
    "PSpin",
    "Phases",
    "SpectralDensity",
    "SphericalSK",
    "TwoTime",
    "TwoTimeRecorder",
    "aging_exponent",
    "aging_solution",
    "clone_displacement",
    "collapse_score",
    "find_phases",
    "flat_directions",
    "gradient_noise",
    "hessian_edges",
    "hessian_product",
    "local_exponents",
    "log_times",
    "measure_clones",
    "measure_dynamics",
    "negative_fraction",
    "plan",
    "simulate_p_spin",
    "solve_mean_field",
    "spectral_density",
    "statics",
]
