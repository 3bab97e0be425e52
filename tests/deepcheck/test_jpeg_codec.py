"""JPEG against its standard and against Pillow."""

import io

import numpy as np
import pytest
import torch

from deepcheck.corruptions.jpeg_codec import CHROMINANCE, LUMINANCE, _cosines, jpeg, quantisation
from tests.deepcheck.corruption_cases import pictures
from tests.deepcheck.devices import on_every_device, rounding

pytestmark = on_every_device


def test_the_transform_is_orthonormal() -> None:
    cosine = _cosines()
    torch.testing.assert_close(cosine @ cosine.T, torch.eye(8, dtype=torch.float64, device="cpu"))


def test_the_tables_at_quality_50_are_those_of_the_standard() -> None:
    assert quantisation(LUMINANCE, 50).tolist() == [list(row) for row in LUMINANCE]
    assert quantisation(CHROMINANCE, 50).tolist() == [list(row) for row in CHROMINANCE]
    assert quantisation(LUMINANCE, 100).unique().tolist() == [1]
    assert quantisation(LUMINANCE, 1).unique().tolist() == [255]
    assert quantisation(LUMINANCE, 25)[0, :4].tolist() == [32, 22, 20, 32]  # twice
    assert quantisation(LUMINANCE, 75)[0, :4].tolist() == [8, 6, 5, 8]  # half, rounded


@pytest.mark.parametrize("quality", [7, 25, 40, 65, 80, 95, 100])
@pytest.mark.parametrize(("kind", "subsample"), [("grey", True), ("colour", False), ("colour", True)])
def test_it_agrees_with_pillow(kind: str, subsample: bool, quality: int) -> None:
    """Pillow computes with whole numbers: a coefficient that is nearly half-way may be rounded the other way.

    At quality 100, where such a step is a level, no pixel is far; at others the difference is small beside what is lost.
    """
    image = pytest.importorskip("PIL.Image")
    rough = torch.rand(20, *pictures(kind, 1).shape[1:], generator=torch.Generator().manual_seed(4)) - 0.5
    x = ((pictures(kind, 20) + 0.2 * rough).clamp(0, 1) * 255).round() / 255
    ours = (jpeg(x, quality, subsample=subsample) * 255).round().cpu().numpy()
    theirs = []
    for one in (x * 255).round().to(torch.uint8).cpu().numpy():
        file = io.BytesIO()
        picture = image.fromarray(one[0] if len(one) == 1 else np.moveaxis(one, 0, -1))
        picture.save(file, "JPEG", quality=quality, subsampling=2 if subsample else 0)
        read = np.asarray(image.open(file), float)
        theirs.append(read[None] if read.ndim == 2 else np.moveaxis(read, -1, 0))
    away = np.array(theirs) - ours
    lost = np.abs(np.array(theirs) - (x * 255).cpu().numpy()).mean()
    assert np.abs(away.mean((0, 2, 3))).max() < 0.15  # of 255 levels
    if quality == 100:
        assert np.abs(away).max() <= 6
        assert (np.abs(away) <= 2).mean() > 0.98
    else:
        assert np.abs(away).mean() < lost / 4


@pytest.mark.parametrize("kind", ["grey", "colour", "small"])
def test_less_quality_is_farther_away_and_a_flat_image_stays(kind: str) -> None:
    x = pictures(kind, 10)
    away = [float((jpeg(x, quality) - x).norm()) for quality in (100, 90, 70, 40, 20, 8)]
    assert away == sorted(away)
    assert float((jpeg(x, 100, subsample=False) - x).abs().max()) < 4 / 255
    grey = torch.full_like(x, 128 / 255)
    assert torch.equal(jpeg(grey, 1), grey)
    parts = torch.cat([jpeg(part, 30) for part in x.split(3)])
    torch.testing.assert_close(parts, jpeg(x, 30), rtol=0, atol=rounding(torch.float32))


def test_sides_need_not_be_multiples_of_8() -> None:
    """What is added beyond the border does not change the blocks that are whole."""
    x = pictures("colour", 2)
    assert torch.equal(
        jpeg(x[..., :24, :29], 50, subsample=False)[..., :24], jpeg(x[..., :24, :24], 50, subsample=False)
    )
    assert jpeg(x[..., :1, :5], 50).shape == (2, 3, 1, 5)


@pytest.mark.parametrize(
    ("shape", "quality", "message"),
    [
        ((1, 1, 8, 8), 0, "quality = 0 is out of range"),
        ((1, 1, 8, 8), 101, "quality = 101 is out of range: allowed is a whole number from 1 to 100"),
        ((1, 2, 8, 8), 50, "1 channel .grey. or 3 .colours. are"),
        ((1, 8, 8), 50, r"images of shape \(1, 8, 8\) are not allowed"),
    ],
)
def test_what_cannot_be_is_refused(shape: tuple[int, ...], quality: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jpeg(torch.zeros(shape), quality)
