"""Linear dynamics with quadratic costs: optimal controls from Riccati's equation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ControlledStep", "LinearQuadratic", "double_integrator", "one_step_regulator"]


@dataclass(frozen=True)
class LinearQuadratic:
    r"""Minimize a quadratic cost along linear dynamics.

    .. math::
        x_{t+1} = A x_t + B u_t, \qquad
        J = \tfrac12 \sum_{t<T} (x_t^T Q x_t + u_t^T R u_t) + \tfrac12 x_T^T Q_T x_T

    As a network it has T layers whose parameters are the controls :math:`u_t`; the running cost
    depends on the state.

    Attributes:
        name: What the problem is.
        transition: A, the same for all steps.
        push: B.
        state_cost: Q, symmetric.
        control_cost: R, symmetric and positive definite.
        final_cost: Q_T, symmetric.
        start: x_0.
        steps: T.
    """

    name: str
    transition: Float[Tensor, "state state"]
    push: Float[Tensor, "state control"]
    state_cost: Float[Tensor, "state state"]
    control_cost: Float[Tensor, "control control"]
    final_cost: Float[Tensor, "state state"]
    start: Float[Tensor, " state"]
    steps: int

    def states(
        self, controls: Float[Tensor, "steps control"]
    ) -> Float[Tensor, "steps_and_one state"]:
        """Follow the dynamics.

        Args:
            controls: One row per step.

        Returns:
            x_0 to x_T.
        """
        states = [self.start]
        for control in controls:
            states.append(self.transition @ states[-1] + self.push @ control)
        return torch.stack(states)

    def cost(self, controls: Float[Tensor, "steps control"]) -> Float[Tensor, ""]:
        """Measure J.

        Args:
            controls: One row per step.

        Returns:
            The cost, with its halves.
        """
        *before, last = self.states(controls)
        total = last @ self.final_cost @ last
        for state, control in zip(before, controls, strict=True):
            total = total + state @ self.state_cost @ state + control @ self.control_cost @ control
        return total / 2

    def costates(self, controls: Float[Tensor, "steps control"]) -> Float[Tensor, "steps state"]:
        r"""Follow the costates backwards.

        From :math:`p_T = -Q_T x_T` by :math:`p_t = A^T p_{t+1} - Q x_t`.

        Args:
            controls: One row per step.

        Returns:
            p_1 to p_T.
        """
        states = self.states(controls)
        costates = [-self.final_cost @ states[-1]]
        for state in states[1:-1].flip(0):
            costates.append(self.transition.T @ costates[-1] - self.state_cost @ state)
        return torch.stack(costates[::-1])

    def optimal_controls(self) -> Float[Tensor, "steps control"]:
        """Solve the problem by Riccati's backward equation.

        Returns:
            The one optimum, one row per step.
        """
        a, b, value, gains = self.transition, self.push, self.final_cost, []
        for _ in range(self.steps):
            gains.append(torch.linalg.solve(self.control_cost + b.T @ value @ b, b.T @ value @ a))
            value = self.state_cost + a.T @ value @ (a - b @ gains[-1])
        state, controls = self.start, []
        for gain in reversed(gains):
            controls.append(-gain @ state)
            state = a @ state + b @ controls[-1]
        return torch.stack(controls)

    def hessian(self) -> Float[Tensor, "params params"]:
        """Give the matrix of second derivatives of J, the same everywhere.

        Returns:
            Rows and columns run over the steps, and over the controls of each.
        """
        size = self.push.shape[1]
        effect = []  # of each coordinate of the controls on all states
        for unit in torch.eye(self.steps * size, dtype=self.start.dtype):
            effect.append(
                self.states(unit.view(self.steps, size)) - self.states(self.no_controls())
            )
        moved = torch.stack(effect)
        inner = torch.einsum("itk,kl,jtl->ij", moved[:, :-1], self.state_cost, moved[:, :-1])
        last = moved[:, -1] @ self.final_cost @ moved[:, -1].T
        return inner + last + torch.block_diag(*[self.control_cost] * self.steps)

    def sweep(
        self, controls: Float[Tensor, "steps control"], rho: float = 0.0
    ) -> Float[Tensor, "steps control"]:
        r"""Maximize the Hamiltonian of every step once, all from the same old controls.

        The maximum of :math:`p_{t+1}^T B u - \tfrac12 u^T R u - \rho |u - u_t|^2` is
        :math:`(R + 2 \rho)^{-1} (B^T p_{t+1} + 2 \rho u_t)`: a gradient step, preconditioned.

        Args:
            controls: One row per step.
            rho: Penalty on the squared move, without a half.

        Returns:
            The new controls.

        Source:
            optimal_control, section 7, O3 and O4, where :math:`\tilde\rho = 2 \rho`.
        """
        weight = self.control_cost + 2 * rho * torch.eye(self.push.shape[1]).to(self.start)
        wanted = self.costates(controls) @ self.push + 2 * rho * controls
        return torch.linalg.solve(weight, wanted.T).T

    def no_controls(self) -> Float[Tensor, "steps control"]:
        """Give the controls that do nothing.

        Returns:
            Zeros.
        """
        return self.start.new_zeros(self.steps, self.push.shape[1])

    def network(self) -> nn.Sequential:
        """Build the dynamics as a network, one layer per step, its parameters the controls.

        Returns:
            Layers ``"0"`` to ``"T-1"`` with controls of zero; it maps ``(batch, state)`` to the
            same shape.
        """
        return nn.Sequential(
            *(ControlledStep(self.transition, self.push) for _ in range(self.steps))
        )

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Give x_0 as all data there is.

        Returns:
            One batch of one example; the target is not used.
        """
        return [(self.start[None], self.start[None])]

    def loss_fn(
        self, output: Float[Tensor, "batch state"], target: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """Measure the final cost of each example.

        Args:
            output: x_T.
            target: Not used.

        Returns:
            Half the quadratic form.
        """
        return half_form(output, self.final_cost)

    def running_cost(self) -> Callable[..., Float[Tensor, " batch"]]:
        """Give the cost of a step as the room ``control`` asks for it.

        Returns:
            ``running_cost(layer_name, state, params)``: half of both quadratic forms, one number
            per example.
        """

        def cost(name: str, state: Tensor, params: dict[str, Tensor]) -> Tensor:
            (control,) = params.values()
            return half_form(state, self.state_cost) + half_form(control, self.control_cost)

        return cost


class ControlledStep(nn.Module):
    r"""One step of linear dynamics, :math:`A x + B u`, whose parameter is the control u.

    Args:
        transition: A.
        push: B.

    Attributes:
        is_layer: The room ``control`` takes it as one layer.
    """

    is_layer = True

    def __init__(
        self, transition: Float[Tensor, "state state"], push: Float[Tensor, "state control"]
    ) -> None:
        super().__init__()
        self.register_buffer("transition", transition.clone())
        self.register_buffer("push", push.clone())
        self.control = nn.Parameter(push.new_zeros(push.shape[1]))

    def forward(self, state: Float[Tensor, "batch state"]) -> Float[Tensor, "batch state"]:
        """Go one step on."""
        return state @ self.get_buffer("transition").T + self.get_buffer("push") @ self.control


def half_form(vector: Float[Tensor, "*batch size"], form: Float[Tensor, "size size"]) -> Tensor:
    """Half a quadratic form, one number per vector."""
    return ((vector @ form) * vector).sum(-1) / 2


def double_integrator() -> LinearQuadratic:
    r"""Bring a mass to rest at the origin in five pushes.

    Optimal cost 4.025491054668388, optimal pushes (-10.415, -4.880, -0.716, 2.636, 5.661). The
    largest eigenvalue of the Hessian is 0.10538, so that sweeps converge if
    :math:`2 \rho > 0.04269`, and without a penalty diverge.

    Returns:
        The problem, in float64.

    Source:
        optimal_control, section 7, O4.
    """
    return LinearQuadratic(
        "double integrator",
        transition=matrix([1, 0.1], [0, 1]),
        push=matrix([0.005], [0.1]),
        state_cost=matrix([1, 0], [0, 0.1]),
        control_cost=matrix([0.01]),
        final_cost=matrix([10, 0], [0, 1]),
        start=torch.tensor([1.0, 0.0], dtype=torch.float64),
        steps=5,
    )


def one_step_regulator() -> LinearQuadratic:
    r"""Move a number once: :math:`J = 2 (1 + u)^2 + u^2 / 2`.

    The optimum is u = -0.8 with J = 0.4. A sweep multiplies the distance to it by
    :math:`1 - 5 / (1 + 2 \rho)`: by -4 without a penalty.

    Returns:
        The problem, in float64.

    Source:
        optimal_control, section 7, O3.
    """
    one = matrix([1])
    return LinearQuadratic(
        "one step",
        transition=one,
        push=one,
        state_cost=0 * one,
        control_cost=one,
        final_cost=4 * one,
        start=one[0],
        steps=1,
    )


def matrix(*rows: list[float]) -> Float[Tensor, "rows columns"]:
    """Stack rows of numbers."""
    return torch.tensor(rows, dtype=torch.float64)
