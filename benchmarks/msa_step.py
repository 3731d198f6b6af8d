"""What a step of discrete weights costs against Adam on the same parameters, and its memory.

python benchmarks/msa_step.py [--threads 1] [--rounds 15] [--out msa_step.json]
"""

import argparse

import torch
from timing import compare, table

from lowland.control import DiscreteMSA, discrete_parameters, discretize
from lowland.models import build
from lowland.results import environment, write_json

NETWORKS = {
    "bn-mlp-64-256-256-10": (1, 8, 8),
    "bn-mlp-784-2048-2048-2048-10": (1, 28, 28),
    "bn-cnn-32-256": (3, 32, 32),
}
KINDS = {
    "binary": {"values": (-1, 1)},
    "ternary": {"values": (-1, 0, 1), "lam": 1e-5},
    "ternary, 2 %": {"values": (-1, 0, 1), "target_nonzero": 0.02},
}


def main() -> None:
    """Every network, every kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, records = [], []
    head = ["network", "kind", "ratio to Adam", "middle half", "state bytes per weight", "Adam's"]
    for name, shape in NETWORKS.items():
        for kind, options in KINDS.items():
            ours, peer = Stepper(name, shape, options), Stepper(name, shape, None)
            found = compare(ours.step, peer.step, rounds=arguments.rounds, block_seconds=0.3)
            memory = [bytes_per_weight(side.optimizer) for side in (ours, peer)]
            records.append({"network": name, "kind": kind, **vars(found), "bytes": memory})
            low, high = found.quartiles
            rows.append([name, kind, f"{found.ratio:.3f}", f"{low:.3f} to {high:.3f}", *memory])
            print(table(head, rows[-1:]), flush=True)
    print(table(head, rows))
    if arguments.out:
        write_json(arguments.out, {"environment": environment(), "rows": records})


class Stepper:
    """An optimizer over a network's discrete weights, and gradients that are always there."""

    def __init__(self, name: str, shape: tuple[int, ...], options: dict | None) -> None:
        model = discretize(build(name, in_shape=shape), (options or {}).get("values", (-1, 1)))
        groups = discrete_parameters(model)
        weights = [weight for group in groups for weight in group["params"]]
        draws = torch.Generator().manual_seed(0)
        self.weights, self.count = weights, 0
        self.gradients = [
            [1e-3 * torch.randn(w.shape, generator=draws) for w in weights] for _ in range(5)
        ]
        if options is None:
            self.optimizer = torch.optim.Adam(weights, 1e-9, foreach=True)
        else:
            rest = {key: value for key, value in options.items() if key != "values"}
            self.optimizer = DiscreteMSA(groups, **rest)

    def step(self, count: int) -> None:
        """Take steps."""
        for _ in range(count):
            self.count += 1
            gradients = self.gradients[self.count % len(self.gradients)]
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.grad = gradient
            self.optimizer.step()


def bytes_per_weight(optimizer: torch.optim.Optimizer) -> float:
    """What an optimizer keeps, per weight."""
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    held = [
        value
        for weight in weights
        for value in optimizer.state[weight].values()
        if isinstance(value, torch.Tensor) and value.ndim
    ]
    size = sum(value.numel() * value.element_size() for value in held)
    return round(size / sum(weight.numel() for weight in weights), 2)


if __name__ == "__main__":
    main()
