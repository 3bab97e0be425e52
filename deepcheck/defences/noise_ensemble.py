"""The mean over passes of a net with noise layers."""

from __future__ import annotations

import math
from contextlib import ExitStack

import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws, keys, mixed
from deepcheck.defences.base import Defence
from deepcheck.defences.wrappers import EOT, mean_of_draws
from deepcheck.models.noise import noises_in
from odeflow.model import checked_count

__all__ = ["NoiseEnsemble"]


class NoiseEnsemble(Defence):
    r"""The mean over several passes of a net with noise layers, each with noise of its own.

    Random self-ensemble (Liu et al., ECCV 2018): the class probabilities are :math:`\frac1T \sum_t p(x; \xi_t)`, where
    :math:`\xi_t` is the noise of all layers; the logits are their logarithms. Judged by EOT. The noise is that of `Defence.reseed`,
    and the net's own numbers are not used.

    A net without `deepcheck.models.noise.Noise` in it is the net itself in one pass, and this is not random then; randomness of
    another kind is not seen.

    Parameters
    ----------
    net, seed
        See `Defence`.
    passes
        Passes T through the net, >= 1.
    """

    def __init__(self, net: Model, *, passes: int = 10, seed: int = 0) -> None:
        super().__init__(net, seed=seed)
        self.passes = checked_count("passes", passes, 1)
        self.random = bool(noises_in(net))

    def surrogate(self) -> Model:
        """Return the mean over as many calls as make about 30 passes (EOT), or the net itself where nothing is random."""
        return EOT(self, draws=math.ceil(30 / self.passes)) if self.random else self

    def _logits(self, images: Tensor) -> Tensor:
        noises = noises_in(self.net)
        if not noises:
            return self.net(images)
        source = self.generator(torch.device("cpu"))  # whose seeds are the same on every device
        indices = torch.arange(len(images), device=images.device)

        def draw() -> Tensor:
            key = keys(source, indices)
            with ExitStack() as stack:
                for number, noise in enumerate(noises):
                    stack.enter_context(noise.drawn_from(Draws(mixed(key, number))))
                return self.net(images)

        return mean_of_draws(draw, self.passes)
