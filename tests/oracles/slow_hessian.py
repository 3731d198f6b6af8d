"""Second derivatives and spectra entry by entry, with loops over examples and coordinates.

Nothing here is shared with the library: the model is moved by hand, one example at a time, and
derivatives of first order are all that autograd is asked for twice.
"""

from copy import deepcopy
from math import exp, pi, sqrt

import torch
from torch import Tensor


def slow_parameters(model) -> list[Tensor]:
    """Distinct parameters that require a gradient."""
    return [p for p in model.parameters() if p.requires_grad]


def slow_examples(batches):
    """Every example as a batch of one."""
    return [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(len(y))]


def slow_flat(parts) -> list[float]:
    return [float(entry) for part in parts for entry in part.detach().flatten()]


def slow_loss(model, loss_fn, batches) -> Tensor:
    """Mean over examples, added up one by one."""
    examples = slow_examples(batches)
    return sum(loss_fn(model(x), y).sum() for x, y in examples) / len(examples)


def slow_hessian(model, loss_fn, batches) -> Tensor:
    """Row by row: the gradient of every entry of the gradient."""
    params = slow_parameters(model)
    first = torch.autograd.grad(
        slow_loss(model, loss_fn, batches), params, create_graph=True, materialize_grads=True
    )
    entries = [entry for part in first for entry in part.flatten()]
    rows = []
    for entry in entries:
        parts = [torch.zeros_like(p) for p in params]
        if entry.requires_grad:
            parts = torch.autograd.grad(
                entry, params, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        rows.append(slow_flat(parts))
    return torch.tensor(rows, dtype=torch.float64)


def slow_gauss_newton(model, loss_fn, batches) -> Tensor:
    """Sum over examples of J' B J, with J and B written down."""
    params, examples = slow_parameters(model), slow_examples(batches)
    total = 0
    for x, y in examples:
        output = model(x)
        jacobian = [
            slow_flat(torch.autograd.grad(z, params, retain_graph=True, materialize_grads=True))
            for z in output.flatten()
        ]
        leaf = output.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss_fn(leaf, y).sum(), leaf, create_graph=True)
        bend = [
            slow_flat([torch.autograd.grad(s, leaf, retain_graph=True)[0]]) for s in slope.flatten()
        ]
        j, b = (torch.tensor(rows, dtype=torch.float64) for rows in (jacobian, bend))
        total = total + j.T @ b @ j
    return total / len(examples)


def slow_difference(model, loss_fn, batches, vector, step=1e-5) -> Tensor:
    """Two gradients on both sides of the weights, along a vector of norm 1."""
    found = []
    for sign in (1, -1):
        moved, used = deepcopy(model), 0
        for p in slow_parameters(moved):
            part = vector[used : used + p.numel()].view(p.shape)
            used += p.numel()
            p.data += sign * step * part
        loss = slow_loss(moved, loss_fn, batches)
        grads = torch.autograd.grad(loss, slow_parameters(moved))
        found.append(torch.tensor(slow_flat(grads), dtype=torch.float64))
    return (found[0] - found[1]) / (2 * step)


def slow_count(eigenvalues, low, high) -> int:
    """How many lie strictly between."""
    return sum(low < float(value) < high for value in eigenvalues)


def slow_density(nodes, weights, x, sigma) -> float:
    """Normal bumps, one by one."""
    bumps = [
        weight * exp(-((x - node) ** 2) / (2 * sigma**2)) / (sigma * sqrt(2 * pi))
        for node, weight in zip(nodes, weights, strict=True)
    ]
    return sum(bumps)


def slow_krylov(matrix, start, steps):
    """The tridiagonal matrix of a Krylov space, from an orthonormal basis made by QR of powers."""
    vectors = [start / start.norm()]
    for _ in range(steps - 1):
        new = matrix @ vectors[-1]
        for _ in range(3):
            for old in vectors:
                new = new - (new @ old) * old
        vectors.append(new / new.norm())
    basis = torch.stack(vectors)
    return basis @ matrix @ basis.T
