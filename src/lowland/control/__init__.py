"""Training by the maximum principle, and networks of binary and very sparse ternary weights."""

from lowland.control.adversarial import pgd_perturbation, yopo_step
from lowland.control.comparators import (
    AbsmeanTernary,
    BinaryConnect,
    TernaryWeightNetwork,
    glorot_learning_rates,
    use_latent_weights,
)
from lowland.control.discrete import DiscreteMSA
from lowland.control.discretize import RowScale, describe, discretize
from lowland.control.estimate import ErrorEstimate, LayerEstimate, error_estimate
from lowland.control.explicit import ExplicitStep, explicit_step
from lowland.control.extended import extended_msa
from lowland.control.hamiltonian import (
    feasibility_hamiltonian,
    hamiltonian,
    hamiltonian_gradients,
    proximal_hamiltonian,
)
from lowland.control.held import BINARY, TERNARY
from lowland.control.layer import Layer
from lowland.control.layers import as_layers
from lowland.control.losses import squared_hinge
from lowland.control.marks import discrete_parameters, float_parameters, nonzero_share, values_of
from lowland.control.monotone import monotone_msa
from lowland.control.msa import basic_msa, gradient_step
from lowland.control.packing import (
    Codes,
    LayerSummary,
    PackedModel,
    Summary,
    Swept,
    export_onnx,
    find_codes,
    from_i2s,
    load_onnx,
    load_packed,
    pack,
    summary,
    sweep_dead_weights,
    to_i2s,
    to_qonnx,
)
from lowland.control.residual import Residual, maximum_principle_residual
from lowland.control.result import MSAResult
from lowland.control.rules import binary_rule, finite_set_rule, largest_wrong, ternary_rule
from lowland.control.schedules import annealing, nonzero_schedule, per_epoch
from lowland.control.sparsity import price_of_share
from lowland.control.together import Together
from lowland.control.train import train_msa
from lowland.control.trajectory import Trajectory, control_products, states_and_costates

__all__ = [
    "BINARY",
    "TERNARY",
    "AbsmeanTernary",
    "BinaryConnect",
    "Codes",
    "DiscreteMSA",
    "ErrorEstimate",
    "ExplicitStep",
    "Layer",
    "LayerEstimate",
    "LayerSummary",
    "MSAResult",
    "PackedModel",
    "Residual",
    "RowScale",
    "Summary",
    "Swept",
    "TernaryWeightNetwork",
    "Together",
    "Trajectory",
    "annealing",
    "as_layers",
    "basic_msa",
    "binary_rule",
    "control_products",
    "describe",
    "discrete_parameters",
    "discretize",
    "error_estimate",
    "explicit_step",
    "export_onnx",
    "extended_msa",
    "feasibility_hamiltonian",
    "find_codes",
    "finite_set_rule",
    "float_parameters",
    "from_i2s",
    "glorot_learning_rates",
    "gradient_step",
    "hamiltonian",
    "hamiltonian_gradients",
    "largest_wrong",
    "load_onnx",
    "load_packed",
    "maximum_principle_residual",
    "monotone_msa",
    "nonzero_schedule",
    "nonzero_share",
    "pack",
    "per_epoch",
    "pgd_perturbation",
    "price_of_share",
    "proximal_hamiltonian",
    "squared_hinge",
    "states_and_costates",
    "summary",
    "sweep_dead_weights",
    "ternary_rule",
    "to_i2s",
    "to_qonnx",
    "train_msa",
    "use_latent_weights",
    "values_of",
    "yopo_step",
]
