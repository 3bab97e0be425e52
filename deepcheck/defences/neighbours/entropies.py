"""Embeddings by the least entropy: one search for an image instead of one for every label."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from deepcheck.attacks.base import Attack, Bounds, Model
from deepcheck.attacks.norms import Norm
from deepcheck.defences.neighbours.base import Batch, Embedding
from deepcheck.defences.neighbours.goals import Goal, RenyiEntropy, ShannonEntropy
from deepcheck.defences.neighbours.pulled_back import for_confidence
from deepcheck.defences.neighbours.surrogates import AtEmbedded
from odeflow.model import checked_number

__all__ = ["MCNRenyi", "MCNShannon"]


class _LeastEntropy(Embedding):
    """An embedding by one search, for a goal that is not of a label."""

    @abstractmethod
    def goal(self) -> Goal:
        """Return what the point is to have most of."""

    def surrogate(self) -> Model:
        """Return the net at the point that a shorter search finds, and at the image: see `AtEmbedded`."""
        return AtEmbedded(self)

    def own_attacks(self, norm: str) -> dict[str, Attack]:
        """Return the attack for high confidence, in the norm of the ball."""
        return for_confidence(self, norm)

    def _embedded(self, batch: Batch, steps: int) -> Tensor:
        return self._searched(batch, self.goal(), steps).points


class MCNShannon(_LeastEntropy):
    r"""The net at the point of a ball where Shannon's entropy is least, for MCN in one search (Wu et al., ICML 2018).

    The approximation of `MCN` by one search instead of K: :math:`\arg\min_{|z - x| \le \xi} H(F(z))`,
    :math:`H = -\sum_l F_l \log F_l`. The search climbs towards the label that is likeliest at the image, and so finds the local
    maximum that is nearest, where `MCN` compares those of all labels. It costs steps + 1 passes through the net for an image.
    Judged by attacks on its `surrogate`, by `PulledBack`, and by attacks on the net alone.

    Parameters
    ----------
    net, seed, xi, norm, steps, attack_steps, bounds
        See `Embedding`.
    """

    def goal(self) -> Goal:
        """Return the least entropy."""
        return ShannonEntropy()


class MCNRenyi(_LeastEntropy):
    r"""The net at the point of a ball where Renyi's entropy is least, for MCN in one search (Wu et al., ICML 2018).

    As `MCNShannon`, with :math:`H_a = \frac{a}{1 - a} \log |F|_a`, which becomes
    :math:`-\log \max_l F_l` for large a, that is `MCN` on the way from the image, and Shannon's for :math:`a \to 1`.

    Parameters
    ----------
    net, seed, xi, norm, steps, attack_steps, bounds
        See `Embedding`.
    order
        a, > 0 and not 1.
    """

    def __init__(
        self,
        net: Model,
        *,
        order: float = 2.0,
        xi: float = 0.1,
        norm: Norm | str = "linf",
        steps: int = 100,
        attack_steps: int = 20,
        bounds: Bounds = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(net, xi=xi, norm=norm, steps=steps, attack_steps=attack_steps, bounds=bounds, seed=seed)
        self.order = checked_number("order", order, above=0)
        if self.order == 1:
            raise ValueError("order = 1 is not allowed: that is Shannon's entropy, mcn_shannon; another number > 0 is")

    def goal(self) -> Goal:
        """Return the least entropy."""
        return RenyiEntropy(self.order)
