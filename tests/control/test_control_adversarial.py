"""``lowland.control.adversarial``: YOPO is PGD where its costate is fresh, and else cheaper."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lowland.control.adversarial import pgd_perturbation, yopo_step
from lowland.data import Batches, load
from lowland.errors import UnsupportedModelError
from lowland.models import build


def losses(output, target):
    return cross_entropy(output, target, reduction="none")


def squares(output, target):
    return (output - target).square().sum(1)


def network(rng, kind=nn.Tanh):
    layers = nn.Sequential(nn.Linear(5, 7), kind(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))
    for parameter in layers.double().parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=rng)
    x = torch.randn(8, 5, dtype=torch.float64, generator=rng)
    return layers, x, torch.randint(3, (8,), generator=rng)


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_pgd_on_a_linear_model_by_hand():
    """The loss falls in every output: a step goes along -sign(W), three of 0.4 end at eps = 1."""
    model = nn.Linear(3, 1, bias=False).double()
    model.weight.data = torch.tensor([[2.0, -0.5, 0.0]]).double()
    x = torch.zeros(2, 3, dtype=torch.float64)
    for steps, reach in ((1, 0.4), (2, 0.8), (3, 1.0)):
        eta = pgd_perturbation(
            model, lambda z, _: -z[:, 0], x, x, eps=1.0, step_size=0.4, steps=steps
        )
        torch.testing.assert_close(eta, torch.tensor([[-reach, reach, 0.0]] * 2).double())


def test_pgd_raises_the_loss_and_stays_within_reach_and_bounds(rng):
    model, x, target = network(rng)
    x = x.sigmoid()
    eta = pgd_perturbation(
        *(model, losses, x, target),
        **dict(eps=0.2, step_size=0.05, steps=10, bounds=(0.0, 1.0), generator=rng),
    )
    assert losses(model(x + eta), target).mean() > losses(model(x), target).mean() + 0.1
    assert eta.abs().max() <= 0.2 + 1e-12
    assert (x + eta).min() >= 0
    assert (x + eta).max() <= 1 + 1e-12
    assert not eta.requires_grad


def test_pgd_leaves_the_model_alone(rng):
    """In train mode with batch norm: statistics, mode, .grad and generator are what they were."""
    model = build("bn-mlp-5-7-3").double()
    model(torch.randn(4, 5, dtype=torch.float64, generator=rng)).sum().backward()
    model.norm1.eval()
    before = [t.clone() for t in (*model.state_dict().values(), *gradients(model))]
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    x = torch.randn(4, 5, dtype=torch.float64, generator=rng)
    target = torch.tensor([0, 1, 2, 0])
    pgd_perturbation(model, losses, x, target, eps=0.1, step_size=0.1, steps=2, generator=rng)
    after = [*model.state_dict().values(), *gradients(model)]
    assert all(map(torch.equal, before, after))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("split", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 5])
def test_with_one_inner_step_it_is_pgd(split, seed, rng):
    """The costate is always fresh, so m passes are m steps, wherever the model is split."""
    model, x, target = network(rng)
    options = dict(eps=0.3, step_size=0.1, bounds=(-1.0, 1.0))

    def again():
        return None if seed is None else torch.Generator().manual_seed(seed)

    for m in (1, 4):
        expected = pgd_perturbation(
            model, losses, x.tanh(), target, steps=m, generator=again(), **options
        )
        eta, _ = yopo_step(
            *(model[:split], model[split:], losses, x.tanh(), target),
            **dict(full_steps=m, inner_steps=1, generator=again(), **options),
        )
        assert torch.equal(eta, expected)
        assert expected.any()


def test_behind_a_linear_first_layer_it_follows_the_sign_of_p_w(rng):
    """H_0 = p_1 W (x + eta): its slope does not change, so n steps go n times the same way."""
    model, x, target = network(rng)
    state = model[0](x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(losses(model[1:](state), target).mean(), state)
    direction = -torch.sign(-slope @ model[0].weight.detach())
    for n in (1, 2, 5):
        eta, _ = yopo_step(
            *(model[:1], model[1:], losses, x, target),
            **dict(eps=0.35, step_size=0.1, full_steps=1, inner_steps=n),
        )
        torch.testing.assert_close(eta, min(0.1 * n, 0.35) * direction)


def test_a_quadratic_first_layer_by_hand():
    """f_0 = z^2, J = x_1, so p_1 = -1 and H_0 = -(x + eta)^2: the adversary leaves 0 for good."""

    class Square(nn.Module):
        def forward(self, x):
            return x**2

    x = torch.tensor([[0.3], [-0.2], [0.0]], dtype=torch.float64)
    for n, reach in ((1, 0.25), (2, 0.5), (9, 0.6)):
        eta, loss = yopo_step(
            *(Square(), nn.Identity(), lambda z, _: z[:, 0], x, x),
            **dict(eps=0.6, step_size=0.25, full_steps=1, inner_steps=n),
        )
        torch.testing.assert_close(eta[:, 0], torch.tensor([reach, -reach, 0.0]).double())
        torch.testing.assert_close(loss.item(), (0.3**2 + 0.2**2) / 3)


def test_weights_get_the_mean_gradient_of_the_full_passes(rng):
    """By loops: the gradient at the perturbation that each full pass began with, added to .grad."""
    model, x, target = network(rng)
    options = dict(eps=0.5, step_size=0.1)
    _, loss = yopo_step(
        *(model[:1], model[1:], losses, x, target), full_steps=3, inner_steps=2, **options
    )
    found = gradients(model)
    total = 0.0
    model.zero_grad()
    eta = torch.zeros_like(x)
    for _ in range(3):
        state = model[0](x + eta).detach().requires_grad_()
        (slope,) = torch.autograd.grad(losses(model[1:](state), target).sum(), state)
        mean = losses(model(x + eta), target).mean() / 3
        mean.backward()
        total += mean.item()
        for _ in range(2):
            eta = (eta + 0.1 * torch.sign(slope @ model[0].weight.detach())).clamp(-0.5, 0.5)
    for got, expected in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(got, expected)
    assert loss.item() == pytest.approx(total)
    yopo_step(*(model[:1], model[1:], losses, x, target), full_steps=3, inner_steps=2, **options)
    for got, expected in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(2 * got, expected)


def test_full_passes_are_counted(rng):
    """Through the rest m, forward and backward; m (1 + n) through the first layer."""
    model, x, target = network(rng)
    counts = dict(first=0, forward=0, backward=0)
    first, rest = model[:1], model[1:]

    def count(name):
        counts[name] += 1

    first.register_forward_hook(lambda *_: count("first"))
    rest.register_forward_hook(lambda *_: count("forward"))
    rest.register_full_backward_hook(lambda *_: count("backward"))
    options = dict(eps=0.5, step_size=0.1, full_steps=3, inner_steps=5)
    yopo_step(first, rest, losses, x, target, **options)
    assert counts == dict(first=18, forward=3, backward=3)


def test_a_second_layer_that_writes_in_place_changes_nothing(rng):
    """The costate is that of the first layer's output as it left it."""
    found = []
    for is_in_place in (False, True):
        rng.manual_seed(3)
        model, x, target = network(rng, lambda flag=is_in_place: nn.ReLU(inplace=flag))
        options = dict(eps=0.5, step_size=0.1, full_steps=2, inner_steps=2)
        eta, _ = yopo_step(model[:1], model[1:], losses, x, target, **options)
        found.append([eta, *gradients(model)])
    assert all(map(torch.equal, *found))


def test_a_frozen_first_layer_has_a_costate_too(rng):
    model, x, target = network(rng)
    options = dict(eps=0.5, step_size=0.1, full_steps=2, inner_steps=3)
    expected, _ = yopo_step(model[:1], model[1:], losses, x, target, **options)
    model.zero_grad()
    model[0].requires_grad_(False)
    eta, _ = yopo_step(model[:1], model[1:], losses, x, target, **options)
    assert torch.equal(eta, expected)
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(inputs=torch.zeros(2, 3, dtype=torch.uint8)), "floating-point numbers; got torch.u"),
        (dict(eps=0.0), "eps and step_size must be positive; got 0.0 and 0.1"),
        (dict(step_size=-1.0), "eps and step_size must be positive"),
        (dict(full_steps=0), "full_steps must be a whole number, at least 1; got 0"),
        (dict(inner_steps=0), "inner_steps must be a whole number, at least 1; got 0"),
        (dict(bounds=(0.5, 1)), r"inputs must lie in bounds, \(0.5, 1\); got numbers from 0 to 0"),
        (dict(bounds=(-1.0, -0.1)), "inputs must lie in bounds"),
        (dict(inputs=torch.full((2, 3), torch.nan), bounds=(-1, 1)), "inputs must lie in bounds"),
        (dict(loss_fn=lambda z, y: z.sum()), "loss_fn must return one loss per example"),
    ],
)
@pytest.mark.untyped
def test_bad_input_meets_a_sentence(change, message):
    good = dict(loss_fn=squares, inputs=torch.zeros(2, 3), target=torch.zeros(2, 1))
    good |= dict(eps=0.1, step_size=0.1, full_steps=1, inner_steps=1)
    with pytest.raises(ValueError, match=message):
        yopo_step(nn.Linear(3, 2), nn.Linear(2, 1), **(good | change))


def test_pgd_refuses_inputs_out_of_bounds_too():
    """Moving them there could take more than eps."""
    x, target = torch.full((2, 3), 1.5), torch.zeros(2, 1)
    options = dict(eps=0.1, step_size=0.1, steps=1, bounds=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"got numbers from 1.5 to 1.5. Clamp them"):
        pgd_perturbation(nn.Linear(3, 1), squares, x, target, **options)


def test_a_loss_without_a_graph():
    x, target = torch.zeros(2, 3), torch.zeros(2, 1)
    options = dict(eps=0.1, step_size=0.1)
    with pytest.raises(UnsupportedModelError, match="loss must be differentiable in the inputs"):
        pgd_perturbation(nn.Linear(3, 1), flat, x, target, steps=1, **options)
    parts, options = (nn.Linear(3, 2), nn.Linear(2, 1)), options | dict(full_steps=1)
    with pytest.raises(UnsupportedModelError, match="loss must be differentiable in the inputs"):
        yopo_step(*parts, flat, x, target, inner_steps=1, **options)


def flat(output, target):
    return squares(output.detach(), target)


def trained(seed, eps, full_steps, inner_steps):
    """A perceptron on the digits: plain with eps None, else YOPO; the same number of updates."""
    digits = load("digits")
    model = build("mlp-64-128-128-10", in_shape=digits.in_shape, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = Batches(digits.images, digits.labels, 50, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(15):
        for inputs, target in batches:
            optimizer.zero_grad()
            if eps is None:
                losses(model(inputs), target).mean().backward()
            else:
                yopo_step(
                    *(model[:2], model[2:], losses, inputs, target),
                    **dict(eps=eps, step_size=eps / 4, bounds=(0.0, 1.0), generator=generator),
                    **dict(full_steps=full_steps, inner_steps=inner_steps),
                )
            optimizer.step()
    return model


def accuracies(model, eps):
    """Share of right answers on the test digits, clean and after 20 steps of PGD, in percent."""
    digits = load("digits")
    inputs, target = digits.test_images / 255, digits.test_labels
    eta = pgd_perturbation(
        *(model, losses, inputs, target),
        **dict(eps=eps, step_size=eps / 8, steps=20, bounds=(0.0, 1.0)),
    )
    found = [model(x).argmax(1) == target for x in (inputs, inputs + eta)]
    return [100 * right.float().mean().item() for right in found]


@pytest.mark.slow
def test_it_makes_digits_robust():
    """At eps = 0.15 the plain networks fall far below those of YOPO-3-5, at 5 points less clean."""
    for seed in (0, 1, 2):
        plain = accuracies(trained(seed, None, 0, 0), 0.15)
        robust = accuracies(trained(seed, 0.15, 3, 5), 0.15)
        assert robust[1] > plain[1] + 20
        assert robust[0] > plain[0] - 5
