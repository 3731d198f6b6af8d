"""Problems whose answer is known: potentials and tiny networks with their minima and best paths.

Made for tests, for documentation, and for whoever wants to see a method at work where the truth
is known. Everything is in float64.
"""

from lowland.problems.choreography import choreography, swap_units
from lowland.problems.linear_networks import (
    LinearNetwork,
    NetworkPair,
    linear_loss,
    rescaled_pair,
    sign_flipped_pair,
    squared_error,
)
from lowland.problems.linear_quadratic import (
    ControlledStep,
    LinearQuadratic,
    double_integrator,
    one_step_regulator,
)
from lowland.problems.potentials import (
    Potential,
    curvy_valley,
    double_wells,
    eggcarton,
    leps_harmonic,
    mueller_brown,
    six_hump_camel,
)
from lowland.problems.symmetries import trivial_directions
from lowland.problems.xor import (
    XorNetwork,
    find_xor_minimum,
    logistic_loss,
    xor_data,
    xor_ends,
    xor_scores,
    xor_targets,
)

__all__ = [
    "ControlledStep",
    "LinearNetwork",
    "LinearQuadratic",
    "NetworkPair",
    "Potential",
    "XorNetwork",
    "choreography",
    "curvy_valley",
    "double_integrator",
    "double_wells",
    "eggcarton",
    "find_xor_minimum",
    "leps_harmonic",
    "linear_loss",
    "logistic_loss",
    "mueller_brown",
    "one_step_regulator",
    "rescaled_pair",
    "sign_flipped_pair",
    "six_hump_camel",
    "squared_error",
    "swap_units",
    "trivial_directions",
    "xor_data",
    "xor_ends",
    "xor_scores",
    "xor_targets",
]
