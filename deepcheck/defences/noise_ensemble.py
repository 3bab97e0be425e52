"""The mean over passes of a net with noise layers."""

from __future__ import annotations

from contextlib import ExitStack

from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws
from deepcheck.defences.passes import RandomPasses
from deepcheck.models.noise import noises_in

__all__ = ["NoiseEnsemble"]


class NoiseEnsemble(RandomPasses):
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
        super().__init__(net, passes=passes, seed=seed)
        self.random = bool(noises_in(net))

    def one_pass(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the logits of one pass with the noise of these streams in all layers, shape (n, K)."""
        with ExitStack() as stack:
            for noise in noises_in(self.net):
                stack.enter_context(noise.drawn_from(draws))
            return self.net(images)

    def _logits(self, images: Tensor) -> Tensor:
        return super()._logits(images) if self.random else self.net(images)
