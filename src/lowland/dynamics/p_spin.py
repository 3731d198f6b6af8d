r"""The spherical p-spin glass as a module whose only parameter is its spins."""

from collections.abc import Mapping
from itertools import permutations
from math import factorial, perm

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.dynamics.mixture import Mixture, as_mixture
from lowland.training import generator

__all__ = ["PSpin"]


class PSpin(nn.Module):
    r"""Spins on the sphere :math:`|s|^2 = N` with Gaussian couplings between all groups of p.

    :math:`H = -\sum_p a_p (2 N^{p-1})^{-1/2} \sum_{i_1 \dots i_p} G_{i_1 \dots i_p} s_{i_1} \dots
    s_{i_p}` with independent standard normal :math:`G`, so that energies of two configurations
    with overlap q have covariance :math:`N f(q)`, exactly at every size. Several replicas share
    the couplings. The couplings take :math:`N^p` numbers and are drawn anew from the seed, not
    saved.

    Args:
        size: Number of spins N, at least 2.
        order: Spins per coupling, or amplitudes by order.
        seed: Of couplings and first spins.
        replicas: Number of configurations that share the couplings.
        dtype: Of spins and couplings.

    Attributes:
        mixture: The covariance f.
        spins: The parameter, shape (replicas, spins), uniform on the sphere at first.

    Raises:
        ValueError: If the size, the replicas or the order are not what they must be.

    Source:
        Crisanti and Sommers (1992); specification, sections 2 and 3.6.

    Example:
        >>> model = PSpin(16, 3, seed=0, replicas=2)
        >>> model().shape, model.force().shape
        (torch.Size([2]), torch.Size([2, 16]))
    """

    spins: nn.Parameter

    def __init__(
        self,
        size: int,
        order: int | Mapping[int, float] | Mixture = 3,
        *,
        seed: int = 0,
        replicas: int = 1,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if size < 2 or size != int(size):
            raise ValueError(f"size, the number of spins, must be an integer >= 2; got {size}.")
        if replicas < 1 or replicas != int(replicas):
            raise ValueError(f"replicas must be an integer >= 1; got {replicas}.")
        self.mixture = as_mixture(order)
        for p, amplitude in self.mixture.amplitudes:
            draws = generator(seed, "couplings", p)
            scale = amplitude * (2 * size ** (p - 1)) ** -0.5
            couplings = symmetrized(torch.randn((size,) * p, dtype=dtype, generator=draws))
            self.register_buffer(f"couplings_{p}", couplings.mul_(scale), persistent=False)
        spins = torch.randn(replicas, size, dtype=dtype, generator=generator(seed, "spins"))
        self.spins = nn.Parameter(on_sphere(spins))

    @property
    def size(self) -> int:
        """Number of spins N."""
        return self.spins.shape[1]

    def forward(self, inputs: object = None) -> Float[Tensor, " replicas"]:
        """Evaluate the energy per spin, differentiably.

        Args:
            inputs: Not looked at; here so that code that passes a batch works.

        Returns:
            One energy per replica; the gradient is not projected on the sphere.
        """
        return -self.contracted(self.spins, 0) / self.size

    def energy(
        self, spins: Float[Tensor, "replicas spins"] | None = None
    ) -> Float[Tensor, " replicas"]:
        """Evaluate the energy per spin without a graph.

        Args:
            spins: Configurations; None for the model's own.

        Returns:
            One energy per replica.
        """
        with torch.no_grad():
            spins = self.spins if spins is None else spins
            return -self.contracted(spins, 0) / self.size

    def force(
        self, spins: Float[Tensor, "replicas spins"] | None = None
    ) -> Float[Tensor, "replicas spins"]:
        """Evaluate minus the gradient of H = N E, not projected on the sphere.

        Args:
            spins: Configurations; None for the model's own.

        Returns:
            One force per replica.
        """
        with torch.no_grad():
            spins = self.spins if spins is None else spins
            return self.contracted(spins, 1)

    def tangent_hessian(self, replica: int = 0) -> Float[Tensor, "tangent tangent"]:
        r"""Second derivatives of H along the sphere, at a replica's spins.

        :math:`Q^T (\nabla^2 H - (s \cdot \nabla H / N)) Q` with an orthonormal basis Q of the
        tangent space. Without a field from outside its spectrum is a semicircle about :math:`-pE`
        of radius :math:`2 \sqrt{f''(1)}`, up to few outliers.

        Args:
            replica: Which.

        Returns:
            The symmetric matrix, N - 1 by N - 1.

        Source:
            Specification, section 7.4.
        """
        with torch.no_grad():
            spins = self.spins[replica : replica + 1]
            plain = -self.contracted(spins, 2)[0]
            pull = (spins * self.force(spins)).sum() / self.size
            basis = torch.linalg.qr(spins.T, mode="complete").Q[:, 1:]
            tangent = basis.T @ plain @ basis
            tangent.diagonal().add_(pull)
            return (tangent + tangent.T) / 2

    def contracted(
        self, spins: Float[Tensor, "replicas spins"], keep: int
    ) -> Float[Tensor, "replicas ..."]:
        """Differentiate -H so often, and contract the other indices of the couplings with spins."""
        count, size = spins.shape
        terms = []
        for p, _ in self.mixture.amplitudes:
            couplings = self.get_buffer(f"couplings_{p}")
            if keep == p:
                result = couplings.expand(count, *couplings.shape)
            else:
                result = spins @ couplings.reshape(size, -1)
            for _ in range(p - keep - 1):
                result = (spins.unsqueeze(1) @ result.reshape(count, size, -1)).squeeze(1)
            terms.append(perm(p, keep) * result.reshape(count, *[size] * keep))
        return torch.stack(terms).sum(0)


def on_sphere(spins: Float[Tensor, "*replicas spins"]) -> Float[Tensor, "*replicas spins"]:
    """Rescale configurations to length sqrt(N).

    Args:
        spins: Configurations, none of them zero.

    Returns:
        The same directions.
    """
    return spins * (spins.shape[-1] ** 0.5 / spins.norm(dim=-1, keepdim=True))


def symmetrized(tensor: Float[Tensor, "*spins"]) -> Float[Tensor, "*spins"]:
    """Average a tensor over all orders of its indices."""
    result = torch.zeros_like(tensor)
    for order in permutations(range(tensor.ndim)):
        result += tensor.permute(order)
    return result / factorial(tensor.ndim)
