"""Compression as in JPEG files."""

from __future__ import annotations

from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.corruptions.jpeg_codec import jpeg
from deepcheck.defences.base import Defence
from deepcheck.defences.wrappers import BPDA, Behind
from odeflow.model import checked_count

__all__ = ["JPEG"]


class JPEG(Defence):
    r"""The net on images that were written to a JPEG file, and read again.

    Dziugaite, Ghahramani and Roy (2016), Das et al. (2017), Guo et al. (ICLR 2018). The file is that of
    `deepcheck.corruptions.jpeg_codec`, with as many pixels of colour as of brightness (4:4:4).

    Rounding has no useful gradient. Judged by BPDA with the identity, which is also what the rounding alone replaced by the
    identity gives: the cosine transform and its inverse cancel.

    Parameters
    ----------
    net, seed
        See `Defence`; there is nothing random in it.
    quality
        1 to 100: 50 are the tables as they stand, 100 are steps of 1.
    """

    has_gradient = False

    def __init__(self, net: Model, *, quality: int = 75, seed: int = 0) -> None:
        super().__init__(net, seed=seed)
        self.quality = checked_count("quality", quality, 1, most=100)

    def compressed(self, images: Tensor) -> Tensor:
        """Return the images, shape (n, 1 or 3, H, W) in [0, 1], as they are read from their files."""
        return jpeg(images, self.quality, subsample=False)

    def _logits(self, images: Tensor) -> Tensor:
        return self.net(self.compressed(images))

    def surrogate(self) -> Model:
        """Return the net behind the same compression, through which gradients pass unchanged."""
        return Behind(BPDA(self.compressed), self.net)
