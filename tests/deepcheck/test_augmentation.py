"""Random changes of batches of images."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from deepcheck.training.augmentation import crop, flip
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, channels: int = 3, height: int = 7, width: int = 5) -> Tensor:
    """Images without a black pixel, so that black can only come from the edges."""
    return 0.1 + 0.9 * torch.rand(n, channels, height, width, generator=generator(5))


def shifted(image: Tensor, down: int, across: int, padding: int) -> Tensor:
    """The plain formula: a window of the image with a black frame."""
    height, width = image.shape[1:]
    frame = F.pad(image, (padding,) * 4)
    return frame[:, down : down + height, across : across + width]


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_crop_shifts_each_image_by_its_own_number_of_pixels(padding: int) -> None:
    images = pictures(60)
    found = []
    for image, moved in zip(images, crop(images, padding, generator()), strict=True):
        fits = [
            (down, across)
            for down in range(2 * padding + 1)
            for across in range(2 * padding + 1)
            if torch.equal(moved, shifted(image, down, across, padding))
        ]
        assert len(fits) == 1
        found.append(fits[0])
    for axis in (0, 1):
        assert {shift[axis] for shift in found} == set(range(2 * padding + 1))
    assert any(down != across for down, across in found)


def test_shifts_are_uniform() -> None:
    n, padding = 9000, 1
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3).expand(n, -1, -1, -1)
    # the pixel in the middle comes from one of 9 places
    middle = crop(image, padding, generator())[:, 0, 1, 1].long() - 1
    assert stats.chisquare(torch.bincount(middle, minlength=9).numpy()).pvalue > 1e-3


def test_no_padding_changes_nothing() -> None:
    images = pictures(5)
    assert torch.equal(crop(images, 0, generator()), images)


def test_flip_mirrors_half_of_the_images() -> None:
    n = 1000
    images = pictures(n)
    mirrored = flip(images, generator())
    turned = (mirrored == images.flip(3)).flatten(1).all(1)
    alone = (mirrored == images).flatten(1).all(1)
    assert (turned ^ alone).all()
    assert stats.binomtest(int(turned.sum()), n).pvalue > 1e-3


def test_random_numbers_come_from_the_generator_alone() -> None:
    images = pictures(20)
    before, kept = torch.get_rng_state(), images.clone()
    changes: list[Callable[[torch.Generator], Tensor]] = [
        lambda draw: crop(images, 2, draw),
        lambda draw: flip(images, draw),
    ]
    for change in changes:
        first, again, other = (change(generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(images, kept)


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches_and_memory_formats(n: int) -> None:
    images = pictures(n)
    assert crop(images, 2, generator()).shape == images.shape
    assert flip(images, generator()).shape == images.shape
    last = pictures(6).contiguous(memory_format=torch.channels_last)
    assert torch.equal(crop(last, 2, generator()), crop(pictures(6), 2, generator()))
    assert torch.equal(flip(last, generator()), flip(pictures(6), generator()))
