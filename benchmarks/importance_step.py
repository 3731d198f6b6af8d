"""What a step of importance sampling costs against its own parts, and scoring against exact norms.

python benchmarks/importance_step.py [--threads 1] [--rounds 15] [--out importance_step.json]
"""

import argparse
from itertools import cycle

import torch
from timing import compare, table
from torch import nn

from lowland.importance import ImportanceSampling, gradient_norms, scores
from lowland.models import build
from lowland.results import environment, write_json

BATCH, RATIO = 64, 3
NETWORKS = {
    "mlp-784-512-512-10": (1, 28, 28),
    "wrn-10-1": (3, 32, 32),
    "resnet-8": (3, 32, 32),
}
loss_fn = nn.CrossEntropyLoss(reduction="none")


def main() -> None:
    """Every network, on and off; then the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, records = [], []
    for name, shape in NETWORKS.items():
        for what, (ours, peer) in pairs(name, shape).items():
            found = compare(ours, peer, rounds=arguments.rounds, block_seconds=0.3)
            records.append({"network": name, "what": what, **vars(found)})
            low, high = found.quartiles
            rows.append([name, what, f"{found.ratio:.3f}", f"{low:.3f} to {high:.3f}"])
            print(table(["network", "what", "ratio", "middle half"], rows[-1:]), flush=True)
    print(table(["network", "what", "ratio", "middle half"], rows))
    if arguments.out:
        write_json(arguments.out, {"environment": environment(), "rows": records})


def pairs(name: str, shape: tuple[int, ...]) -> dict:
    """What is compared for a network."""
    draws = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(BATCH, *shape, generator=draws), torch.randint(10, (BATCH,), generator=draws))
        for _ in range(12)
    ]
    many = [torch.cat(parts) for parts in zip(*data[:8], strict=True)]  # 512 examples
    parts = torch.cat([x for x, _ in data[:RATIO]]), *data[0]

    def trainer(threshold: float, costs: str):
        model = build(name, in_shape=shape)
        optimizer = torch.optim.SGD(model.parameters(), 1e-5)
        sampling = ImportanceSampling(
            model, loss_fn, presample=RATIO, tau_threshold=threshold, smoothing=0.0,
            costs=costs,
        )  # fmt: skip

        def step(loss: torch.Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def sampled():
            while True:
                for x, y in sampling(cycle(data)):
                    step(sampling.loss(model(x), y))
                    yield

        def bare(score: bool):
            pool, x, y = parts
            if score:
                model.eval()
                with torch.no_grad():
                    model(pool)
                model.train()
            step(loss_fn(model(x), y).mean())

        stream = sampled()
        for _ in range(120):  # past the steps that are all looked at
            next(stream)
        return (lambda n: [next(stream) for _ in range(n)]), bare

    on, on_parts = trainer(1.0, "modelled")
    off, off_parts = trainer(1e6, "measured")
    model, (x, y) = build(name, in_shape=shape).eval(), many

    def score(n: int) -> None:
        for _ in range(n):
            with torch.no_grad():
                scores(loss_fn, model(x), y)

    def one_by_one(n: int) -> None:
        params = list(model.parameters())
        for _ in range(n):
            for i in range(len(y)):
                loss = loss_fn(model(x[i : i + 1]), y[i : i + 1])
                torch.autograd.grad(loss.sum(), params)

    found = {
        "on / forward(B) + step(b)": (on, lambda n: [on_parts(score=True) for _ in range(n)]),
        "off / plain step": (off, lambda n: [off_parts(score=False) for _ in range(n)]),
        "batch-1 backward passes / scores, 512": (one_by_one, score),
    }
    if name.startswith("mlp"):
        norms = lambda n: [gradient_norms(model, loss_fn, x, y) for _ in range(n)]  # noqa: E731
        found["torch.func norms / scores, 512"] = (norms, score)
    return found


if __name__ == "__main__":
    main()
