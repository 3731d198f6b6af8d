"""Hidden units have no order and no sign, and training does not give them one (oracle O9)."""

from copy import deepcopy

import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.control import DiscreteMSA, discrete_parameters, discretize, float_parameters

ORDER = [3, 0, 5, 1, 4, 2]


def network():
    """Discrete layers behind norms, whose scales are away from 1."""
    torch.manual_seed(0)
    layers = (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(),
              nn.Linear(6, 3, bias=False), nn.BatchNorm1d(3))  # fmt: skip
    model = discretize(nn.Sequential(*layers).double(), (-1, 0, 1))
    nn.init.uniform_(model[1].weight, 0.5, 2)
    return model


@torch.no_grad()
def permuted(model):
    """The same function with its hidden units in another order."""
    twin = deepcopy(model)
    twin[0].weight.copy_(model[0].weight[ORDER])
    twin[3].weight.copy_(model[3].weight[:, ORDER])
    for name, value in twin[1].state_dict().items():
        if value.ndim:
            value.copy_(model[1].state_dict()[name][ORDER])
    return twin


def trained(model, rng):
    """Twenty steps on random batches."""
    rule = DiscreteMSA(discrete_parameters(model), alpha=0.8, lam=1e-3)
    floats = torch.optim.SGD(float_parameters(model), 0.1)
    for _ in range(20):
        inputs = torch.randn(12, 4, dtype=float64, generator=rng)
        model.zero_grad()
        nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()).backward()
        rule.step()
        floats.step()
    return model


def test_training_permuted_units_is_training_and_permuting():
    start = network()
    one = permuted(trained(deepcopy(start), torch.Generator().manual_seed(1)))
    other = trained(permuted(start), torch.Generator().manual_seed(1))
    assert not torch.equal(one[0].weight, permuted(start)[0].weight)
    for name, value in one.state_dict().items():
        exact = name in ("0.weight", "3.weight")
        limits = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-9, "atol": 1e-12}
        assert_close(other.state_dict()[name], value, **limits)


def test_a_negated_row_and_norm_leave_the_function(rng):
    """In both modes: the mean of a unit that is negated is negated too."""
    model = trained(network(), rng)
    twin = deepcopy(model)
    with torch.no_grad():
        for value in (twin[0].weight, twin[1].weight, twin[1].running_mean):
            value[2] *= -1
    inputs = torch.randn(12, 4, dtype=float64, generator=rng)
    for is_training in (True, False):
        model.train(is_training)
        twin.train(is_training)
        assert_close(twin(inputs), model(inputs), rtol=1e-12, atol=1e-12)
