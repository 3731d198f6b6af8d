"""Choose the examples worth a backward pass (Katharopoulos & Fleuret, ICML 2018).

Three doors: pieces for a loop of your own (``scores``, ``equivalent_batch``, ``pays``, ``draw``),
``ImportanceSampling`` for three changed lines in it, ``train_with_importance`` as a driver.
"""

from lowland.importance.baselines import RandomSubset, UniformSampling
from lowland.importance.compare import ArmResult, Comparison, best_rate, compare, time_to_loss
from lowland.importance.diagnose import Diagnosis, Ranking, diagnose, rank_examples
from lowland.importance.driver import ImportanceResult, train_with_importance
from lowland.importance.exact import gradient_norms, last_layer_scores
from lowland.importance.history import HistorySampling, RankSampling, rank_probabilities
from lowland.importance.hugging_face import ImportanceTrainer
from lowland.importance.lightning import ImportanceModule
from lowland.importance.losses import TokenCrossEntropy
from lowland.importance.pointwise import (
    binary_cross_entropy_scores,
    huber_scores,
    l1_scores,
    sigmoid_squared_error_scores,
    smooth_l1_scores,
    squared_error_scores,
)
from lowland.importance.pruning import InfoBatchPruning
from lowland.importance.race import Arm, race, steps_down
from lowland.importance.resample import draw, focus, merge
from lowland.importance.sampling import ImportanceSampling
from lowland.importance.scores import head_gradient_scores, scores
from lowland.importance.selective import SelectiveBackprop
from lowland.importance.softmax import cross_entropy_scores, focal_scores, token_scores
from lowland.importance.variance import (
    batch_multiplier,
    constant_time,
    constant_variance,
    equivalent_batch,
    pays,
    second_moment_ratio,
    threshold,
)

__all__ = [
    "Arm",
    "ArmResult",
    "Comparison",
    "Diagnosis",
    "HistorySampling",
    "ImportanceModule",
    "ImportanceResult",
    "ImportanceSampling",
    "ImportanceTrainer",
    "InfoBatchPruning",
    "RandomSubset",
    "RankSampling",
    "Ranking",
    "SelectiveBackprop",
    "TokenCrossEntropy",
    "UniformSampling",
    "batch_multiplier",
    "best_rate",
    "binary_cross_entropy_scores",
    "compare",
    "constant_time",
    "constant_variance",
    "cross_entropy_scores",
    "diagnose",
    "draw",
    "equivalent_batch",
    "focal_scores",
    "focus",
    "gradient_norms",
    "head_gradient_scores",
    "huber_scores",
    "l1_scores",
    "last_layer_scores",
    "merge",
    "pays",
    "race",
    "rank_examples",
    "rank_probabilities",
    "scores",
    "second_moment_ratio",
    "sigmoid_squared_error_scores",
    "smooth_l1_scores",
    "squared_error_scores",
    "steps_down",
    "threshold",
    "time_to_loss",
    "token_scores",
    "train_with_importance",
]
