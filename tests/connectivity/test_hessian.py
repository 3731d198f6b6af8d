"""Section 7.6: what the Hessian does to symmetries and to tangents of flat paths."""

import pytest
import torch
from torch import float64, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lowland.data import load
from lowland.params import call_at, trainable
from lowland.problems import choreography, trivial_directions


def full_hessian(loss, vector, rows=130):
    """Every entry by reverse mode over reverse mode, some rows at once; and the gradient."""
    leaf = vector.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    blocks = [
        torch.autograd.grad(gradient, leaf, some, is_grads_batched=True, retain_graph=True)[0]
        for some in torch.eye(len(leaf), dtype=float64).split(rows)
    ]
    return torch.cat(blocks), gradient.detach()


def random_state(model, rng):
    """Random weights of torch's size, from a generator."""
    fans = {name: value.shape[-1] for name, value in model.state_dict().items() if value.ndim == 2}
    return {
        name: (2 * torch.rand(value.shape, dtype=float64, generator=rng) - 1)
        * fans[name.replace("bias", "weight")] ** -0.5
        for name, value in model.state_dict().items()
    }


def loss_of(model, inputs, target):
    layout = trainable(model)

    def loss(vector):
        return cross_entropy(call_at(model, layout.views(vector), inputs), target)

    return loss


@pytest.fixture
def awkward(rng):
    """A network with two hidden layers, a unit that is never active, and an input that is zero."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    model.double().load_state_dict(random_state(model, rng))
    with torch.no_grad():
        model[0].bias[1] = -100
    inputs = torch.randn(40, 5, dtype=float64, generator=rng)
    inputs[:, 2] = 0
    target = torch.randint(0, 3, (40,), generator=rng)
    vector = trainable(model).flatten(dict(model.named_parameters()))
    return model, vector, inputs, target


def test_trivial_directions_of_an_awkward_network(awkward):
    """At a random point z'g = 0, and H z = 0 but for rescalings, where it is (-g_in, g_out)."""
    model, vector, inputs, target = awkward
    directions = trivial_directions(model, inputs)
    hessian, gradient = full_hessian(loss_of(model, inputs, target), vector)
    assert torch.linalg.matrix_rank(directions) == len(directions)
    assert_close(directions.norm(dim=1), torch.ones(len(directions), dtype=float64))
    # zero input: 4 weights; dead unit: 5 + 1 incoming less the one counted, 3 outgoing;
    # 3 + 3 living hidden units; 3 units and the bias shift the softmax
    assert len(directions) == 4 + 5 + 3 + 6 + 4
    assert_close(directions @ gradient, torch.zeros(len(directions), dtype=float64))
    moved = directions @ hessian
    rescales = moved.abs().amax(1) > 1e-12
    assert rescales.sum() == 6
    signs = -torch.sign(directions * vector)
    for z, sign, hz in zip(*(x[rescales] for x in (directions, signs, moved)), strict=True):
        size = (z / vector)[z != 0].abs().mean()
        assert_close(hz, size * sign * gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("full_steps", "bound"), [(300, 3e-4), pytest.param(5000, 1e-4, marks=pytest.mark.slow)]
)
def test_digits_have_61_trivial_directions(full_steps, bound):
    """MLP 64-12-10 (D = 910) on all digits, no decay: |Hz| / (|z| lambda_max) is small.

    The 8.4e-5 of the specification belongs to a minimum that is not given. For rescalings the
    ratio is a part of the gradient over lambda_max, and falls as training goes on.
    """
    rng = torch.Generator().manual_seed(7)  # no unit dies on the way; other seeds lose one or two
    digits = load("digits")
    images = torch.cat([digits.images, digits.test_images]).flatten(1).double() / 255
    labels = torch.cat([digits.labels, digits.test_labels])
    model = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).double()
    layout = trainable(model)
    start = layout.flatten(random_state(model, rng))
    vector = descend(model, start, images, labels, rng, full_steps)
    model.load_state_dict(layout.views(vector))
    directions = trivial_directions(model, images)
    hessian, gradient = full_hessian(loss_of(model, images, labels), vector)
    largest = torch.linalg.eigvalsh(hessian)[-1]
    assert layout.size == 910
    # 12 rescalings, 12 + 1 softmax shifts, 3 black pixels times 12 units
    assert ((images == 0).all(0).sum(), len(directions)) == (3, 12 + 13 + 36)
    assert torch.linalg.matrix_rank(directions) == 61
    ratios = (directions @ hessian).norm(dim=1) / largest
    assert (ratios > 1e-12).sum() == 12  # all but the rescalings are exact
    assert ratios.max() <= bound
    assert ratios.max() <= gradient.norm() / largest
    random = torch.randn(910, dtype=float64, generator=rng)
    assert (hessian @ random).norm() / (random.norm() * largest) > 20 * ratios.max()


def descend(model, vector, inputs, target, rng, full_steps):
    """Stochastic gradient descent, then gradient descent with momentum on everything."""
    leaf = vector.requires_grad_()
    velocity = torch.zeros_like(leaf)
    shuffled = [torch.randperm(len(inputs), generator=rng).split(32) for _ in range(60)]
    batches = [batch for epoch in shuffled for batch in epoch] + [slice(None)] * full_steps
    layout = trainable(model)
    for batch in batches:
        rate, momentum = (0.2, 0.95) if isinstance(batch, slice) else (0.1, 0.0)
        output = call_at(model, layout.views(leaf), inputs[batch])
        (slope,) = torch.autograd.grad(cross_entropy(output, target[batch]), leaf)
        velocity = momentum * velocity + slope
        leaf = (leaf.detach() - rate * velocity).requires_grad_()
    return leaf.detach()


def test_the_tangent_of_a_flat_path_is_not_curved(rng):
    r"""On the choreography :math:`\tau' H \tau = 0` everywhere, at random weights and labels."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    state = random_state(model, rng)
    state["2.weight"][:, 4] = 0
    inputs = torch.randn(50, 4, dtype=float64, generator=rng)
    target = torch.randint(0, 3, (50,), generator=rng)
    loss, layout = loss_of(model, inputs, target), trainable(model)
    path = torch.stack([layout.flatten(stop) for stop in choreography(state, 0, 2, 4)])
    for here, there in zip(path[:-1], path[1:], strict=True):
        tangent = (there - here) / (there - here).norm()
        for point in (here, (here + there) / 2):
            hessian, gradient = full_hessian(loss, point)
            assert abs(tangent @ gradient) < 1e-13
            assert abs(tangent @ hessian @ tangent) < 1e-12
            chord = path[-1] - path[0]
            assert abs(chord @ hessian @ chord) / chord.norm() ** 2 > 1e-4


def test_the_tangent_is_a_null_vector_at_a_minimum(rng):
    """At the labels' own teacher H is positive semi-definite, so that even H tau = 0."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    state = random_state(model, rng)
    state["2.weight"][:, 4] = 0
    inputs = torch.randn(50, 4, dtype=float64, generator=rng)
    said = call_at(model, state, inputs).softmax(1)
    loss, layout = loss_of(model, inputs, said), trainable(model)
    path = torch.stack([layout.flatten(stop) for stop in choreography(state, 0, 2, 4)])
    for here, there in zip(path[:-1], path[1:], strict=True):
        hessian, gradient = full_hessian(loss, here)
        assert gradient.norm() < 1e-14
        assert torch.linalg.eigvalsh(hessian)[0] > -1e-12
        tangent = (there - here) / (there - here).norm()
        assert (hessian @ tangent).norm() < 1e-13
