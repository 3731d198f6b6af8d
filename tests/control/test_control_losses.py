"""``lowland.control.losses``: the squared hinge by hand, its gradient, half precision."""

import pytest
import torch

from lowland.control.losses import squared_hinge


def by_hand(output, target):
    losses = []
    for row, label in zip(output.tolist(), target.tolist(), strict=True):
        signs = [1 if place == label else -1 for place in range(len(row))]
        losses.append(sum(max(0, 1 - y * z) ** 2 for y, z in zip(signs, row, strict=True)))
    return torch.tensor(losses, dtype=torch.float64) / output.shape[1]


def test_three_rows_by_hand():
    """Class 0 right beyond the margin; class 1 half right; class 2 wrong on all outputs."""
    output = torch.tensor([[2.0, -1.0, -3.0], [-0.5, 0.5, -2.0], [1.0, 3.0, -1.0]])
    expected = torch.tensor([0.0, (0.25 + 0.25) / 3, (4 + 16 + 4) / 3])
    torch.testing.assert_close(squared_hinge(output, torch.tensor([0, 1, 2])), expected)


def test_any_output_by_hand(rng):
    output = 2 * torch.randn(40, 7, dtype=torch.float64, generator=rng)
    target = torch.randint(7, (40,), generator=rng)
    torch.testing.assert_close(squared_hinge(output, target), by_hand(output, target))
    unsigned = target.to(torch.uint8)
    assert torch.equal(squared_hinge(output, unsigned), squared_hinge(output, target))


def test_gradient(rng):
    """-2 y (1 - y z) / C inside of the margin, 0 outside; numerically, too."""
    output = torch.randn(6, 4, dtype=torch.float64, generator=rng).requires_grad_()
    target = torch.randint(4, (6,), generator=rng)
    (gradient,) = torch.autograd.grad(squared_hinge(output, target).sum(), output)
    y = 2 * torch.nn.functional.one_hot(target, 4).double() - 1
    slack = (1 - y * output.detach()).clamp(min=0)
    torch.testing.assert_close(gradient, -y * slack / 2)
    assert torch.autograd.gradcheck(lambda z: squared_hinge(z, target), output)


def test_one_example_alone(rng):
    """A loss depends on no other example, so it can be mapped over them."""
    output = torch.randn(6, 4, dtype=torch.float64, generator=rng)
    target = torch.randint(4, (6,), generator=rng)
    alone = torch.func.vmap(lambda z, t: squared_hinge(z[None], t[None])[0])(output, target)
    torch.testing.assert_close(alone, squared_hinge(output, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    """400^2 is no number in float16; the gradient comes back in the output's own type."""
    output = torch.tensor([[400.0, -300.0]], dtype=dtype, requires_grad=True)
    loss = squared_hinge(output, torch.tensor([1]))
    z = output.detach().float()
    assert loss.dtype == torch.float32
    assert loss.item() == ((1 + z[0, 0]) ** 2 + (1 - z[0, 1]) ** 2).item() / 2
    loss.sum().backward()
    assert output.grad.dtype == dtype
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.long), r"got \(3, 2\) and \(3, 2\)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), r"shape \(batch, classes\)"),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.long), r"got \(3, 2\) and \(4,\)"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), r"classes 0\.\.1"),
        (torch.zeros(3, 2), torch.tensor([0, -1, 1]), r"classes 0\.\.1"),
    ],
)
@pytest.mark.untyped
def test_bad_input_meets_a_sentence(output, target, message):
    with pytest.raises(ValueError, match=message):
        squared_hinge(output, target)
