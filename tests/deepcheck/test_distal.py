"""Noise images follow their law, and distal adversarial examples are what an attack made of them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import xarray as xr
from scipy import ndimage, stats
from torch import Tensor, nn

from deepcheck import models
from deepcheck.evaluation import checked, distal, false_positive_rate, noise_images
from deepcheck.evaluation.distal import CONTRAST, NOISES, SHOWN, SMOOTHING, _smoothed, distal_attack
from odeflow import load, save
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.evaluation_cases import SUFFIXES

pytestmark = on_every_device


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def neighbours(images: npt.NDArray[np.float32]) -> float:
    """Return the correlation between pixels and those right of them."""
    return float(np.corrcoef(images[..., :-1].ravel(), images[..., 1:].ravel())[0, 1])


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (2, 1, 1), (1, 3, 7)])
def test_noise_is_made_of_images(kind: str, shape: tuple[int, int, int]) -> None:
    x = noise_images(kind, 5, shape, generator())
    assert x.shape == (5, *shape)
    assert x.dtype == torch.float32
    assert bool(((x >= 0) & (x <= 1)).all())
    assert noise_images(kind, 0, shape, generator()).shape == (0, *shape)


def test_uniform_noise_is_uniform_and_independent() -> None:
    x = noise_images("uniform", 50, (1, 20, 20), generator()).numpy()
    assert stats.kstest(x.ravel(), "uniform").pvalue > 1e-3
    assert abs(neighbours(x)) < 4 / math.sqrt(50 * 20 * 19)


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_the_generator_s(kind: str) -> None:
    first, same, other = (noise_images(kind, 3, (1, 8, 8), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (1, 5, 9), (2, 1, 4)])
def test_smoothing_is_that_of_scipy(shape: tuple[int, int, int]) -> None:
    x = torch.rand((6, *shape), generator=generator())
    sigma = torch.linspace(*SMOOTHING, 6)
    reach = min(6, min(shape[1:]) - 1)
    for image, one, smooth in zip(x, sigma, _smoothed(x, sigma), strict=True):
        for channel, plane in zip(image, smooth, strict=True):
            options: dict[str, Any] = {"mode": "mirror", "radius": reach}
            np.testing.assert_allclose(
                plane, ndimage.gaussian_filter(channel.numpy(), float(one), **options), atol=1e-6
            )


def test_cutting_the_filter_off_changes_little() -> None:
    x = torch.rand((1, 1, 28, 28), generator=generator())
    for sigma in (1.0, 1.5, 2.0):
        whole = ndimage.gaussian_filter(x[0, 0].double().numpy(), sigma, mode="mirror", truncate=13 / sigma)
        tail = 2 * stats.norm.sf(6.5 / sigma)  # the weight beyond six pixels, in each of the two directions
        smooth = _smoothed(x, torch.tensor([sigma]))[0, 0]
        assert np.abs(smooth.numpy() - whole).max() < 2 * tail + 1e-6


def test_smooth_noise_is_what_its_documentation_says() -> None:
    """The same random numbers, put together with scipy."""
    draw = generator(3)
    pixels = torch.rand((4, 2, 28, 28), generator=draw).double().numpy()
    sigma, gamma = (low + (high - low) * torch.rand(4, generator=draw).numpy() for low, high in (SMOOTHING, CONTRAST))
    made = noise_images("smooth", 4, (2, 28, 28), generator(3)).numpy()
    for image in range(4):
        for channel in range(2):
            smooth = ndimage.gaussian_filter(pixels[image, channel], sigma[image], mode="mirror", radius=6)
            expected = 1 / (1 + np.exp(-gamma[image] * (smooth - smooth.mean())))
            np.testing.assert_allclose(made[image, channel], expected, atol=1e-5)


def test_smooth_noise_is_smooth_and_of_high_contrast() -> None:
    made = noise_images("smooth", 200, (1, 20, 20), generator())
    assert neighbours(made.numpy()) > 0.75  # exp(-1 / (4 sigma^2)) in the interior: 0.78 at sigma = 1, 0.94 at 2
    flat = _smoothed(torch.rand((200, 1, 20, 20), generator=generator()), torch.full((200,), SMOOTHING[0]))
    assert float(made.flatten(1).std(1).mean()) > float(flat.flatten(1).std(1).mean())
    np.testing.assert_allclose(made.mean((1, 2, 3)), 0.5, atol=0.05)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"kind": "smoth"},
            ValueError,
            r"kind = 'smoth' is unknown \(did you mean 'smooth'\?\): allowed is one of unif",
        ),
        ({"kind": 1}, TypeError, "kind = 1 is of the wrong type: allowed is one of uniform, smooth"),
        ({"count": -1}, ValueError, "count = -1 is out of range: allowed is a whole number >= 0"),
    ],
)
def test_noise_that_cannot_be_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        noise_images(**{"kind": "uniform", "count": 1, "in_shape": (1, 4, 4), "generator": generator(), **options})


# distal adversarial examples

SHAPE = (1, 8, 8)
COUNT = 20
EPSILON = 0.2


class Net(nn.Module):
    """A net that is confident here and there, with dropout that would show in train mode."""

    def __init__(self) -> None:
        super().__init__()
        draw = generator(7)
        self.first, self.last = torch.randn(64, 20, generator=draw) / 8, torch.randn(20, 4, generator=draw)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.dropout((4 * (x.flatten(1) - 0.5) @ self.first).tanh())
        return 2 * hidden @ self.last


@pytest.fixture(scope="module")
def records() -> xr.Dataset:
    return distal(Net(), SHAPE, epsilon=EPSILON, count=COUNT, steps=60, restarts=3, seed=2, configuration={"net": "a"})


def test_records_are_of_images_of_no_class(records: xr.Dataset) -> None:
    sizes = {"attack": 1, "epsilon": 1, "restart": 3, "example": 2 * COUNT, "validation": 0, "shown": 2 * SHOWN}
    assert dict(records.sizes) == {**sizes, "channel": 1, "row": 8, "column": 8}
    assert records.label.values.tolist() == [-1] * 2 * COUNT
    assert records.noise.values.tolist() == ["uniform"] * COUNT + ["smooth"] * COUNT
    assert records.attack.values.tolist() == ["distal"]
    assert records.norm.values.tolist() == ["linf"]
    assert records.objective.values.tolist() == ["any_confidence"]
    assert records.epsilon.values.tolist() == [EPSILON]
    checked(records)
    options = json.loads(records.attrs["configuration"])["options"]
    assert options["count"] == COUNT
    assert options["net"] == "a"
    assert options["attack"] == repr(distal_attack(steps=60, restarts=3))
    assert records.attrs["seed"] == "2"


def test_the_attack_raises_the_confidence_within_the_ball(records: xr.Dataset) -> None:
    best = records.confidence.isel(attack=0, epsilon=0).max("restart").values
    assert np.all(best >= records.clean_confidence)
    assert best.mean() > records.clean_confidence.values.mean() + 0.1
    assert float(records.length.max()) <= EPSILON * (1 + 1e-5)
    before, after = (false_positive_rate(records, 0.9, epsilon=size) for size in (0.0, EPSILON))
    assert before < after


def test_the_pictures_are_the_attacked_images_and_their_noise(records: xr.Dataset) -> None:
    net = Net().eval()
    shown = records.shown.values
    assert shown.tolist() == [*range(SHOWN), *range(COUNT, COUNT + SHOWN)]
    change = np.abs(records.image.values - records.noise_image.values)
    assert change.max() <= EPSILON * (1 + 1e-5)
    assert records.image.values.min() >= 0
    assert records.image.values.max() <= 1
    for pixels, prediction, confidence in (
        (records.noise_image, records.clean_prediction[shown], records.clean_confidence[shown]),
        (records.image, records.image_prediction, records.image_confidence),
    ):
        p = net(torch.tensor(pixels.values)).softmax(1).numpy()
        np.testing.assert_array_equal(p.argmax(1), prediction)
        np.testing.assert_allclose(p.max(1), confidence, rtol=1e-5)
    ends = records.isel(attack=0, epsilon=0, example=shown)
    np.testing.assert_allclose(records.image_confidence, ends.confidence.max("restart"), rtol=1e-5)
    found = (ends.prediction == records.image_prediction.values) & np.isclose(ends.length, change.max((1, 2, 3)))
    assert bool(found.any("restart").all())  # the end of one of the restarts
    noise = records.noise.values[shown] == "smooth"
    assert neighbours(records.noise_image.values[noise]) > 0.7 > neighbours(records.noise_image.values[~noise])


def test_a_linear_net_of_two_classes_is_driven_to_the_corner_of_the_ball() -> None:
    """Class 1 is predicted everywhere, with the logit w x + b: the most confident image is x + epsilon sign(w)."""
    net = models.build("linear", 2, SHAPE, generator=generator())
    w = 0.1 * torch.randn(64, generator=generator(1))
    with torch.no_grad():
        net.head.weight.copy_(torch.stack([torch.zeros(64), w]))
        net.head.bias.copy_(torch.tensor([0.0, 0.1 - float(w.clamp(max=0).sum())]))
    records = distal(net, SHAPE, epsilon=EPSILON, count=SHOWN, steps=150, restarts=2)
    x = torch.tensor(records.noise_image.values)
    corner = (x + EPSILON * w.sign().view(SHAPE)).clamp(0, 1)
    np.testing.assert_allclose(records.image, corner, atol=1e-5)
    expected = net(corner).softmax(1)[:, 1].detach()
    for restart in range(2):
        np.testing.assert_allclose(records.confidence[0, 0, restart], expected, rtol=1e-5)
    assert np.all(records.confidence.values > records.clean_confidence.values)
    assert np.all(records.prediction.values == 1)


def test_seed_and_batch_size() -> None:
    def made(seed: int = 0, batch_size: int = 500) -> xr.Dataset:
        return distal(Net(), SHAPE, epsilon=EPSILON, count=3, steps=5, seed=seed, batch_size=batch_size)

    first = made()
    assert made().drop_attrs().identical(first.drop_attrs())
    np.testing.assert_allclose(made(batch_size=2).image, first.image, atol=1e-5)
    np.testing.assert_allclose(made(batch_size=2).confidence, first.confidence, rtol=1e-4)
    assert not np.array_equal(made(seed=1).noise_image, first.noise_image)
    assert first.shown.values.tolist() == [0, 1, 2, 3, 4, 5]


def test_the_model_is_left_in_the_mode_it_was_in() -> None:
    net = Net()
    distal(net, SHAPE, epsilon=EPSILON, count=1, steps=1)
    assert net.training
    assert net.dropout.training
    distal(net.eval(), SHAPE, epsilon=EPSILON, count=1, steps=1)
    assert not net.training


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_records_survive_a_file(records: xr.Dataset, suffix: str, tmp_path: Path) -> None:
    save(records, tmp_path / f"distal{suffix}")
    again = load(tmp_path / f"distal{suffix}")
    checked(again)
    assert again.attrs == records.attrs
    xr.testing.assert_equal(again, records)
    assert again.noise.values.tolist() == records.noise.values.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0 is out of range: allowed is a finite number > 0"),
        ({"epsilon": -0.1}, "epsilon = -0.1 is out of range: allowed is a finite number > 0"),
        ({"epsilon": math.inf}, "epsilon = inf is out of range"),
        ({"epsilon": math.nan}, "epsilon = nan is out of range"),
        ({"count": 0}, "count = 0 is out of range: allowed is a whole number >= 1"),
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"restarts": 0}, "restarts = 0 is out of range: allowed is a whole number >= 1"),
        ({"seed": -1}, "seed = -1 is out of range: allowed is a whole number >= 0"),
        ({"batch_size": 0}, "batch_size = 0 is out of range: allowed is a whole number >= 1"),
    ],
)
def test_bad_input_is_refused_before_any_attack(options: dict[str, Any], message: str) -> None:
    def model(x: Tensor) -> Tensor:
        raise AssertionError("the model was called")

    with pytest.raises(ValueError, match=message):
        distal(**{"model": model, "in_shape": SHAPE, "epsilon": EPSILON, "count": 2, **options})
