"""Compression as in JPEG files."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck.attacks.base import Model
from deepcheck.attacks.spatial.sampling import checked_pictures
from deepcheck.defences.base import Defence
from deepcheck.defences.wrappers import BPDA, Behind
from odeflow.model import checked_count

__all__ = ["CHROMINANCE", "JPEG", "LUMINANCE", "scaled_table"]

_BLOCK = 8
# fmt: off
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of the 64 coefficients of brightness, by vertical and horizontal frequency (ITU-T T.81, table K.1)."""
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Those of the two differences of colour (table K.2)."""
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772),
    (0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402),
)
"""From red, green, blue to Y, Cb - 128, Cr - 128 (JFIF 1.02)."""
# fmt: on


class JPEG(Defence):
    r"""The net on images that were written to a JPEG file, and read again.

    Dziugaite, Ghahramani and Roy (2016), Das et al. (2017), Guo et al. (ICLR 2018). Pixels become bytes, colours brightness and two
    differences (JFIF), each block of 8 x 8 its cosine transform, whose coefficients are rounded to multiples of the steps in
    the tables of the standard, scaled by the quality as the library of the Independent JPEG Group does; and back, to bytes
    again. What is not done: there are no fewer pixels of colour (4:4:4), and nothing is packed, which loses nothing. A last block that
    is not whole is filled with the outermost pixels.

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
        checked_pictures(tuple(images.shape))
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images with {images.shape[1]} channels are not allowed: 1 or 3 are")
        bytes_ = (255 * images).round().clamp(0, 255)
        colour = images.shape[1] == 3
        mix = torch.tensor(_TO_YCBCR, dtype=torch.float64).to(images)
        offset = torch.tensor([0.0, 128.0, 128.0]).to(images)[:, None, None]
        planes = (torch.einsum("ij,njhw->nihw", mix, bytes_) + offset).round() if colour else bytes_
        steps = [scaled_table(table, self.quality).to(images) for table in (LUMINANCE, CHROMINANCE, CHROMINANCE)]
        decoded = torch.cat([_rounded(planes[:, k : k + 1], steps[k]) for k in range(planes.shape[1])], 1)
        if colour:
            decoded = torch.einsum("ij,njhw->nihw", torch.linalg.inv(mix), decoded - offset).round().clamp(0, 255)
        return decoded / 255

    def _logits(self, images: Tensor) -> Tensor:
        return self.net(self.compressed(images))

    def surrogate(self) -> Model:
        """Return the net behind the same compression, through which gradients pass unchanged."""
        return Behind(BPDA(self.compressed), self.net)


def scaled_table(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Return the steps at a quality in 1, ..., 100, shape (8, 8): floor((table s + 50) / 100), in [1, 255].

    s is 5000 / quality below 50, rounded down, and 200 - 2 quality from there on.
    """
    s = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table) * s + 50) // 100).clamp(1, 255)


def cosines() -> Tensor:
    """Return the orthogonal matrix of the cosine transform of 8 numbers, frequencies in rows, float64."""
    k = torch.arange(_BLOCK, dtype=torch.float64)
    matrix = torch.cos(math.pi * k[:, None] * (2 * k + 1) / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def _rounded(plane: Tensor, steps: Tensor) -> Tensor:
    """Return a plane of bytes, shape (n, 1, H, W), after its coefficients were rounded to multiples of the steps."""
    height, width = plane.shape[2:]
    D = cosines().to(plane)
    whole = F.pad(plane - 128, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    n, _, rows, columns = whole.shape
    blocks = whole.view(n, rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK).transpose(2, 3)
    multiples = D @ blocks @ D.mT / steps
    coefficients = (
        multiples.sign() * (multiples.abs() + 0.5).floor() * steps
    )  # halves go away from 0, as in that library
    back = (D.mT @ coefficients @ D).transpose(2, 3).reshape(n, 1, rows, columns)
    return (back + 128).round().clamp(0, 255)[:, :, :height, :width]
