"""Costates are minus the slopes of J, M is minus the weight gradient: autograd is the oracle."""

import pytest
import torch
from layer_kinds import ALL, CONVOLUTIONS, EVEN, LINEAR, Attention, Two, made
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lowland.control.hamiltonian import hamiltonian_gradients
from lowland.control.trajectory import control_products, states_and_costates
from lowland.errors import UnsupportedModelError
from lowland.params import call
from small_networks import generators, same, snapshot

EXACT = {"atol": 1e-12, "rtol": 0}


def squared(output, target):
    """A smooth terminal cost of outputs of any shape."""
    return (output - target).square().flatten(1).sum(1)


def weighed(output, target):
    """A terminal cost that needs no target of the output's shape."""
    rows = output.flatten(1)
    return (rows.sin() * torch.linspace(1, 2, rows.shape[1], dtype=rows.dtype)).sum(1) * target


def by_autograd(model, loss_fn, inputs, target, seed=0):
    """J, its slope at the inputs, and its gradient."""
    torch.manual_seed(seed)
    inputs = inputs.clone().requires_grad_()
    loss = loss_fn(call(model, inputs), target).mean()
    names, params = (
        zip(*model.named_parameters(), strict=True) if [*model.parameters()] else ((), ())
    )
    slope, *grads = torch.autograd.grad(loss, [inputs, *params], materialize_grads=True)
    return loss.detach(), slope, dict(zip(names, grads, strict=True))


def view(model, loss_fn, inputs, target, seed=0, **options):
    torch.manual_seed(seed)
    return states_and_costates(model, loss_fn, inputs, target, **options)


@pytest.mark.filterwarnings(EVEN)
@pytest.mark.parametrize("kind", ALL)
def test_costates_and_gradients(kind):
    """C1: J, p_0 = -dJ/dx_0, and sum_s grad_theta H = -dJ/dtheta, for every kind of layer."""
    model, inputs, target = made(kind)
    loss, slope, grads = by_autograd(model, weighed, inputs, target)
    trajectory = view(model, weighed, inputs, target)
    assert_close(trajectory.loss, loss, **EXACT)
    assert_close(trajectory.initial_costates[0], -slope, **EXACT)
    found = hamiltonian_gradients(trajectory)
    assert found.keys() == grads.keys()
    for name, grad in grads.items():
        assert_close(found[name], -grad, **EXACT)


@pytest.mark.parametrize("kind", CONVOLUTIONS | LINEAR)
def test_products(kind):
    """C1, O7: M = sum p x^T = -dJ/dW, for convolutions by patches, in every geometry."""
    model, inputs, target = made(kind)
    _, _, grads = by_autograd(model, weighed, inputs, target)
    products = control_products(view(model, weighed, inputs, target))
    assert products.keys() == grads.keys()
    for name, grad in grads.items():
        assert_close(products[name], -grad, **EXACT)


@pytest.mark.parametrize("kind", ["chain", "batch norm of images", "residual", "dropout"])
def test_inner_costates(kind):
    """C1 inside: every costate is minus the slope of J at what a module returned."""
    model, inputs, target = made(kind)
    seen = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda m, x, y, name=name: seen.update({name: y}))
    torch.manual_seed(0)
    loss = weighed(model(inputs.requires_grad_()), target).mean()
    slopes = torch.autograd.grad(loss, list(seen.values()))
    expected = dict(zip(seen, slopes, strict=True))
    trajectory = view(model, weighed, inputs, target)
    found = {layer.name: p for layer, p in zip(trajectory.layers, trajectory.costates, strict=True)}
    for name, slope in expected.items():
        assert_close(found[name], -slope, **EXACT)


def test_unfolded_by_torch(rng):
    """O7: M of a convolution is sum P U^T with torch's own unfold."""
    model = nn.Conv2d(4, 6, (2, 3), (3, 1), (2, 0), (1, 2), bias=False).double()
    inputs = torch.randn(3, 4, 7, 9, dtype=torch.float64, generator=rng)
    trajectory = states_and_costates(model, weighed, inputs, torch.ones(3).double())
    u = F.unfold(inputs, (2, 3), (1, 2), (2, 0), (3, 1))
    p = trajectory.costates[0].flatten(2)
    slow = sum(p[s] @ u[s].T for s in range(3)).view(model.weight.shape)
    assert_close(control_products(trajectory)["weight"], slow, **EXACT)


def test_by_hand():
    """One linear layer, two examples: p = -(slope of Phi) / S, M = sum p x^T, in numbers."""
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = torch.tensor([[1.0, -1.0]]).double()
    inputs = torch.tensor([[1.0, 2.0], [3.0, 0.0]]).double()
    trajectory = states_and_costates(model, squared, inputs, torch.tensor([[0.0], [1.0]]).double())
    assert trajectory.loss == (1 + 4) / 2
    assert_close(trajectory.costates[0], torch.tensor([[1.0], [-2.0]]).double(), **EXACT)
    expected = torch.tensor([[1 - 6, 2.0]]).double()
    assert_close(control_products(trajectory)["weight"], expected, **EXACT)
    expected = torch.tensor([[1.0, -1.0], [-2.0, 2.0]]).double()
    assert_close(trajectory.initial_costates[0], expected, **EXACT)


def test_words_and_attention(rng):
    """Integers have no costate; a layer that returns several tensors has one for each."""
    torch.manual_seed(0)
    model = Attention().double().eval()
    words = torch.randint(0, 7, (3, 5), generator=rng)
    target = torch.ones(3).double()
    loss = weighed(model(words), target).mean()
    names, params = zip(*model.named_parameters(), strict=True)
    grads = dict(zip(names, torch.autograd.grad(loss, params), strict=True))
    model.requires_grad_(False)
    trajectory = states_and_costates(model, weighed, words, target)
    assert trajectory.initial_costates == (None,)
    assert_close(trajectory.loss, loss.detach(), **EXACT)
    gradients, products = hamiltonian_gradients(trajectory), control_products(trajectory)
    assert {"words.weight", "places.weight", "encoder.linear1.weight"} < products.keys()
    assert "memory.weight_hh_l0" not in products
    for name, grad in grads.items():
        assert_close(gradients[name], -grad, **EXACT)
        assert_close(products.get(name, -grad), -grad, **EXACT)
    memory = [layer.name for layer in trajectory.layers].index("memory")
    assert len(trajectory.costates[memory]) == len(trajectory.layers[memory].writes) == 3


@pytest.mark.parametrize("container", [tuple, dict])
@pytest.mark.parametrize("masked", [False, True])
def test_several_inputs(rng, container, masked):
    model = Two().double()
    parts = [torch.randn(6, n, dtype=torch.float64, generator=rng) for n in (3, 2, 5)]
    inputs = [part.requires_grad_() for part in parts[: 3 if masked else 2]]
    given = dict(zip(("left", "right", "mask"), inputs, strict=False))
    given = given if container is dict else tuple(inputs)
    target = torch.ones(6).double()
    slopes = torch.autograd.grad(weighed(call(model, given), target).mean(), inputs)
    trajectory = states_and_costates(model, weighed, given, target)
    for found, slope in zip(trajectory.initial_costates, slopes, strict=True):
        assert_close(found, -slope, **EXACT)
    _, products = trajectory, control_products(trajectory)
    loss = weighed(call(model, given), target).mean()
    for name, value in model.named_parameters():
        assert_close(
            products[name], -torch.autograd.grad(loss, value, retain_graph=True)[0], **EXACT
        )


@pytest.mark.parametrize(
    "kind", ["chain", "asymmetric", "batch norm of images", "dropout", "shared"]
)
def test_frozen_weights(kind):
    """C2: no derivative in a control is taken: the same bits with ``requires_grad=False``."""
    model, inputs, target = made(kind)
    free = view(model, weighed, inputs, target)
    model.requires_grad_(False)
    with torch.no_grad():
        frozen = view(model, weighed, inputs, target)
        assert same(control_products(frozen), control_products(free))
    assert same(frozen.costates, free.costates)
    assert same(frozen.states, free.states)


def test_no_graph_to_a_control():
    """C2: nothing that is kept asks for a gradient, and the forward pass saw no live parameter."""
    model, inputs, target = made("residual")
    seen = []

    def loss_fn(output, target):
        seen.append(output)
        return weighed(output, target)

    trajectory = view(model, loss_fn, inputs, target)
    assert seen[0].grad_fn is None
    for part in (trajectory.states, trajectory.outputs, trajectory.costates, trajectory.pulls):
        assert not any(tensor.requires_grad for row in part for tensor in row)
    assert not any(value.requires_grad for value in trajectory.params.values())
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize(
    "kind", ["batch norm of images", "dropout", "in place", "normalized weight"]
)
def test_the_model_comes_back(kind):
    """Bits, identities, modes, hooks, gradients and the global generators."""
    model, inputs, target = made(kind)
    by_autograd(model, weighed, inputs, target)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    torch.manual_seed(3)
    before, draws, copy = snapshot(model), generators(), inputs.clone()
    trajectory = states_and_costates(model, weighed, inputs, target)
    hamiltonian_gradients(trajectory)
    assert same(snapshot(model), before)
    assert same(generators(), draws)
    assert torch.equal(inputs, copy)
    assert not inputs.requires_grad


def test_a_step_of_training():
    """If asked, statistics and generators move exactly as in one forward pass of the model."""
    for kind in ("batch norm of images", "dropout"):
        (model, inputs, target), (other, _, _) = made(kind), made(kind)
        torch.manual_seed(5)
        other(inputs)
        draws = generators()
        torch.manual_seed(5)
        states_and_costates(model, weighed, inputs, target, update_statistics=True)
        assert same(model.state_dict(), other.state_dict())
        assert same(generators(), draws)


def test_dropout_is_drawn_once():
    """One realization serves states and costates, and the Hamiltonian afterwards."""
    model, inputs, target = made("dropout")
    trajectory = states_and_costates(model, weighed, inputs, target)
    (before,), after = trajectory.states[1], trajectory.outputs[1]
    mask = after / before
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    assert_close(trajectory.pulls[1][0], trajectory.costates[1] * mask, **EXACT)
    torch.rand(7)
    again = trajectory.layers[1](trajectory.states[1], trajectory.params)[0]
    assert torch.equal(again, after)


def test_other_controls(rng):
    """``params`` stands in for the model's own, for all names of a tied weight."""
    model, inputs, target = made("shared")
    other = torch.randn(4, 4, dtype=torch.float64, generator=rng)
    found = states_and_costates(model, weighed, inputs, target, params={"fc.weight": other})
    with torch.no_grad():
        model.fc.weight.copy_(other)
    expected = states_and_costates(model, weighed, inputs, target)
    assert same(found.costates, expected.costates)
    assert torch.equal(found.params["fc.weight"], other)


def test_the_trajectory_keeps_its_controls():
    """A later step of the user's does not reach into it."""
    model, inputs, target = made("batch norm in eval mode")
    trajectory = states_and_costates(model, weighed, inputs, target)
    before = hamiltonian_gradients(trajectory)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value += 1
    model.train()
    assert same(hamiltonian_gradients(trajectory), before)


# Bad input


def test_a_loss_that_is_reduced():
    model, inputs, target = made("linear")
    with pytest.raises(ValueError, match=r'shape \(5,\); got a scalar. Pass reduction="none"'):
        states_and_costates(model, lambda o, t: weighed(o, t).mean(), inputs, target)


class Diverges(nn.Module):
    def forward(self, x):
        return torch.tanh(torch.exp(1e6 * self.log(x)))

    @staticmethod
    def log(x):
        return x.abs() + 1


def test_a_state_that_is_not_finite():
    """Its first place is named, also where J is finite again."""
    _, inputs, target = made("linear")
    with pytest.raises(FloatingPointError, match="the state of the output of layer 'exp' is not"):
        states_and_costates(Diverges(), weighed, inputs, target)
    with pytest.raises(FloatingPointError, match="costate of the output of layer 'abs' is not"):
        states_and_costates(Root(), weighed, inputs, target)
    model = nn.Linear(4, 3).double()
    with pytest.raises(FloatingPointError, match="layer 'linear' is not.*Take smaller steps"):
        states_and_costates(model, weighed, inputs * torch.nan, target)


class Root(nn.Module):
    def forward(self, x):
        return (x * 0).abs().sqrt() + x


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda output, target: torch.zeros(4),
        lambda output, target: weighed(output.detach(), target),
        lambda output, target: torch.zeros(4, requires_grad=True) * 2,
    ],
)
def test_a_loss_without_a_graph_to_the_model(loss_fn):
    with pytest.raises(UnsupportedModelError, match="loss must be differentiable in the model's"):
        states_and_costates(nn.Linear(3, 2), loss_fn, torch.zeros(4, 3), torch.ones(4))


class Spectrum(nn.Module):
    """Complex numbers between real ones."""

    def forward(self, x):
        return torch.fft.fft(x).abs()


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (nn.Linear(3, 2, dtype=torch.complex64), torch.complex64, "control 'weight' is torch.comp"),
        (nn.Tanh(), torch.complex64, "an input is torch.complex64"),
        (Spectrum(), torch.float32, "the output of layer 'fft_fft' is torch.complex64"),
    ],
)
def test_complex_numbers(model, kind, message):
    x = torch.ones(4, 3, dtype=kind)
    with pytest.raises(UnsupportedModelError, match=message):
        states_and_costates(model, lambda z, y: z.abs().sum(1), x, torch.ones(4))


def test_complex_numbers_inside_of_a_layer(rng):
    layer = type("Seen", (Spectrum,), {"is_layer": True})()
    x = torch.randn(4, 3, dtype=torch.float64, generator=rng).requires_grad_()
    trajectory = states_and_costates(layer, weighed, x, torch.ones(4))
    (slope,) = torch.autograd.grad(weighed(layer(x), torch.ones(4)).mean(), x)
    assert_close(trajectory.initial_costates[0], -slope, **EXACT)


def test_a_model_that_ends_in_classes():
    model, inputs, target = made("linear")
    with pytest.raises(UnsupportedModelError, match="loss must be differentiable.*Return scores"):
        states_and_costates(Classes(), weighed, inputs, target)


class Classes(nn.Module):
    def forward(self, x):
        return x.argmax(1, keepdim=True).double()


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda name, x, params: 1.0, r"shape \(5,\), or None; got float for the layer 'linear'"),
        (lambda name, x, params: x.sum(), r"got shape \(\) .*Expand a cost of the controls"),
    ],
)
def test_a_running_cost_of_another_shape(cost, message):
    model, inputs, target = made("linear")
    with pytest.raises(ValueError, match=message):
        states_and_costates(model, weighed, inputs, target, running_cost=cost)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bias": torch.zeros(4)}, r"'bias' must have shape \(3,\); got \(4,\)"),
        ({"w": torch.zeros(3)}, r"must name controls of the model; got 'w'. There are \['bias'"),
    ],
)
def test_controls_that_do_not_fit(params, message):
    model, inputs, target = made("linear")
    with pytest.raises(ValueError, match=message):
        states_and_costates(model, weighed, inputs, target, params=params)


def test_products_that_have_no_formula():
    """Left out if nobody asks, refused with the way out if somebody does."""
    model, inputs, target = made("normalized weight")
    trajectory = states_and_costates(model, weighed, inputs, target)
    assert control_products(trajectory).keys() == set()
    with pytest.raises(UnsupportedModelError, match="'weight' is used by.*hamiltonian_gradients"):
        control_products(trajectory, ["weight"])
    with pytest.raises(ValueError, match="parameters of the model; got 'w'. There are"):
        control_products(trajectory, ["w"])
