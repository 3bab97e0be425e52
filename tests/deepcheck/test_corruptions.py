"""Each corruption against its law, or against the library that the benchmarks took it from."""

import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from deepcheck.attacks.draws import Draws
from deepcheck.corruptions import CORRUPTIONS, SEVERITIES
from deepcheck.corruptions.blur import disk
from deepcheck.corruptions.filters import blurred, clipped_zoom, filtered, plasma, streaked
from deepcheck.corruptions.noise import poisson
from tests.deepcheck.corruption_cases import draw, flat, pictures
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device

severities = pytest.mark.parametrize("severity", SEVERITIES)
kinds = pytest.mark.parametrize("kind", ["grey", "colour"])


def table(name: str, kind: str) -> tuple[Any, ...]:
    return CORRUPTIONS[name].parameters(3 if kind == "colour" else 1)


# the published numbers


def test_the_parameters_are_those_of_cifar10_c() -> None:
    published = {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "jpeg_compression": (80, 65, 58, 50, 40),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    }
    assert {name: table(name, "colour") for name in published} == published


def test_the_published_severity_has_the_parameter_of_mnist_c() -> None:
    published = {
        "shot_noise": 3,
        "impulse_noise": 0.17,
        "shear": 0.4,
        "scale": 0.7,
        "rotate": 0.4,
        "brightness": 0.5,
        "translate": 3,
        "stripe": 7,
        "dotted_line": (1, 1),
        "zigzag": (1, 1),
        "canny_edges": 1,
    }
    found = {name: table(name, "grey")[(CORRUPTIONS[name].published or 0) - 1] for name in published}
    assert found == published


# noise


@severities
@kinds
def test_gaussian_noise_has_its_standard_deviation(kind: str, severity: int) -> None:
    c = table("gaussian_noise", kind)[severity - 1]
    x = flat(kind, 40, 0.5)
    z = CORRUPTIONS["gaussian_noise"](x, severity, draw()) - x
    # of a normal law that is cut off at +-0.5, where its rest lies
    wide = stats.norm(scale=c)
    values = np.clip(wide.ppf((np.arange(20_000) + 0.5) / 20_000), -0.5, 0.5)
    assert float(z.mean()) == pytest.approx(0, abs=4 * values.std() / math.sqrt(z.numel()))
    assert float(z.std()) == pytest.approx(values.std(), rel=4 / math.sqrt(2 * z.numel()))


@severities
@kinds
def test_speckle_noise_is_as_large_as_the_pixel(kind: str, severity: int) -> None:
    c = table("speckle_noise", kind)[severity - 1]
    for value in (0.1, 0.2):
        x = flat(kind, 40, value)
        z = (CORRUPTIONS["speckle_noise"](x, severity, draw()) - x) / value
        inside = z[(z > -1 + 1e-9)]
        expected = stats.truncnorm(-1 / c, np.inf, scale=c)
        assert float(inside.std()) == pytest.approx(expected.std(), rel=4 / math.sqrt(2 * inside.numel()))
    assert not CORRUPTIONS["speckle_noise"](flat(kind, 1, 0.0), severity, draw()).any()


@severities
@kinds
def test_shot_noise_is_a_poisson_number_over_c(kind: str, severity: int) -> None:
    c = table("shot_noise", kind)[severity - 1]
    z = CORRUPTIONS["shot_noise"](flat(kind, 20, 0.3), severity, draw()).cpu().numpy().ravel()
    counts = np.bincount(np.rint(z * c).astype(int), minlength=c + 1)
    np.testing.assert_allclose(z * c, np.rint(z * c), atol=1e-9)
    law = stats.poisson(0.3 * c)
    share = law.pmf(np.arange(c + 1))
    share[-1] = law.sf(c - 1)  # what is brighter than white is white
    often = share * z.size >= 5
    seen, wanted = np.append(counts[often], counts[~often].sum()), np.append(share[often], share[~often].sum()) * z.size
    if wanted[-1] < 1:
        seen, wanted = seen[:-1], wanted[:-1] * seen[:-1].sum() / wanted[:-1].sum()
    assert stats.chisquare(seen, wanted).pvalue > 1e-4
    if law.sf(c) < 1e-9:
        assert z.var() == pytest.approx(0.3 / c, rel=5 * math.sqrt(2 / z.size))
    assert not CORRUPTIONS["shot_noise"](flat(kind, 1, 0.0), severity, draw()).any()


def test_quantiles_of_the_poisson_law_are_exact() -> None:
    smallest = 2.0**-25  # a uniform number of single precision is not nearer to 0 or 1
    tail = np.logspace(math.log10(smallest), -2, 40)
    share, mean = np.meshgrid(
        np.concatenate([tail, np.linspace(0.01, 0.99, 50), 1 - tail]),
        np.concatenate([np.linspace(0.01, 5, 150), np.linspace(5, 100, 100), np.linspace(100, 2000, 20)]),
    )
    found = poisson(torch.tensor(mean), torch.tensor(share)).cpu().numpy()
    np.testing.assert_array_equal(found, stats.poisson.ppf(share, mean))
    assert not poisson(torch.zeros(3).double(), torch.tensor([smallest, 0.5, 1 - smallest], dtype=torch.float64)).any()


@severities
@kinds
def test_impulse_noise_hits_its_share_half_black_half_white(kind: str, severity: int) -> None:
    c = table("impulse_noise", kind)[severity - 1]
    z = CORRUPTIONS["impulse_noise"](flat(kind, 40, 0.5), severity, draw())
    for hit in (z == 0, z == 1):
        share = float(hit.double().mean())
        assert share == pytest.approx(c / 2, abs=4 * math.sqrt(c / 2 / z.numel()))
    assert set(z.unique().tolist()) == {0.0, 0.5, 1.0}


# blur


@severities
@kinds
def test_gaussian_blur_is_that_of_scipy(kind: str, severity: int) -> None:
    x = pictures(kind, 2, dtype=torch.float64)
    z = CORRUPTIONS["gaussian_blur"](x, severity, draw())
    sigma = table("gaussian_blur", kind)[severity - 1]
    expected = ndimage.gaussian_filter(x.cpu().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    np.testing.assert_allclose(z.cpu().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("border", "mode"), [("edge", "nearest"), ("mirror", "mirror"), ("zero", "constant")])
def test_borders_of_a_filter_are_those_of_scipy(border: str, mode: str) -> None:
    """Also where the filter is wider than the image."""
    x = pictures("small", 2, dtype=torch.float64)
    for sigma in (0.3, 1.0, 6.0):
        expected = ndimage.gaussian_filter(x.cpu().numpy(), (0, 0, sigma, sigma), mode=mode, truncate=3)
        found = blurred(x, sigma, border=border, truncate=3)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-12)


@severities
@kinds
def test_defocus_spreads_a_point_over_a_disk(kind: str, severity: int) -> None:
    radius, alias = table("defocus_blur", kind)[severity - 1]
    kernel = disk(radius, alias)
    assert float(kernel.sum()) == pytest.approx(1)
    assert torch.allclose(kernel, kernel.T)
    assert torch.allclose(kernel, kernel.flip(0))
    side = (len(kernel) - 1) // 2
    inside = sum(a * a + b * b <= radius**2 for a in range(-side, side + 1) for b in range(-side, side + 1))
    if alias == 0.1:  # the edge is not blurred: exp(-50)
        assert int((kernel > 1e-9).sum()) == inside
        assert float(kernel.max()) == pytest.approx(1 / inside)
    x = pictures(kind, 2, dtype=torch.float64)
    expected = ndimage.correlate(x.cpu().numpy(), kernel.cpu().numpy()[None, None], mode="mirror")
    np.testing.assert_allclose(CORRUPTIONS["defocus_blur"](x, severity, draw()).cpu().numpy(), expected, atol=1e-12)
    assert (filtered(flat(kind, 1, 0.7), kernel) - 0.7).abs().max() < 1e-12


def test_a_disk_of_another_size_has_the_area_of_one() -> None:
    for radius in (0.9, 1.4, 2.6):
        kernel = disk(radius, 0.1, 25)
        assert 1 / float(kernel.max()) == pytest.approx(math.pi * radius**2, rel=0.02 if radius > 1 else 0.6)


@pytest.mark.parametrize(("angle", "row", "column"), [(0, 0, 1), (90, 1, 0), (180, 0, -1), (45, 1, 1)])
def test_motion_blur_is_one_sided_with_gaussian_weights(angle: float, row: int, column: int) -> None:
    x = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    x[..., 20, 20] = 1
    z = streaked(x, 6, 2, torch.tensor([float(angle)], dtype=torch.float64))[0, 0]
    weight = np.exp(-(np.arange(13) ** 2) / 8)
    weight /= weight.sum()
    seen = np.zeros(13)
    for i, one in enumerate(weight):  # a step of 45 degrees is rounded to a whole one down and one right
        k = round(i / math.sqrt(2)) if angle == 45 else i
        seen[k] += one
    found = [float(z[20 - k * row, 20 - k * column]) for k in range(13)]
    np.testing.assert_allclose(found, seen, atol=1e-12)
    assert float(z.sum()) == pytest.approx(1)


@pytest.mark.parametrize("factor", [1.0, 1.03, 1.06, 1.11, 1.25, 2.0, 4.5])
def test_the_zoom_is_that_of_scipy(factor: float) -> None:
    x = pictures("colour", 2, dtype=torch.float64)
    length = 32
    part = math.ceil(length / factor)
    first = (length - part) // 2
    middle = x.cpu().numpy()[..., first : first + part, first : first + part]
    expected = ndimage.zoom(middle, (1, 1, factor, factor), order=1)
    trim = (expected.shape[2] - length) // 2
    expected = expected[..., trim : trim + length, trim : trim + length]
    np.testing.assert_allclose(clipped_zoom(x, factor).cpu().numpy(), expected, atol=1e-9)


@severities
@kinds
def test_zoom_blur_is_a_mean(kind: str, severity: int) -> None:
    step, count = table("zoom_blur", kind)[severity - 1]
    x = pictures(kind, 1, dtype=torch.float64)
    one, other = np.arange(1, 1 + step * count - step / 2, step), 1 + step * np.arange(count)
    np.testing.assert_allclose(one, other)
    mean = sum((clipped_zoom(x, factor) for factor in other), x) / (count + 1)
    torch.testing.assert_close(CORRUPTIONS["zoom_blur"](x, severity, draw()), mean)


def test_frosted_glass_exchanges_neighbours() -> None:
    """Without blur the pixels are the same in other places; the first row and column are no partners."""
    x = torch.arange(28 * 28, dtype=torch.float64).view(1, 1, 28, 28).repeat(50, 1, 1, 1)
    for share in (0.5, 1.0):
        z = CORRUPTIONS["glass_blur"].apply(x, (0, 1, 1, share), Draws.of(draw(), x))
        assert torch.equal(z.flatten(1).sort(1)[0], x.flatten(1))
        assert torch.equal(z[..., 0, :], x[..., 0, :])
        assert torch.equal(z[..., 0], x[..., 0])
        # the last pixel that is taken moves alone: by -1 or 0 along both sides, in half of the passes
        stays = float((z[:, 0, 1, 1] == x[:, 0, 1, 1]).double().mean())
        assert stays < 1
    moved = CORRUPTIONS["glass_blur"].apply(x, (0, 1, 1, 0.0), Draws.of(draw(), x))
    assert torch.equal(moved, x)


# weather


@kinds
def test_fog_is_a_height_map_of_a_weight(kind: str) -> None:
    """Where two severities have the same decay, they have the same map: x = 1 becomes (1 + c m) / (1 + c)."""
    (one, decay), (other, same) = table("fog", kind)[:2]
    assert decay == same
    x = pictures(kind, 3, dtype=torch.float64)
    x[..., 0, 0] = 1
    maps = [(CORRUPTIONS["fog"](x, k + 1, draw()) * (1 + c) - x) / c for k, c in enumerate((one, other))]
    torch.testing.assert_close(*maps)
    assert -1e-9 < float(maps[0].min()) < float(maps[0].max()) < 1 + 1e-9
    assert torch.allclose(maps[0], maps[0][:, :1].expand_as(maps[0]))  # the fog is grey
    assert not CORRUPTIONS["fog"](0 * x, 1, draw()).any()


def test_height_maps_are_from_0_to_1_and_rougher_with_less_decay() -> None:
    x = torch.zeros(30, 1, 1, 1, dtype=torch.float64)
    rough = []
    for decay in (1.4, 2.0, 3.0):
        m = plasma(x, 64, decay, Draws.of(draw(), x))
        assert m.shape == (30, 1, 64, 64)
        assert torch.equal(m.amin((1, 2, 3)), torch.zeros(30).double())
        assert torch.equal(m.amax((1, 2, 3)), torch.ones(30).double())
        inner, across = m.diff(dim=3).square().mean(), (m[..., 0] - m[..., -1]).square().mean()
        assert float(across) == pytest.approx(float(inner), rel=0.25)  # a torus has no border
        rough.append(float(inner))
    assert rough[0] > 1.3 * rough[1] > 1.3**2 * rough[2]


@severities
def test_brightness_raises_the_value_of_hsv(severity: int) -> None:
    c = table("brightness", "colour")[severity - 1]
    x = torch.rand(1, 3, 8, 8, generator=draw(), dtype=torch.float64)
    x[..., 0, 0] = 0
    z = CORRUPTIONS["brightness"](x, severity, draw())
    for before, after in zip(x[0].flatten(1).T.tolist(), z[0].flatten(1).T.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(h, s, min(v + c, 1)), abs=1e-12)
    grey = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64).view(1, 1, 1, 3).expand(1, 1, 3, 3)
    raised = CORRUPTIONS["brightness"](grey, severity, draw())[0, 0, 0]
    expected = torch.tensor([0.0, 0.3, 1.0]).double() + table("brightness", "grey")[severity - 1]
    torch.testing.assert_close(raised, expected.clamp(max=1))


@severities
def test_saturation_is_that_of_hsv(severity: int) -> None:
    slope, more = table("saturate", "colour")[severity - 1]
    x = torch.rand(1, 3, 8, 8, generator=draw(), dtype=torch.float64)
    x[..., 0, 0], x[..., 0, 1] = 0, 0.5
    z = CORRUPTIONS["saturate"](x, severity, draw())
    for before, after in zip(x[0].flatten(1).T.tolist(), z[0].flatten(1).T.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(h, min(max(s * slope + more, 0), 1), v), abs=1e-12)


@kinds
def test_snow_falls_twice_the_second_time_turned(kind: str) -> None:
    black = flat(kind, 5, 0.0)
    for severity in SEVERITIES:
        z = CORRUPTIONS["snow"](black, severity, draw())
        torch.testing.assert_close(z, z.flip(2, 3))
        white = 0.5 * (1 - table("snow", kind)[severity - 1][6])
        assert float(z.min()) >= white - 1e-12
    none = CORRUPTIONS["snow"].apply(black + 0.2, (-9, 0.1, 1, 0.5, 8, 3, 0.9), Draws.of(draw(), black))
    torch.testing.assert_close(none, 0.9 * (black + 0.2) + 0.1 * (black + 0.8))  # 1.5 x + 0.5


@severities
@kinds
def test_frost_is_a_sum(kind: str, severity: int) -> None:
    weight, most = table("frost", kind)[severity - 1]
    x = pictures(kind, 2, dtype=torch.float64)
    ice = [
        CORRUPTIONS["frost"].apply(one, (weight, most), Draws.of(draw(), x)) - weight * one
        for one in (x, flat(kind, 2, 0.3))
    ]
    torch.testing.assert_close(*ice)
    assert float(ice[0].min()) >= -1e-12
    assert 0.3 * most < float(ice[0].max()) <= most + 1e-12


@kinds
def test_mud_covers_and_water_shines_through(kind: str) -> None:
    x = flat(kind, 20, 0.8)
    for severity in SEVERITIES:
        z = CORRUPTIONS["spatter"](x, severity, draw())
        changed = (z != x).any(1)
        assert float(changed.double().mean()) > 0.001
        if table("spatter", kind)[severity - 1][5]:
            mud = torch.tensor([63, 42, 20]).double()[: x.shape[1], None] / 255
            assert float(changed.double().mean()) < 0.7
            darkest = z.amin(1).flatten(1).argmin(1)
            found = z.flatten(2)[torch.arange(20), :, darkest].T
            assert float((found - mud).min()) > -1e-9
            assert float((found[:, found.amax(0).argmin()] - mud[:, 0]).abs().max()) < 0.05
        else:
            assert bool((z >= x).all())


# digital


@severities
@kinds
def test_contrast_keeps_the_mean(kind: str, severity: int) -> None:
    c = table("contrast", kind)[severity - 1]
    x = pictures(kind, 3, dtype=torch.float64)
    z = CORRUPTIONS["contrast"](x, severity, draw())
    torch.testing.assert_close(z.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(z.std((2, 3)), c * x.std((2, 3)))


@severities
@kinds
def test_pixels_are_those_of_pillow(kind: str, severity: int) -> None:
    image = pytest.importorskip("PIL.Image")
    c = table("pixelate", kind)[severity - 1]
    x = (pictures(kind, 3) * 255).round() / 255
    z = CORRUPTIONS["pixelate"](x, severity, draw()).cpu().numpy() * 255
    for before, after in zip(x.cpu().numpy(), z, strict=True):
        for plane, expected in zip(before, after, strict=True):
            side = len(plane)
            picture = image.fromarray(np.rint(plane * 255).astype(np.uint8))
            few = picture.resize((int(side * c),) * 2, image.Resampling.BOX)
            seen = np.asarray(few.resize((side, side), image.Resampling.BOX), float)
            assert np.abs(seen - expected).max() <= 1 + 1e-3  # it rounds after each side


@severities
def test_quantisation_leaves_so_many_levels(severity: int) -> None:
    x = torch.linspace(0, 1, 28 * 28, dtype=torch.float64).view(1, 1, 28, 28)
    z = CORRUPTIONS["quantize"](x, severity, draw())
    bits = table("quantize", "grey")[severity - 1]
    assert len(z.unique()) == 2**bits
    assert float((z - x).abs().max()) <= 0.5 / (2**bits - 1) + 1e-12


@severities
def test_stripes_are_inverted(severity: int) -> None:
    width = table("stripe", "grey")[severity - 1]
    x = pictures("grey", 2, dtype=torch.float64)
    z = CORRUPTIONS["stripe"](x, severity, draw())
    for column in range(28):
        inverted = column < width or column >= 28 - width
        torch.testing.assert_close(z[..., column], 1 - x[..., column] if inverted else x[..., column])


def test_a_dotted_line_is_a_straight_one_in_pairs_of_columns() -> None:
    z = CORRUPTIONS["dotted_line"](flat("grey", 60, 0.0), 3, draw())[:, 0]
    column = torch.arange(28)
    lit = z.amax(1) > 0.1
    assert bool((lit == ((column // 2 % 2 == 1) & (column < 27))).all())
    weight = z + 1e-12
    row = (weight * torch.arange(28)[:, None]).sum(1) / weight.sum(1)
    on = (column // 2 % 2 == 1) & (column > 1) & (column < 26)
    inner = ((row[:, on] > 3) & (row[:, on] < 24)).all(1)  # lines near the border are cut
    places = row[inner][:, on]
    where = column[on].double()
    slope = ((places - places.mean(1, keepdim=True)) * (where - where.mean())).sum(1) / (
        where - where.mean()
    ).square().sum()
    straight = places.mean(1, keepdim=True) + slope[:, None] * (where - where.mean())
    assert int(inner.sum()) > 10
    assert float((places - straight).abs().max()) < 0.3
    faint = [CORRUPTIONS["dotted_line"](flat("grey", 60, 0.0), k, draw())[:, 0] for k in (1, 2)]
    torch.testing.assert_close(faint[0], z / 3)
    torch.testing.assert_close(faint[1], 2 * z / 3)


def test_a_zigzag_has_its_corners_beside_a_line() -> None:
    z = CORRUPTIONS["zigzag"](flat("grey", 80, 0.0), 3, draw())[:, 0]
    lit = z.amax(1) > 0.1
    assert not lit[:, :2].any()
    rows = torch.arange(28, dtype=torch.float64)
    middle = (z * rows[:, None]).sum(1)[:, 4:24] / z.sum(1)[:, 4:24].clamp(min=1e-9)
    whole = (z[:, :5].amax((1, 2)) == 0) & (z[:, -5:].amax((1, 2)) == 0)  # those that the border does not cut
    middle = middle[whole]
    assert len(middle) > 20
    where = torch.arange(20, dtype=torch.float64)
    slope = ((middle - middle.mean(1, keepdim=True)) * (where - where.mean())).sum(1) / (
        where - where.mean()
    ).square().sum()
    away = middle - middle.mean(1, keepdim=True) - slope[:, None] * (where - where.mean())
    assert 1.2 < float(away.abs().amax(1).mean()) < 2.3
    turns = (away[:, 1:] * away[:, :-1] < 0).sum(1).double().mean()
    assert 3.5 < float(turns) < 6  # every 4 columns
