"""Data of the seed model: two Gaussian clusters."""

from __future__ import annotations

from dataclasses import dataclass

from odeflow.model.bounds import MOST
from odeflow.model.clusters import GaussianClusters
from odeflow.parameters import checked, described, number

__all__ = ["GaussianMixture"]


@described
@dataclass(frozen=True)
class GaussianMixture:
    """Two isotropic Gaussian clusters in R^N with opposite centres.

    An example has label tau = +1 with probability p, else -1, and is drawn from N(tau (rho/2) B, v_tau I) with |B| = 1.

    Raises
    ------
    TypeError, ValueError
        If a field is not a finite number in its range.

    Examples
    --------
    >>> GaussianMixture(p=0.7)
    GaussianMixture(p=0.7, rho=2.0, v1=1.0, v2=1.0)
    """

    p: float = number(0.5, "prior of the class +1", "p", above=0, below=1)
    rho: float = number(2.0, "separation of the centres", r"\rho", least=0, most=MOST)
    v1: float = number(1.0, "variance of the class +1", "v_1", least=1 / MOST, most=MOST)
    v2: float = number(1.0, "variance of the class -1", "v_2", least=1 / MOST, most=MOST)

    def __post_init__(self) -> None:
        checked(self)

    def clusters(self) -> GaussianClusters:
        """Return the same data as two clusters, that of the class +1 first.

        Examples
        --------
        >>> GaussianMixture(p=0.75).clusters().weights
        (0.75, 0.25)
        """
        return GaussianClusters(
            means=((1.0,), (-1.0,)),
            labels=(1, -1),
            weights=(self.p, 1 - self.p),
            variances=(self.v1, self.v2),
            scale=self.rho / 2,
        )
