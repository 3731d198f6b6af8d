"""Hessian products and spectral densities against curvlinops, hessian-eigenthings and autograd.

python benchmarks/hessian_product.py [--threads 1] [--rounds 9] [--only mlp] [--out file.json]

The peers are optional: pip install curvlinops-for-pytorch hessian-eigenthings
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from timing import Comparison, compare, table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lowland.dynamics.products import hessian_product
from lowland.dynamics.spectral_density import spectral_density
from lowland.models import build
from lowland.params import trainable
from lowland.results import environment, write_json
from lowland.training import generator

LIMIT = 1.1
STEPS, PROBES = 10, 5


@dataclass(frozen=True)
class Case:
    """One model on some batches of equal size, which all peers weight alike."""

    model: str
    in_shape: tuple[int, ...]
    batch: int
    batches: int


DIGITS, IMAGES = (1, 8, 8), (3, 32, 32)
CASES = (
    Case("mlp-64-32-32-10", DIGITS, 128, 4),
    Case("mlp-64-128-128-10", DIGITS, 128, 4),
    Case("cnn-12", IMAGES, 64, 2),
    Case("resnet-8", IMAGES, 64, 1),
)


def main() -> None:
    """Measure every case against every peer that is installed."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    rows, records = [], []
    for case in CASES:
        if arguments.only not in case.model:
            continue
        for what, peer, params, found in measure(case, arguments):
            rows.append(row(case, what, peer, params, found))
            records.append(
                {"case": case, "what": what, "peer": peer, "params": params, "found": found}
            )
    about = environment()
    print(f"{about['device']}, {about['cores']} cores; torch {about['torch']}")
    print(table(COLUMNS, rows))
    for name in ("curvlinops", "hessian_eigenthings"):
        if module(name) is None:
            print(f"{name} is not installed, so that nothing is compared with it.")
    if arguments.out:
        write_json(arguments.out, {"environment": about, "limit": LIMIT, "rows": records})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="ratios per row")
    parser.add_argument("--only", default="", help="rows whose model's name contains this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="JSON file")
    return parser.parse_args()


def measure(case: Case, arguments: argparse.Namespace):
    """Compare one product, kept and not, and a density, with each peer."""
    device = arguments.device
    model = build(case.model, in_shape=case.in_shape, seed=0).eval().to(device)
    draws = generator(0, "batch")
    batches = []
    for _ in range(case.batches):
        inputs = torch.rand(case.batch, *case.in_shape, generator=draws)
        target = torch.randint(10, (case.batch,), generator=draws)
        batches.append((inputs.to(device), target.to(device)))
    size = trainable(model).size
    vector = torch.randn(size, generator=draws).to(device)
    kept = hessian_product(model, losses, batches)
    anew = hessian_product(model, losses, batches, max_bytes=0)
    truth = kept(vector)
    for name, make in PEERS.items():
        peer = make(model, batches)
        if peer is None:
            continue
        error = float((peer.product(vector) - truth).norm() / truth.norm())
        if error > 1e-4:
            raise ValueError(f"{name} must give the same product; it differs by {error:.2g}.")
        for what, ours in (("product", kept), ("product, graphs built anew", anew)):
            work = repeated(lambda ours=ours: ours(vector), device)
            other = repeated(lambda peer=peer: peer.product(vector), device)
            yield what, name, size, compare(work, other, rounds=arguments.rounds)
        if peer.density is not None:
            work = repeated(
                lambda: spectral_density(model, losses, batches, steps=STEPS, probes=PROBES),
                device,
            )
            other = repeated(peer.density, device)
            what = f"density, {PROBES} x {STEPS} steps"
            yield what, name, size, compare(work, other, rounds=max(2, arguments.rounds // 3))


def repeated(work: Callable[[], object], device: str) -> Callable[[int], None]:
    """Do something a number of times, and wait for the device."""

    def run(count: int) -> None:
        for _ in range(count):
            work()
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example."""
    return cross_entropy(output, target, reduction="none")


@dataclass(frozen=True)
class Peer:
    """What another library does."""

    product: Callable[[Tensor], Tensor]
    density: Callable[[], object] | None = None


def module(name: str) -> Any:
    """Import a peer if it is there."""
    try:
        return import_module(name)
    except ImportError:
        return None


def plain_autograd(model: nn.Module, batches: list) -> Peer:
    """Double backward as everybody writes it."""
    params = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in params]

    def product(vector: Tensor) -> Tensor:
        parts = [v.view_as(p) for v, p in zip(vector.split(sizes), params, strict=True)]
        total = torch.zeros_like(vector)
        for inputs, target in batches:
            loss = cross_entropy(model(inputs), target)
            grads = torch.autograd.grad(loss, params, create_graph=True)
            again = torch.autograd.grad(grads, params, parts)
            total += torch.cat([part.reshape(-1) for part in again])
        return total / len(batches)

    return Peer(product)


def curvlinops(model: nn.Module, batches: list) -> Peer | None:
    """Forward over reverse, by torch.func."""
    library = module("curvlinops")
    if library is None:
        return None
    params = [p for p in model.parameters() if p.requires_grad]
    options = {"check_deterministic": False}
    try:
        operator = library.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), params, batches, **options
        )
    except TypeError:  # named parameters in later versions
        operator = library.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), dict(model.named_parameters()), batches, **options
        )
    return Peer(lambda vector: operator @ vector)


def eigenthings(model: nn.Module, batches: list) -> Peer | None:
    """Double backward per batch; its density reorthogonalizes too."""
    library = module("hessian_eigenthings")
    if library is None:
        return None

    def mean(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    def operator() -> Any:
        return library.HessianOperator(model, batches, mean)

    def density() -> object:
        return library.spectral_density(
            operator(), num_runs=PROBES, lanczos_steps=STEPS, num_grid_points=100, seed=0
        )

    return Peer(operator().matvec, density)


PEERS: dict[str, Callable[[nn.Module, list], Peer | None]] = {
    "autograd": plain_autograd,
    "curvlinops": curvlinops,
    "hessian-eigenthings": eigenthings,
}
COLUMNS = ["model", "params", "batches", "what", "peer", "ours [ms]", "peer [ms]"]
COLUMNS += ["ratio (quartiles)", f"limit {LIMIT}"]


def row(case: Case, what: str, peer: str, params: int, found: Comparison) -> list[object]:
    """Write one comparison."""
    return [
        case.model, params, f"{case.batches} x {case.batch}", what, peer,
        f"{1e3 * found.seconds:.2f}", f"{1e3 * found.peer_seconds:.2f}",
        "{:.2f} ({:.2f} to {:.2f})".format(found.ratio, *found.quartiles),
        "met" if found.ratio <= LIMIT else "missed",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
