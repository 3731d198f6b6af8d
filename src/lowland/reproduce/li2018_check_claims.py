"""Claims C1 to C4 of Li & Hao 2018, those that an identity or a closed form decides."""

from typing import Any

from lowland.reproduce.verdicts import because, verdict
from lowland.results import Claim

__all__ = ["is_control", "needs_no_gradient", "penalty_stabilizes", "second_order"]

Rows = list[dict[str, Any]]


def is_control(rows: Rows) -> Claim:
    """Costates and products are minus the derivatives that autograd takes.

    Args:
        rows: The part ``"identities"`` of the checks.

    Returns:
        C1.
    """
    values = tuple(max(row["costates"], row["products"]) for row in rows)
    truths = [v < 1e-12 and not row["missing"] for v, row in zip(values, rows, strict=True)]
    judged = verdict(truths)
    compared = sum(row["compared"] for row in rows)
    return Claim(
        "C1",
        "Training is optimal control: costates and sums of costate times state are minus the "
        "derivatives of the loss.",
        "an identity (text)",
        "largest difference to autograd below 1e-12 in float64, for every output and every "
        "parameter of six networks of all kinds of layers",
        values,
        "largest difference, per network",
        judged,
        f"{compared} tensors compared." * bool(rows)
        + because(judged, "a formula of a layer type, see the table of identities."),
    )


def needs_no_gradient(rows: Rows) -> Claim:
    """The program of states and costates gives the weights of the optimizer.

    Args:
        rows: The part ``"explicit"`` of the checks.

    Returns:
        C2.
    """
    values = tuple(float(row["different"]) for row in rows)
    truths = [row["different"] == 0 and row["changes"] > 0 for row in rows]
    judged = verdict(truths)
    note = ""
    if rows:
        note = (
            f"{sum(row['changes'] for row in rows):,} changes of {rows[0]['steps']}-step runs "
            "were the same; the weights had requires_grad=False."
        )
    return Claim(
        "C2",
        "The method needs no derivative in the weights.",
        "the maximum principle has none (text)",
        "float64: the weights of states, costates and rule alone are those of the optimizer after "
        "50 steps, every one, fully connected and convolutional, two and three values",
        values,
        "weights that differ",
        judged,
        note + because(judged, "rounding at a tie of the rule."),
    )


def second_order(rows: Rows) -> Claim:
    """What the Hamiltonians do not promise is of second order in the change.

    Args:
        rows: The part ``"remainder"`` of the checks.

    Returns:
        C3.
    """
    last = [row["ratio"] for row in rows if row["distance"] <= 0.01]
    truths = [max(last) <= 1.02 * min(last)] if len(last) > 1 and min(last) > 0 else []
    judged = verdict(truths)
    return Claim(
        "C3",
        "The error estimate: J changes by minus the gain of the Hamiltonians, up to second order.",
        "Theorem 2 (form unverified); 7.06, 7.03 in the specification's own example",
        "tanh network, float64: remainder / distance² at distances up to 0.01 agree within 2 %",
        tuple(row["ratio"] for row in rows),
        "remainder / distance², from the largest distance to the smallest",
        judged,
        because(judged, "rounding of the loss at small distances.").strip(),
    )


def penalty_stabilizes(rows: Rows) -> Claim:
    """Plain sweeps diverge, penalized ones converge.

    Args:
        rows: The part ``"sweeps"`` of the checks.

    Returns:
        C4.
    """
    plain = [row for row in rows if row["penalty"] == 0]
    held = [row for row in rows if row["penalty"] in (0.05, 2.0, 4.0)]
    cycle = [row for row in rows if row["penalty"] == 1.5]
    truths = [row["diverged"] for row in plain] + [row["distance"] < 1e-8 for row in held]
    truths += [abs(row["costs"][-1] - row["costs"][0]) < 1e-9 for row in cycle]
    judged = verdict(truths)
    return Claim(
        "C4",
        "Maximizing the Hamiltonian alone can diverge; a penalty on the move makes it converge.",
        "text; oracles O3 and O4 of the specification",
        "linear-quadratic problems: without penalty J grows more than tenfold; penalty 2 and 4 "
        "(one step), 0.05 (five steps): distance to Riccati's controls below 1e-8; penalty 1.5: "
        "the predicted cycle at J = 2",
        tuple(row["distance"] for row in held),
        "distance to the optimum, penalized",
        judged,
        because(judged, "too few sweeps.").strip(),
    )
