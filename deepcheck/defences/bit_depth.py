"""Fewer grey levels."""

from __future__ import annotations

from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.defences.base import Defence
from deepcheck.defences.wrappers import BPDA, Behind
from odeflow.model import checked_count

__all__ = ["BitDepth"]


class BitDepth(Defence):
    r"""The net on images with fewer levels: every pixel x becomes :math:`\mathrm{round}(x m) / m`, :math:`m = 2^\mathrm{bits} - 1`.

    Feature squeezing (Xu et al., NDSS 2018). A step function has no useful gradient; judged by BPDA with the identity.

    Parameters
    ----------
    net, seed
        See `Defence`; there is nothing random in it.
    bits
        Bits of a pixel, >= 1.
    """

    has_gradient = False

    def __init__(self, net: Model, *, bits: int = 1, seed: int = 0) -> None:
        super().__init__(net, seed=seed)
        self.bits = checked_count("bits", bits, 1)

    def squeezed(self, images: Tensor) -> Tensor:
        """Return the images with fewer levels."""
        m: int = 2**self.bits - 1
        return (images * m).round() / m

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self.squeezed(images))
        return logits

    def surrogate(self) -> Model:
        """Return the net behind the same rounding, through which gradients pass unchanged."""
        return Behind(BPDA(self.squeezed), self.net)
