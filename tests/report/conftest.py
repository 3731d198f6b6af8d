"""A hand-made record with every kind of figure, as a recipe on the digits would leave it."""

import json
from pathlib import Path

import numpy as np
import pytest

from lowland.report import write_report


def example_record(recipe: str = "draxler2018") -> dict:
    """Plain values of a whole run: met, missed and unjudged claims, holes, all figure kinds."""
    return {
        "recipe": recipe,
        "paper": {
            "title": "Essentially No Barriers in Neural Network Energy Landscape",
            "authors": "F. Draxler, K. Veschgini, M. Salmhofer, F. A. Hamprecht",
            "year": 2018,
            "arxiv": "1803.00885",
        },
        "scale": "laptop",
        "settings": {
            "model": "mlp-64-32-32-10",
            "data": "digits",
            "schedule": {
                "tangent": "paper",
                "insert_alphas": [0.1, 0.5, 0.9],
                "cycles": [{"steps": 100, "learning_rate": 0.1} for _ in range(14)],
            },
            "weight_decay": 1e-4,
        },
        "seeds": [0, 1, 2],
        "runs": [
            {"pair": f"{i}, {i + 1}", "end_loss": 0.0013 + i * 2e-4, "saddle": 0.0021 + i * 3e-4,
             "line": 0.906 - i * 0.11, "length_ratio": 1.32 + 0.05 * i, "pivots": 11 + i,
             "cycles": [0.0121, 0.0035, 0.0021]}
            for i in range(3)
        ],
        "claims": example_claims(),
        "figures": [
            profile_figure(), cycles_figure(), slice_figure(), learning_figure(), matrix_figure(),
            pairs_table(), remark_text(),
        ],
        "environment": {"lowland": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu",
                        "device": "a processor", "threads": 2, "commit": None},
        "seconds": 41.7,
        "command": "lowland run draxler2018 --scale laptop --seeds 3",
        "status": "did all the steps it was asked for",
        "notes": ["The networks are small: at this size some minima have dead units, and those "
                  "pairs were left out before anything was measured."],
    }  # fmt: skip


def claim(name, statement, paper, rule, values, unit, verdict, note=""):
    return {"id": name, "statement": statement, "paper": paper, "rule": rule,
            "values": list(values), "unit": unit, "verdict": verdict, "note": note}  # fmt: skip


def example_claims() -> list[dict]:
    return [
        claim("C1", "Independently trained minima are joined by paths whose training loss stays "
              "near that of the minima.", "0.2086 against 0.2045 (ResNet-8, CIFAR-10)",
              "highest loss on the path at most 3 times the larger end and at most 0.05, while the "
              "straight line reaches 0.2", [0.0021, 0.0024, 0.0027], "nats", "met"),
        claim("C2", "Test loss stays flat along the path and the test error rises little.",
              "at most 0.5 points (CIFAR-10), 2.2 points (CIFAR-100)",
              "error at the highest point less the mean end error at most 2 points",
              [0.22, 0.14, 0.28], "points", "met"),
        claim("C4", "Saddles lie closer to the training loss than to the test loss of the minima.",
              "all but the three smallest CNNs", "saddle − training loss < test − training loss",
              [0.0008, 0.0009, 0.0010], "nats", "met"),
        claim("C6", "Paths are smooth and only modestly longer than the straight line.",
              "about 1.5 to 2.5 times", "length ratio between 1 and 3", [1.32, 1.37, 1.42],
              "times", "met"),
        claim("C8", "Adaptive insertion puts pivots at bumps and converges in 14 cycles.", "Fig. 4",
              "saddle after cycle 14 at most that after cycle 1, every inserted pivot above the "
              "threshold", [1.02, 0.31, 0.44], "of cycle 1", "missed",
              "One pair ended 2 % above its first cycle: the first cycle already reached the end "
              "loss, and what is left is the noise of mini-batches."),
        claim("C3", "Wider and deeper networks have lower saddles.", "Fig. 5, not monotone",
              "ResNet-8, -20 and -32 on CIFAR-10", [], "nats", "not judged at this scale",
              "Below width 8 the minima differ so much that the worse end is the saddle."),
        claim("C10", "One spare hidden unit removes the barrier between swapped XOR solutions.",
              "25 % error against 0", "2 units: 25 % error; 4 units: none", [25.0, 25.0, 25.0],
              "%", "met"),
    ]  # fmt: skip


def profile_figure() -> dict:
    t = np.linspace(0, 1, 61)
    line = 0.0013 + 0.9 * np.sin(np.pi * t) ** 4
    path = 0.0013 + 8e-4 * np.abs(np.sin(5 * np.pi * t)) * np.sin(np.pi * t)
    series = [
        {"name": "straight line", "x": t.tolist(), "y": line.tolist(), "style": "dashed",
         "band": [(line * 0.6).tolist(), (line * 1.5).tolist()]},
        {"name": "path found", "x": t.tolist(), "y": path.tolist(), "style": "line",
         "band": [(path * 0.7).tolist(), (path * 1.3).tolist()]},
        {"name": "pivots", "x": t[::6].tolist(), "y": path[::6].tolist(), "style": "points",
         "color": 1},
    ]  # fmt: skip
    series[0]["y"][7] = None  # a hole, as a record writes what is not finite
    return {
        "kind": "lines", "id": "profile", "title": "Training loss between two minima",
        "caption": "Mean over three pairs of minima; the bands reach from the lowest pair to the "
        "highest. The straight line climbs almost to chance, the path does not climb at all.",
        "x_label": "position along the path", "y_label": "training loss (nats)", "x_log": False,
        "y_log": True, "series": series,
        "marks": [{"x": 0.5, "y": 0.9, "text": "barrier of the line"}],
    }  # fmt: skip


def cycles_figure() -> dict:
    cycles = list(range(1, 15))
    series = [
        {"name": f"pair {i + 1}", "x": cycles, "style": "steps",
         "y": [0.002 + 0.02 * (1 + i) * float(np.exp(-0.6 * c)) for c in cycles]}
        for i in range(3)
    ]  # fmt: skip
    marks = [{"x": 5.5, "y": None, "text": "learning rate 0.01 from here"}]
    return {
        "kind": "lines", "id": "cycles", "title": "Highest loss after each cycle",
        "caption": "Pivots are inserted before every cycle where the path bulges.",
        "x_label": "cycle", "y_label": "saddle (nats)", "x_log": False, "y_log": True,
        "series": series, "marks": marks,
    }  # fmt: skip


def slice_figure() -> dict:
    x, y = np.linspace(-1.6, 1.6, 41), np.linspace(-0.7, 1.9, 37)
    u, v = np.meshgrid(x, y)
    loss = 0.002 + 1.7 * (v - 1.25 * (1 - u**2)) ** 2 + 0.05 * np.maximum(np.abs(u) - 1, 0) ** 2
    bend = np.linspace(-1, 1, 13)
    return {
        "kind": "heatmap", "id": "slice", "title": "The plane through two minima and the path",
        "caption": "The plane holds both minima and the middle of the path; other pivots are "
        "projected onto it.",
        "x_label": "along the straight line", "y_label": "across it", "x": x.tolist(),
        "y": y.tolist(), "values": loss.tolist(), "log": True,
        "value_label": "training loss (nats)", "equal": True,
        "points": [{"name": "A", "x": -1.0, "y": 0.0}, {"name": "B", "x": 1.0, "y": 0.0}],
        "paths": [
            {"name": "straight line", "x": [-1.0, 1.0], "y": [0.0, 0.0]},
            {"name": "path found", "x": bend.tolist(), "y": (1.25 * (1 - bend**2)).tolist()},
        ],
    }  # fmt: skip


def learning_figure() -> dict:
    steps = np.unique(np.geomspace(1, 6400, 60).astype(int))
    loss = 2.3 / (1 + (steps / 60) ** 1.1)
    series = [
        {"name": f"width {2**k}", "x": steps.tolist(), "y": (loss * 0.8**k + 1e-3).tolist()}
        for k in range(8)
    ]
    return {
        "kind": "lines", "id": "learning", "title": "Learning curves by width", "caption":
        "The saddle of the path is crossed late in training.", "x_label": "step",
        "y_label": "training loss (nats)", "x_log": True, "y_log": True, "series": series,
    }  # fmt: skip


def matrix_figure() -> dict:
    values = [[None if i == j else 0.01 * (1 + abs(i - j)) for j in range(4)] for i in range(4)]
    return {
        "kind": "heatmap", "id": "minimax", "title": "Lowest known saddle between pairs",
        "caption": "The diagonal has no pair.", "x_label": "minimum", "y_label": "minimum",
        "x": [0, 1, 2, 3], "y": [0, 1, 2, 3], "values": values, "log": False,
        "value_label": "saddle (nats)", "points": [], "paths": [],
    }  # fmt: skip


def pairs_table() -> dict:
    return {
        "kind": "table", "id": "pairs", "title": "Barriers of each pair",
        "caption": "Three definitions, because the literature mixes them.",
        "columns": ["pair", "saddle", "barrier_max", "barrier_mid", "line", "connected"],
        "rows": [["0, 1", 0.0021, 0.0008, 0.00095, 0.906, True],
                 ["1, 2", 0.0024, 0.0009, 0.00101, 0.796, True],
                 ["2, 3", None, None, None, 1.92, False]],
    }  # fmt: skip


def remark_text() -> dict:
    return {
        "kind": "text", "id": "reading", "title": "How to read the barrier", "caption": "",
        "text": "The saddle is the highest of all densely sampled points, ends included.\n\n"
        "Each metric takes its own maximum, so the saddle of the loss and that of the error "
        "usually are different points <of the path>.",
    }  # fmt: skip


@pytest.fixture
def record() -> dict:
    return example_record()


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A folder with the example record and its report; tests only read it."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "record.json").write_text(json.dumps(example_record()))
    write_report(folder)
    return folder
