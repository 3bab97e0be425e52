"""LocalSearch: the pixel that decides, the neighbourhoods of images that are not square, and what it asks."""

import math
import re

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import LocalSearch
from tests.deepcheck.black_box_cases import Asked, Linear, classified, examples, generator
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device


class OnePixel(nn.Module):
    """The class is 0 until the first channel of one pixel is brighter than a half; no other entry matters."""

    def __init__(self, row: int, column: int, scale: float = 1.0) -> None:
        super().__init__()
        self.row, self.column, self.scale = row, column, scale

    def forward(self, x: Tensor) -> Tensor:
        margin = self.scale * (0.5 - x[:, 0, self.row, self.column])
        return torch.stack([margin, torch.zeros_like(margin)], 1)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 13), (6, 0), (6, 13), (2, 9), (5, 4)])
def test_the_one_pixel_that_decides_is_found(row: int, column: int) -> None:
    """In images of 7 x 14 pixels: with rows and columns exchanged there would be no such place, or another."""
    images = torch.zeros(30, 2, 7, 14)
    found = LocalSearch(rounds=40, neighbourhood=2)(
        OnePixel(row, column), images, torch.zeros(30, dtype=torch.int64), generator=generator()
    )
    turned = found.prediction[0] == 1
    assert turned.double().mean() > 0.9
    assert (found.images[turned, 0, row, column] == 0.75).all()
    # where it was among the first pixels, it alone has changed, in both channels
    at_once = LocalSearch(rounds=1, seeds=1.0)(
        OnePixel(row, column), images, torch.zeros(30, dtype=torch.int64), generator=generator()
    )
    assert (at_once.length == 2).all()
    assert (at_once.images[:, :, row, column] == 0.75).all()


def test_the_paths_of_examples_differ() -> None:
    images = torch.zeros(30, 1, 7, 14)
    found = LocalSearch(rounds=1)(OnePixel(0, 0), images, torch.zeros(30, dtype=torch.int64), generator=generator())
    changed = (found.images != 0).flatten(1).double()
    assert changed.sum(1).max() == 5
    assert len(changed.unique(dim=0)) > 20
    assert changed.mean(0).max() < 0.4  # no pixel is preferred where all are equal


def test_the_first_pixels_are_a_share_of_all_and_one_at_least() -> None:
    images = torch.zeros(3, 1, 7, 14)
    for seeds, expected in ((0.1, 10), (0.5, 49), (1e-9, 1), (1.0, 98)):
        asked = Asked(OnePixel(0, 0, scale=0.0))
        LocalSearch(rounds=1, seeds=seeds)(asked, images, torch.ones(3, dtype=torch.int64) * 0, generator=generator())
        assert sum(asked.sizes) == 1 + 3 * (1 + expected + 1)


@pytest.mark.parametrize("batch_size", [500, 6])
def test_a_round_changes_the_pixels_that_gain_most(batch_size: int) -> None:
    """Of a linear model they are known: the largest sums over the channels of weight times change."""
    model = Linear(2, 2 * 5 * 3)
    with torch.no_grad():
        model.b[0] += 100.0
    images = torch.rand(8, 2, 5, 3, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    asked = Asked(model)
    attack = LocalSearch(rounds=1, seeds=1.0, kept=4)
    found = attack(asked, images, labels, generator=generator(), batch_size=batch_size)
    new = images - 0.5
    new = 0.5 + torch.where(new.abs() > 1 / 3, 1.5 * new - new.sign(), 1.5 * new)
    w = (model.W[1] - model.W[0]).detach().view(2, 5, 3)
    best = ((new - images) * w).sum(1).flatten(1).topk(4, dim=1).indices
    expected = images.flatten(2).scatter(2, best[:, None].expand(-1, 2, -1), 0.0)
    changed = (found.images != images).any(1).flatten(1)
    assert torch.equal(changed, (expected != images.flatten(2)).any(1))
    torch.testing.assert_close(found.images, torch.where(changed.view(8, 1, 5, 3), new, images), rtol=0, atol=1e-12)
    assert max(asked.sizes) <= batch_size
    assert 0 <= asked.low < asked.high <= 1


def test_neighbourhoods_are_squares_cut_off_at_the_edges() -> None:
    height, width = 5, 11
    chosen = torch.tensor([[0, 54], [13, 7], [30, 30]])  # row-major
    known = torch.tensor([[True, True], [True, True], [True, False]])
    near = LocalSearch(neighbourhood=2)._around(chosen, known, height, width).view(3, height, width)
    for k in range(3):
        for row in range(height):
            for column in range(width):
                inside = any(
                    abs(row - int(p) // width) <= 2 and abs(column - int(p) % width) <= 2
                    for p, used in zip(chosen[k], known[k], strict=True)
                    if used
                )
                assert bool(near[k, row, column]) == inside


def test_new_values_stay_in_the_box_wherever_it_is() -> None:
    attack = LocalSearch(bounds=(-1.0, 3.0))
    z = torch.linspace(-1, 3, 41, dtype=torch.float64)
    new = attack._new(z)
    assert new.min() >= -1
    assert new.max() <= 3
    torch.testing.assert_close(new[[0, 20, 40]], torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))


def test_a_score_that_rounds_to_1_does_not_blind_it() -> None:
    """Where p_y is 1 in single precision, a pixel changes the margin, but no probability."""
    model = Linear(2, 40, scale=1.0)
    with torch.no_grad():
        model.b.zero_()
        model.W.zero_()
        model.W[0] += 4.0
        model.b[1] = 12.0
        model.W[0, 17] = 60.0  # of the bright image, by far the most
    images = torch.ones(20, 1, 5, 8)
    labels = torch.zeros(20, dtype=torch.int64)
    with torch.no_grad():
        assert (model(images).softmax(1)[:, 0] == 1).all()
    first = {
        name: LocalSearch(objective=name, rounds=1, seeds=1.0, kept=1)(model, images, labels, generator=generator())
        for name in ("margin", "cross_entropy")
    }
    assert (first["margin"].images.flatten(1)[:, 17] == 0.25).all()
    assert (first["cross_entropy"].images.flatten(1)[:, 17] == 0.25).double().mean() < 0.3


def test_as_in_the_paper_pixels_are_tried_far_out_of_the_box() -> None:
    model = Linear(2, 40)
    with torch.no_grad():
        model.b[0] += 500.0
    images = torch.rand(4, 1, 5, 8, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    asked = Asked(model)
    found = LocalSearch(rounds=2, probe=10.0)(asked, images, labels, generator=generator())
    assert asked.low == pytest.approx(-9.5)
    assert asked.high == pytest.approx(10.5)
    assert found.images.min() >= 0
    assert found.images.max() <= 1


def test_a_neighbourhood_may_be_larger_than_the_image() -> None:
    model, images = Linear(3, 2 * 2 * 3), torch.rand(30, 2, 2, 3, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    found = LocalSearch(rounds=10, neighbourhood=9, seeds=1.0)(model, images, labels, generator=generator())
    assert found.length.isfinite().any()


def test_no_more_is_asked_of_what_is_turned() -> None:
    model, images = Linear(3, 40), torch.rand(30, 1, 5, 8, generator=generator(7), dtype=torch.float64)
    labels = (classified(model, images) + 1) % 3
    asked = Asked(model)
    found = LocalSearch()(asked, images, labels, generator=generator())
    assert (found.length == 0).all()
    assert sum(asked.sizes) == 31


def test_vectors_have_no_neighbourhoods() -> None:
    message = "images of shape (5, 12) are not allowed for LocalSearch: (n, channels, height, width) is"
    with pytest.raises(ValueError, match=re.escape(message)):
        LocalSearch()(Linear(2, 12), torch.zeros(5, 12), torch.zeros(5, dtype=torch.int64), generator=generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds = 0 is out of range: allowed is a whole number >= 1"),
        ({"kept": 0}, "kept = 0 is out of range"),
        ({"neighbourhood": 0}, "neighbourhood = 0 is out of range"),
        ({"neighbourhood": 2.5}, "neighbourhood = 2.5 is "),
        ({"seeds": 0.0}, "seeds = 0.0 is out of range"),
        ({"seeds": 1.5}, "seeds = 1.5 is out of range"),
        ({"factor": 3.0}, "factor = 3.0 is out of range"),
        ({"probe": 0.0}, "probe = 0.0 is out of range"),
        ({"norm": "l2"}, "is not allowed for LocalSearch: l0 is"),
        ({"bounds": (0.0, math.inf)}, "bounds = (0.0, inf) are not allowed for LocalSearch: finite ones are"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        LocalSearch(**options)  # type: ignore[arg-type]


def test_examples_are_as_the_search_expects_them() -> None:
    """The order of pixels in an image is that of its rows: a picture of one bright pixel says where it is."""
    images = torch.zeros(1, 1, 4, 9)
    images[0, 0, 2, 7] = 1.0
    some = examples(Linear(2, 36), images, torch.zeros(1, dtype=torch.int64))
    assert int(some.images.flatten(2).argmax()) == 2 * 9 + 7
