"""Claims C1 to C4 of Li & Hao 2018, those that an identity or a closed form decides."""

from lowland.reproduce.runs import Runs
from lowland.reproduce.verdicts import claim
from lowland.results import Claim

__all__ = ["is_control", "needs_no_gradient", "penalty_stabilizes", "second_order"]


def is_control(rows: Runs) -> Claim:
    """C1: costates and products are minus the derivatives that autograd takes."""
    values = tuple(max(row["costates"], row["products"]) for row in rows)
    truths = [v < 1e-12 and not row["missing"] for v, row in zip(values, rows, strict=True)]
    compared = sum(row["compared"] for row in rows)
    return claim(
        "C1",
        "Training is optimal control: costates and sums of costate times state are minus the "
        "derivatives of the loss.",
        "an identity (text)",
        "largest difference to autograd below 1e-12 in float64, for every output and every "
        "parameter of six networks of all kinds of layers",
        values,
        "largest difference, per network",
        truths,
        f"{compared} tensors compared." * bool(rows),
        "a formula of a layer type, see the table of identities.",
    )


def needs_no_gradient(rows: Runs) -> Claim:
    """C2: the program of states and costates gives the weights of the optimizer."""
    values = tuple(float(row["different"]) for row in rows)
    truths = [row["different"] == 0 and row["changes"] > 0 for row in rows]
    note = ""
    if rows:
        note = (
            f"{sum(row['changes'] for row in rows):,} changes of {rows[0]['steps']}-step runs "
            "were the same; the weights had requires_grad=False."
        )
    return claim(
        "C2",
        "The method needs no derivative in the weights.",
        "the maximum principle has none (text)",
        "float64: the weights of states, costates and rule alone are those of the optimizer after "
        "50 steps, every one, fully connected and convolutional, two and three values",
        values,
        "weights that differ",
        truths,
        note,
        "rounding at a tie of the rule.",
    )


def second_order(rows: Runs) -> Claim:
    """C3: what the Hamiltonians do not promise is of second order in the change."""
    last = [row["ratio"] for row in rows if row["distance"] <= 0.01]
    truths = [max(last) <= 1.02 * min(last)] if len(last) > 1 and min(last) > 0 else []
    return claim(
        "C3",
        "The error estimate: J changes by minus the gain of the Hamiltonians, up to second order.",
        "Theorem 2 (form unverified); 7.06, 7.03 in the specification's own example",
        "tanh network, float64: remainder / distance² at distances up to 0.01 agree within 2 %",
        tuple(row["ratio"] for row in rows),
        "remainder / distance², from the largest distance to the smallest",
        truths,
        "",
        "rounding of the loss at small distances.",
    )


def penalty_stabilizes(rows: Runs) -> Claim:
    """C4: plain sweeps diverge, penalized ones converge."""
    plain = [row for row in rows if row["penalty"] == 0]
    held = [row for row in rows if row["penalty"] in (0.05, 2.0, 4.0)]
    cycle = [row for row in rows if row["penalty"] == 1.5]
    truths = [row["diverged"] for row in plain] + [row["distance"] < 1e-8 for row in held]
    truths += [abs(row["costs"][-1] - row["costs"][0]) < 1e-9 for row in cycle]
    return claim(
        "C4",
        "Maximizing the Hamiltonian alone can diverge; a penalty on the move makes it converge.",
        "text; oracles O3 and O4 of the specification",
        "linear-quadratic problems: without penalty J grows more than tenfold; penalty 2 and 4 "
        "(one step), 0.05 (five steps): distance to Riccati's controls below 1e-8; penalty 1.5: "
        "the predicted cycle at J = 2",
        tuple(row["distance"] for row in held),
        "distance to the optimum, penalized",
        truths,
        "",
        "too few sweeps.",
    )
