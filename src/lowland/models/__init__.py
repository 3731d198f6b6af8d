"""The networks of the papers and small perceptrons, built by name and from a seed.

Any ``nn.Module`` works with the rest of the library; these are the ones that the recipes use.
"""

from lowland.models.boostable import padded_resnet, residual_mlp
from lowland.models.convolutional import cnn
from lowland.models.dense import densenet
from lowland.models.glassy import alex6464, bruna, conv1020, one_hot_losses
from lowland.models.names import build
from lowland.models.normalized import normalized_cnn, normalized_mlp
from lowland.models.perceptron import mlp
from lowland.models.recurrent import lstm
from lowland.models.residual import resnet
from lowland.models.weights import initialize
from lowland.models.wide import wide_resnet

__all__ = [
    "alex6464",
    "bruna",
    "build",
    "cnn",
    "conv1020",
    "densenet",
    "initialize",
    "lstm",
    "mlp",
    "normalized_cnn",
    "normalized_mlp",
    "one_hot_losses",
    "padded_resnet",
    "residual_mlp",
    "resnet",
    "wide_resnet",
]
