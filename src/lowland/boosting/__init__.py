"""Grow any residual network block by block, with a certificate on its training error.

Huang, Ash, Langford, Schapire, *Learning Deep ResNet Blocks Sequentially using Boosting Theory*,
ICML 2018.
"""

from lowland.boosting.alphas import closed_alpha, improvement, line_search_alpha
from lowland.boosting.baselines import adaboost_mm, checkpointed
from lowland.boosting.bounds import Certificate
from lowland.boosting.certificate import certificate
from lowland.boosting.chain import Chain, Part, as_chain
from lowland.boosting.costs import (
    binary_output,
    cost_matrix,
    covariance,
    edge,
    exponential_loss,
    margins,
    pair_weights,
)
from lowland.boosting.exits import predict_early
from lowland.boosting.features import read_features
from lowland.boosting.generalization import (
    GeneralizationBound,
    generalization_bound,
    l1_norms,
    margin_factor,
    project_l1_,
)
from lowland.boosting.gradient_free import (
    FittedBlock,
    RandomFeatures,
    TreeBlock,
    functional_gradient,
)
from lowland.boosting.heads import make_head
from lowland.boosting.refine import refine
from lowland.boosting.result import BoostResult, Round
from lowland.boosting.statistics import measure
from lowland.boosting.train import train_boosted
from lowland.training.memory import saved_bytes

__all__ = [
    "BoostResult",
    "Certificate",
    "Chain",
    "FittedBlock",
    "GeneralizationBound",
    "Part",
    "RandomFeatures",
    "Round",
    "TreeBlock",
    "adaboost_mm",
    "as_chain",
    "binary_output",
    "certificate",
    "checkpointed",
    "closed_alpha",
    "cost_matrix",
    "covariance",
    "edge",
    "exponential_loss",
    "functional_gradient",
    "generalization_bound",
    "improvement",
    "l1_norms",
    "line_search_alpha",
    "make_head",
    "margin_factor",
    "margins",
    "measure",
    "pair_weights",
    "predict_early",
    "project_l1_",
    "read_features",
    "refine",
    "saved_bytes",
    "train_boosted",
]
