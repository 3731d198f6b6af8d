"""``lowland.control.explicit_step``: the bits of ``backward()`` and the rule, without them."""

from copy import deepcopy

import pytest
import torch
from torch import float64, nn, tensor
from torch.testing import assert_close

from lowland.control.discrete import DiscreteMSA
from lowland.control.explicit import explicit_step
from small_networks import class_batches, conv_net, losses, norm_mlp, seeded

BINARY, TERNARY = (-1.0, 1.0), (-1.0, 0.0, 1.0)


def discrete(make, values, seed=1):
    """A network with weights drawn from a set; batch norms and biases are float."""
    model = seeded(make, seed).double()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                index = torch.randint(len(values), parameter.shape, generator=draws)
                parameter.copy_(tensor(values, dtype=float64)[index])
    return model.train()


def weights_of(model):
    return {name: p for name, p in model.named_parameters() if p.ndim > 1}


def floats_of(model):
    return {name: p for name, p in model.named_parameters() if p.ndim <= 1}


def by_hand(weight, average, values, rho, lam):
    """The specification's rules, word by word."""
    wrong = average.sign() != weight
    m = average[wrong].abs().max() if wrong.any() else average.new_zeros(())
    if values == BINARY:
        return torch.where(average.abs() > rho * m, average.sign(), weight)
    k = rho * m
    up = average > k * (1 - 2 * weight) + lam
    down = average < -k * (1 + 2 * weight) - lam
    return up.double() - down.double()


CASES = [
    (norm_mlp, (4,), BINARY, 0.5, 0.0),
    (norm_mlp, (4,), TERNARY, 0.25, 1e-3),
    (conv_net, (1, 4, 4), BINARY, 0.5, 0.0),
    (conv_net, (1, 4, 4), TERNARY, 0.25, 1e-3),
]


@pytest.mark.parametrize(("make", "shape", "values", "rho", "lam"), CASES)
def test_fifty_steps_without_a_gradient(make, shape, values, rho, lam):
    """C2: the weights of DiscreteMSA and of the rule by hand; batch norm by the same Adam."""
    alpha, rate = 0.9, 1e-2
    model = discrete(make, values).requires_grad_(requires_grad=False)
    peer, slow = (deepcopy(model).requires_grad_() for _ in range(2))
    ours = torch.optim.Adam([*floats_of(model).values()], lr=rate)
    theirs = torch.optim.Adam([*floats_of(peer).values()], lr=rate)
    by_adam = torch.optim.Adam([*floats_of(slow).values()], lr=rate)
    rule = DiscreteMSA([*weights_of(peer).values()], values=values, rho=rho, alpha=alpha, lam=lam)
    batches = class_batches(*shape, sizes=(12,) * 10, dtype=float64)
    averages = None
    means = {name: torch.zeros_like(w) for name, w in weights_of(slow).items()}
    flips = 0
    for step in range(50):
        inputs, target = batches[step % len(batches)]
        options = {"values": values, "alpha": alpha, "rho": rho, "lam": lam}
        found = explicit_step(model, losses, inputs, target, averages, **options)
        averages = found.averages
        flips += found.changed
        assert list(found.slopes) == list(floats_of(model))
        for name, parameter in floats_of(model).items():
            parameter.grad = -found.slopes[name]
        ours.step()

        for net, optimizers in ((peer, (rule, theirs)), (slow, (by_adam,))):
            net.zero_grad()
            loss = losses(net(inputs), target).mean()
            assert loss.item() == pytest.approx(found.loss.item(), rel=1e-14)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        with torch.no_grad():
            for name, weight in weights_of(slow).items():
                means[name] = alpha * means[name] - (1 - alpha) * weight.grad
                weight.copy_(by_hand(weight, means[name], values, rho, lam))

        for name in means:
            assert_close(averages[name], means[name], rtol=1e-12, atol=1e-15)
            assert_close(averages[name], rule.state[peer.get_parameter(name)]["average"],
                         rtol=1e-12, atol=1e-15)  # fmt: skip
            for net in (peer, slow):
                assert torch.equal(model.get_parameter(name), net.get_parameter(name))
    assert flips > 50
    for other in (peer, slow):
        for name, value in model.state_dict().items():
            assert_close(value, other.state_dict()[name], rtol=1e-10, atol=1e-12)
    assert all(p.grad is None for p in weights_of(model).values())
    assert not any(p.requires_grad for p in model.parameters())


def test_a_linear_network_has_the_same_bits():
    """The outer product is the one of autograd: not only close."""
    model = nn.Sequential(*[m for m in discrete(norm_mlp, BINARY) if not isinstance(m, nn.Tanh)])
    peer = deepcopy(model)
    rule = DiscreteMSA([*weights_of(peer).values()], rho=0.5, alpha=0.9)
    averages = None
    for inputs, target in class_batches(4, sizes=(12,) * 50, dtype=float64):
        options = {"values": BINARY, "alpha": 0.9, "rho": 0.5}
        averages = explicit_step(model, losses, inputs, target, averages, **options).averages
        peer.zero_grad()
        losses(peer(inputs), target).mean().backward()
        rule.step()
        for name, weight in weights_of(peer).items():
            assert torch.equal(averages[name], rule.state[weight]["average"])
            assert torch.equal(model.get_parameter(name), weight)


def test_limits():
    """O8: alpha = rho = 0 is the sign of M; rho = 1 freezes; a high price empties in one step."""
    [(inputs, target)] = class_batches(4, sizes=(12,), dtype=float64)
    start = discrete(norm_mlp, TERNARY)
    for rho, lam, wanted in [(0.0, 0.0, torch.sign), (0.25, 1e3, torch.zeros_like)]:
        model = deepcopy(start)
        options = {"values": TERNARY, "alpha": 0.0, "rho": rho, "lam": lam}
        found = explicit_step(model, losses, inputs, target, **options)
        for name, weight in weights_of(model).items():
            assert torch.equal(weight, wanted(found.averages[name]))
    model = discrete(norm_mlp, BINARY)
    found = explicit_step(model, losses, inputs, target, values=BINARY, alpha=0.0, rho=1.0)
    assert found.changed == 0


def test_statistics_of_batch_norm_count_the_step():
    """As a forward pass of training does, and not where that is switched off."""
    [(inputs, target)] = class_batches(4, sizes=(12,), dtype=float64)
    for update in (True, False):
        model = discrete(norm_mlp, BINARY)
        peer = deepcopy(model)
        options = {"values": BINARY, "alpha": 0.9, "rho": 1.0, "update_statistics": update}
        explicit_step(model, losses, inputs, target, **options)
        if update:
            peer(inputs)
        for name, value in peer.named_buffers():
            assert_close(value, model.get_buffer(name))


BAD = [
    ({"alpha": 1.0}, r"alpha, the keep rate of the average, must be in \[0, 1\)"),
    ({"rho": -1.0}, "rho, the penalty on a move, must be finite and at least 0"),
    ({"lam": -1.0}, "lam, the price of a weight, must be finite and at least 0"),
    ({"threshold": "soft"}, "threshold must be"),
    ({"values": ()}, "values must be different finite numbers"),
    ({"values": (0, 1)}, "every weight must be one of"),
    ({"values": None}, r"must have discrete weights, or values must be given"),
    ({"averages": {"0.weight": torch.zeros(6, 4)}}, "averages must be those of the step before"),
    ({"averages": {"other": torch.zeros(1)}}, "averages must be those of the step before"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input(options, words):
    model = discrete(norm_mlp, BINARY)
    before = deepcopy(model.state_dict())
    [(inputs, target)] = class_batches(4, sizes=(12,), dtype=float64)
    with pytest.raises(ValueError, match=words):
        explicit_step(
            model, losses, inputs, target, **{"values": BINARY, "alpha": 0.9, "rho": 0.5} | options
        )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_numbers_that_are_not_finite_change_nothing():
    model = discrete(norm_mlp, BINARY)
    before = deepcopy(dict(model.named_parameters()))
    [(inputs, target)] = class_batches(4, sizes=(12,), dtype=float64)
    with pytest.raises(ValueError, match=r"must be finite.*'0'.*Nothing was changed"):
        explicit_step(model, losses, inputs / 0, target, values=BINARY, alpha=0.9, rho=0.5)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
