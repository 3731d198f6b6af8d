"""Two processes that certify together, each with a share of the training set.

Each calls ``one_process`` and leaves its certificates in ``out``.
"""

import torch
from torch import distributed as dist

from lowland.boosting.statistics import measure
from lowland.results import write_json

ALPHAS = ("closed", "line_search", 0.7)
COUNT = 23


def data():
    """Twenty-three examples of four classes: two hypotheses, labels, weights."""
    rng = torch.Generator().manual_seed(3)
    target = torch.randint(4, (COUNT,), generator=rng)
    hot = torch.eye(4, dtype=torch.float64)[target]
    noise = torch.randn(2, COUNT, 4, generator=rng, dtype=torch.float64)
    previous, output = (noise + hot).softmax(-1)
    return output, previous, target, torch.rand(COUNT, generator=rng, dtype=torch.float64)


def chunked(*cuts):
    """What ``measure`` reads, cut at some rows."""
    return [tuple(x[low:high] for x in data()) for low, high in zip(cuts, cuts[1:], strict=False)]


def certify(chunks):
    """Everything there is to know, for each way to choose alpha; and what bad outputs get."""
    found = [
        measure(lambda: chunks, alpha_previous=0.3, edge_previous=0.2, alpha=alpha)
        for alpha in ALPHAS
    ]
    return {
        "records": [c.record() for c in found],
        "shares": found[0].margin_shares[::50].tolist(),
    }


def refused(chunks):
    """The sentence for an output that is not a number on one process: all must hear it."""
    try:
        measure(lambda: chunks)
    except ValueError as error:
        return str(error)
    return ""


def one_process(rank, out):
    meeting = f"file://{out / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    shares = (chunked(0, 13, 17), chunked(17, COUNT))
    found = {"uneven": certify(shares[rank]), "one has none": certify((chunked(0, 23), [])[rank])}
    spoiled = [(o * (torch.nan if rank else 1), p, y, w) for o, p, y, w in shares[rank]]
    write_json(out / f"rank-{rank}.json", found | {"refused": refused(spoiled)})
    dist.destroy_process_group()
