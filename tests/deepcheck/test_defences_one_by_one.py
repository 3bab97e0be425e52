"""Defences one by one: what each of them alone does."""

import io
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional as F

from deepcheck import models
from deepcheck.attacks.draws import Draws, keys
from deepcheck.corruptions.jpeg_codec import CHROMINANCE, LUMINANCE, _cosines, quantisation
from deepcheck.defences import EOT, JPEG, BitDepth, Median, NoiseEnsemble, Oblivious, ResizePad, make
from deepcheck.defences.resize_pad import shrunk
from deepcheck.models.noise import noises_in


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(n: int, channels: int, height: int, width: int) -> Tensor:
    """Images of a few waves, as bytes over 255."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    phase = 6 * torch.rand(n, channels, 1, 1, generator=seeded())
    return (255 * (torch.sin(rows * 2 + phase) * torch.cos(columns * 1.5 - phase) + 1) / 2).round() / 255


# --- sizes and places ---


@pytest.mark.parametrize(("length", "size", "start"), [(28, 25, 2), (32, 31, 0), (8, 7, 1), (8, 8, 0), (9, 1, 4)])
def test_shrinking_is_bilinear_interpolation(length: int, size: int, start: int) -> None:
    x = torch.rand(1, 1, 1, length, generator=seeded(), dtype=torch.float64)
    A = shrunk(length, torch.tensor([float(size)]).double(), torch.tensor([float(start)]).double())[0]
    row = A @ x[0, 0, 0]
    expected = F.interpolate(x, size=(1, size), mode="bilinear", align_corners=False)[0, 0, 0]
    torch.testing.assert_close(row[start : start + size], expected)
    assert row[:start].abs().sum() + row[start + size :].abs().sum() == 0


def test_sizes_and_places_are_uniform_and_independent() -> None:
    """An image of ones is a rectangle of ones: its size is uniform on 25..28, its place among those that fit."""
    n = 8000
    defence = ResizePad(lambda z: z.flatten(1), passes=1)
    ones = torch.ones(n, 1, 28, 28)
    found = defence.resized(ones, Draws(keys(seeded(3), torch.arange(n))))[:, 0]
    size = (found.amax(2) > 0).sum(1)
    assert torch.equal(size, (found.amax(1) > 0).sum(1))
    torch.testing.assert_close(found.sum((1, 2)), size.float() ** 2)
    assert stats.chisquare(np.bincount(size, minlength=29)[25:]).pvalue > 1e-3
    top, left = ((found.amax(axis) > 0).byte().argmax(1) for axis in (2, 1))
    smallest = size == 25
    places = np.histogram2d(top[smallest], left[smallest], bins=4, range=[[-0.5, 3.5]] * 2)[0]
    assert stats.chisquare(places.flatten()).pvalue > 1e-3


def test_without_room_it_is_the_net() -> None:
    x = torch.rand(5, 3, 9, 6, generator=seeded())
    torch.testing.assert_close(ResizePad(lambda z: z.flatten(1), least=1, passes=1)(x), x.flatten(1).log_softmax(1))


def test_the_mean_of_logits_has_the_gradient_of_every_call() -> None:
    """Of two calls, one sure of its class: the mean probability takes its gradient from the other alone."""
    calls = 0

    def net(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        s = z.sum(1) + (200 if calls % 2 else 0)
        return torch.stack([s, torch.zeros_like(s)], 1)

    x = torch.zeros(1, 2, requires_grad=True)
    (g,) = torch.autograd.grad(EOT(net, 2, mean="logits")(x)[0, 0], x)
    torch.testing.assert_close(g, torch.ones(1, 2))
    with pytest.raises(ValueError, match="mean = 'logit' is unknown"):
        EOT(net, 2, mean="logit")  # type: ignore[arg-type]


# --- median ---


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
def test_the_median_is_that_of_scipy(window: int) -> None:
    x = torch.rand(2, 3, 7, 9, generator=seeded())
    ours = Median(lambda z: z, window=window).smoothed(x).numpy()
    theirs = ndimage.median_filter(x.numpy(), size=(1, 1, window, window), mode="reflect")
    np.testing.assert_array_equal(ours, theirs)


# --- jpeg ---


def test_the_tables_at_some_qualities() -> None:
    """At 50 as they stand, at 100 steps of 1; at 75 half of them, rounded; at 10 five times, 255 at most."""
    Q = torch.tensor(LUMINANCE)
    assert torch.equal(quantisation(LUMINANCE, 50), Q)
    assert torch.equal(quantisation(CHROMINANCE, 100), torch.ones(8, 8, dtype=torch.int64))
    assert torch.equal(quantisation(LUMINANCE, 75), (Q + 1) // 2)
    assert torch.equal(quantisation(LUMINANCE, 10), (5 * Q).clamp(max=255))


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_compression_is_that_of_a_file(quality: int, channels: int) -> None:
    """Of Pillow, with its tables; where a coefficient is half-way, its transform of whole numbers may round it the other way.

    So no coefficient is off by more than a step, beside the rounding of pixels to bytes, and most pixels are the same.
    """
    image = pytest.importorskip("PIL.Image")
    x = smooth(3, channels, 24, 32)
    ours = (255 * JPEG(lambda z: z, quality=quality).compressed(x)).double()
    steps, D = quantisation(LUMINANCE, quality), _cosines()
    for one, found in zip(x, ours, strict=True):
        pixels = (255 * one).round().byte().permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(
            buffer, "JPEG", quality=quality, subsampling=0
        )
        read = image.open(buffer)
        tables = (LUMINANCE, CHROMINANCE)[: 1 if channels == 1 else 2]
        assert [sorted(one) for one in read.quantization.values()] == [
            sorted(quantisation(one, quality).flatten().tolist()) for one in tables
        ]
        theirs = torch.tensor(np.array(read, dtype=float)).reshape(24, 32, channels).permute(2, 0, 1)
        off = found - theirs
        assert float((off.abs() <= 1).double().mean()) > 0.75
        if channels == 1:
            blocks = off.view(3, 8, 4, 8).transpose(1, 2)
            assert ((D @ blocks @ D.mT).abs() <= steps + 8).all()  # 64 pixels, a byte off: 8


def test_a_flat_image_stays_and_the_surrogate_passes_gradients() -> None:
    """A flat block is one coefficient, 8 (value - 128), rounded to the first step of the table."""
    for value in (0, 100, 255):
        step = int(quantisation(LUMINANCE, 75)[0, 0])
        expected = round(8 * (value - 128) / step) * step / 8 + 128
        found = 255 * JPEG(lambda z: z).compressed(torch.full((1, 1, 8, 8), value / 255))
        torch.testing.assert_close(found, torch.full_like(found, min(max(round(expected), 0), 255)))
    x = torch.rand(2, 3, 9, 9, generator=seeded()).requires_grad_()
    (g,) = torch.autograd.grad(JPEG(lambda z: z.flatten(1)).surrogate()(x).sum(), x)
    assert torch.equal(g, torch.ones_like(x))
    with pytest.raises(ValueError, match=r"are not allowed: 1 channel \(grey\) or 3"):
        JPEG(lambda z: z).compressed(torch.zeros(1, 2, 8, 8))


# --- noise layers ---


def noisy(**options: object) -> models.Network:
    return models.build("conv_small", 10, (1, 8, 8), generator=seeded(), noise=[0.2, 0.1], **options).eval()  # type: ignore[arg-type]


def test_noise_layers_add_what_they_say() -> None:
    """Of a linear net with weights 1: logits with the variance of a sum of normal numbers; none where sigma is 0."""
    net = models.build("linear", 2, (1, 10, 10), generator=seeded(), noise=[0.2, 0.1])
    with torch.no_grad():
        net.head.weight.fill_(1.0)
        z = net(torch.zeros(4000, 1, 10, 10))[:, 0]
    assert stats.kstest(((z - z.mean()) / (0.2 * math.sqrt(100))).numpy(), "norm").pvalue > 1e-3
    plain = models.build("conv_small", 10, (1, 8, 8), generator=seeded())
    x = torch.rand(3, 1, 8, 8, generator=seeded())
    still = models.build("conv_small", 10, (1, 8, 8), generator=seeded(), noise=[0, 0])
    assert torch.equal(plain(x), still(x))  # and the weights do not depend on the option
    assert "noise" not in plain.spec
    assert still.spec["noise"] == [0.0, 0.0]


def test_a_noisy_net_goes_on_where_it_was_and_a_copy_by_itself() -> None:
    import copy

    x, state = torch.rand(3, 1, 8, 8, generator=seeded()), torch.get_rng_state()
    net = noisy()
    first = net(x)
    other = copy.deepcopy(net)
    second = net(x)
    assert not torch.equal(first, second)
    assert torch.equal(other(x), second)
    assert int(net.noise.calls) == 4  # type: ignore[union-attr]
    restored = models.from_spec(net.spec)
    restored.load_state_dict(net.state_dict())
    assert torch.equal(restored.eval()(x), net(x))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("value", "message"),
    [([0.1], "has 1 numbers"), ([0.1, -1], r"noise\[1\] = -1.0 is out of range"), ("ab", "of the wrong type")],
)
def test_noise_that_cannot_be_is_refused(value: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        models.build("linear", 2, (1, 4, 4), noise=value)  # type: ignore[arg-type]


def test_an_ensemble_of_passes_is_random_where_its_net_is_and_less_so_with_more() -> None:
    net, x = noisy(), torch.rand(3, 1, 8, 8, generator=seeded())
    assert not NoiseEnsemble(models.build("conv_small", 10, (1, 8, 8))).random
    first, again = NoiseEnsemble(net, seed=4), NoiseEnsemble(net, seed=4)
    assert first.random
    calls = int(noises_in(net)[0].calls)
    with torch.no_grad():
        assert torch.equal(first(x), again(x))
        assert not torch.equal(first(x), first(x))
        assert int(noises_in(net)[0].calls) == calls  # the numbers of the net are left alone
        few, many = (
            torch.stack([d(x).softmax(1) for _ in range(60)]).var(0).sum()
            for d in (NoiseEnsemble(net, passes=1), NoiseEnsemble(net, passes=16))
        )
    assert 8 < float(few / many) < 32  # 16, with the error of variances of 60 draws
    (g,) = torch.autograd.grad(first.surrogate()(x.requires_grad_()).square().sum(), x)
    assert (g.flatten(1).abs().amax(1) > 0).all()


# --- by name, and attacks that do not know ---


def test_by_name() -> None:
    net = models.build("linear", 10, (1, 8, 8))
    assert make("jpeg", net, quality=30).quality == 30
    with pytest.raises(ValueError, match="option of jpeg = 'q' is unknown"):
        make("jpeg", net, q=3)
    defence = BitDepth(net)
    assert Oblivious(None).followed(defence) is net  # type: ignore[arg-type]
