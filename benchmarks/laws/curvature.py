"""Laws of curvature and glass: Hessian products, Lanczos, filters, mean field and the p-spin."""

import tracemalloc
from collections.abc import Callable
from functools import partial

import torch

from laws.law import Law, Point, cpu_seconds, held_bytes, peak_bytes
from laws.networks import batch_of, losses, perceptron
from lowland.dynamics import PSpin, filtered_count, solve_mean_field
from lowland.dynamics.operators import Operator
from lowland.dynamics.probes import lanczos_of_probes
from lowland.dynamics.products import hessian_product

__all__ = ["LAWS"]

WEIGHTS = 20_000
FEW = 4_000  # weights of an operator whose basis is long


def diagonal(size: int) -> Operator:
    """An operator that costs nothing, so that what is around its products shows."""
    values = torch.linspace(-1, 2, size)
    return Operator(lambda rows: rows * values, size, torch.float32)


def spectrum(size: int, steps: int, probes: int = 1, max_bytes: int = 2**31) -> Callable:
    """Lanczos matrices of some probes, as ``spectral_density`` takes them."""
    operator = diagonal(size)
    return partial(lanczos_of_probes, operator, probes, steps, seed=0, max_bytes=max_bytes)


def lanczos_seconds(steps: int) -> Point:
    """Orthogonalization alone."""
    return steps, cpu_seconds(spectrum(FEW, steps), repeats=2)


def lanczos_by_steps(steps: int) -> Point:
    """Memory of one basis."""
    return steps, peak_bytes(spectrum(FEW, steps))


def lanczos_by_probes(probes: int) -> Point:
    """Memory of many probes, of which only one basis is allowed at a time."""
    return probes, peak_bytes(spectrum(WEIGHTS, 8, probes, max_bytes=1))


def filter_by_degree(degree: int) -> Point:
    """Memory of the filter that holds no basis; degrees as they are, without doubling."""
    work = partial(
        filtered_count, diagonal(WEIGHTS), low=0.5, high=9.0, degree=degree, max_degree=degree,
        probes=2, max_bytes=1,
    )  # fmt: skip
    return degree, peak_bytes(work)


def filter_by_params(params: float) -> Point:
    """The same, by size."""
    operator = diagonal(int(params))
    work = partial(
        filtered_count, operator, low=0.5, high=9.0, degree=8, max_degree=8, probes=2, max_bytes=1
    )
    return params, peak_bytes(work)


def product_by_params(params: float) -> Point:
    """One product with the Hessian of 16 examples, from a graph that is kept."""
    model = perceptron(params)
    product = hessian_product(model, losses, [batch_of(16)])
    vector = torch.randn(product.size)
    return product.size, cpu_seconds(lambda: product(vector))


def product_by_data(examples: int) -> Point:
    """One product with the Hessian of so many examples."""
    product = hessian_product(perceptron(2000), losses, [batch_of(int(examples))])
    vector = torch.randn(product.size)
    return examples, cpu_seconds(lambda: product(vector))


def mean_field_seconds(grid: str, until: float) -> Point:
    """Solution up to a time, steps of 1/20."""
    work = partial(solve_mean_field, 3, 0.0, until=until, step=1 / 20, spacing=0.1, grid=grid)
    return 20 * until, cpu_seconds(work, repeats=1)


def mean_field_bytes(grid: str, until: float) -> Point:
    """Most memory of a solution, which is numpy's."""
    tracemalloc.start()
    solve_mean_field(3, 0.0, until=until, step=1 / 20, spacing=0.1, grid=grid)
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return 20 * until, top


def glass(what: str, spins: int) -> Point:
    """A force, or the memory, of the glass with p = 3."""
    if what == "bytes":
        return spins**3, held_bytes(lambda: PSpin(spins, 3, dtype=torch.float32))
    model = PSpin(spins, 3, dtype=torch.float32)
    return spins**3, cpu_seconds(model.force)


SIZES = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6)

LAWS = (
    Law(
        "dynamics-product-params", "a Hessian product, 16 examples", "weights D", "s", 1.0,
        (1e5, 3e5, 1e6, 3e6, 1e7), product_by_params, lambda d: 16 * d,
        "seconds per weight and example", "some passes forward and backward",
    ),
    Law(
        "dynamics-product-data", "a Hessian product, 2,000 weights", "examples N", "s", 1.0,
        (1e3, 3e3, 1e4, 3e4, 1e5), product_by_data, lambda n: 2000 * n,
        "seconds per weight and example", "the same",
    ),
    Law(
        "dynamics-lanczos-seconds", "Lanczos without its products", "steps m", "s", 2.0,
        (10, 30, 100, 300, 1000), lanczos_seconds, lambda m: m**2 * FEW,
        "seconds per weight and squared step", "every vector is freed from all before, twice",
    ),
    Law(
        "dynamics-lanczos-steps", "bytes of a Lanczos basis", "steps m", "bytes", 1.0,
        (8, 24, 80, 240, 800), lanczos_by_steps, lambda m: 4 * m * FEW,
        "vectors of D floats per step", "one vector per step, in float64 while that fits",
    ),
    Law(
        "dynamics-lanczos-probes", "bytes of Lanczos, one basis at a time", "probes", "bytes", 0.0,
        (2, 6, 20, 60, 200), lanczos_by_probes, lambda p: 4 * WEIGHTS, "vectors of D floats",
        "max_bytes lets one basis be there at a time",
    ),
    Law(
        "dynamics-filter-degree", "bytes of filtered_count", "degree", "bytes", 0.0,
        (8, 24, 80, 240, 800), filter_by_degree, lambda m: 4 * WEIGHTS, "vectors of D floats",
        "six vectors per probe at a time, whatever the degree",
    ),
    Law(
        "dynamics-filter-params", "bytes of filtered_count", "weights D", "bytes", 1.0,
        SIZES, filter_by_params, lambda d: 4 * d, "vectors of D floats", "the same", first=3e4,
    ),
    Law(
        "dynamics-field-uniform", 'solve_mean_field(grid="uniform")', "steps n", "s", 3.0,
        (15, 30, 60, 120), partial(mean_field_seconds, "uniform"), lambda n: n**3,
        "seconds per n³", "every step integrates over all pairs of past instants",
    ),
    Law(
        "dynamics-field-geometric", 'solve_mean_field(grid="geometric")', "steps n", "s", 1.0,
        (2.5, 8, 25, 80, 250), partial(mean_field_seconds, "geometric"), lambda n: n,
        "seconds per step", "the number of nodes grows with the logarithm of n",
    ),
    Law(
        "dynamics-field-uniform-bytes", 'memory, grid="uniform"', "steps n", "bytes", 2.0,
        (5, 10, 20, 40), partial(mean_field_bytes, "uniform"), lambda n: n**2, "bytes per n²",
        "two functions of two times",
    ),
    Law(
        "dynamics-glass-bytes", "couplings of p = 3", "N³", "bytes", 1.0,
        (10, 20, 40, 80, 160), partial(glass, "bytes"), lambda n: 4 * n, "floats per N³",
        "a number for every three spins", first=20,
    ),
    Law(
        "dynamics-glass-seconds", "a force of p = 3", "N³", "s", 1.0,
        (60, 100, 160, 256, 320), partial(glass, "seconds"), lambda n: n, "seconds per N³",
        "each coupling is read once",
    ),
)  # fmt: skip
