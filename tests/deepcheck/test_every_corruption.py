"""What every corruption promises, asked of everything in CORRUPTIONS: one that is added there is tested here."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from deepcheck.attacks.draws import Draws, keys
from deepcheck.corruptions import BENCHMARKS, CORRUPTIONS, SEVERITIES, chosen, listed
from tests.deepcheck.corruption_cases import CASES, draw, pictures
from tests.deepcheck.devices import on_every_device, rounding

pytestmark = on_every_device

every = pytest.mark.parametrize(("name", "kind"), CASES)
named = pytest.mark.parametrize("name", CORRUPTIONS)

NOT_FARTHER: dict[tuple[str, bool], str] = {
    ("glass_blur", False): "severity 4 exchanges pixels in two passes, but blurs less than 3",
    ("glass_blur", True): "in small images pixels that are exchanged are alike at first",
    ("snow", True): "in severity 3 flakes are larger and fewer",
    ("frost", False): "the image weighs less, and with it what the ice covers",
    ("frost", True): "the ice weighs as much in severity 4 as in 3, and the image less",
    ("fog", True): "in severity 4 the fog has the weight of 3, and is rougher",
    ("spatter", False): "water in the first three severities, mud in the others",
    ("spatter", True): "drops are larger in the first severities",
    ("saturate", False): "less colour in the first two severities, more in the others",
    ("pixelate", True): "half as many pixels fit to the old ones, 0.6 of them do not",
    ("elastic_transform", False): "the whole image moves less and less, its pixels more and more",
    ("elastic_transform", True): "the first two severities move the whole image, the others its pixels",
}
"""Corruptions, and whether of grey images, whose published parameters lead nearer to the image in a larger severity, and why."""


@every
def test_it_returns_new_images_of_the_same_kind(name: str, kind: str) -> None:
    x = pictures(kind, 3)
    before, state = x.clone(), torch.random.get_rng_state()
    for severity in SEVERITIES:
        z = CORRUPTIONS[name](x, severity, draw())
        assert (z.shape, z.dtype, z.device) == (x.shape, x.dtype, x.device)
        assert z.isfinite().all()
        assert 0 <= float(z.min()) <= float(z.max()) <= 1
        assert not torch.equal(z, x)
        assert z.data_ptr() != x.data_ptr() or z.device.type == "pretended"
        z.fill_(0.5)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.random.get_rng_state())


@named
def test_images_that_nothing_happens_to_are_new_ones_too(name: str) -> None:
    x = pictures("colour", 1)
    for severity in SEVERITIES:
        CORRUPTIONS[name](x, severity, draw()).zero_()
    assert torch.equal(x, pictures("colour", 1))


@every
def test_it_is_random_where_it_says_so_and_only_there(name: str, kind: str) -> None:
    x = pictures(kind, 4)
    first, again = CORRUPTIONS[name](x, 3, draw(5)), CORRUPTIONS[name](x, 3, draw(5))
    assert torch.equal(first, again)
    others = [torch.equal(CORRUPTIONS[name](x, 3, draw(seed)), first) for seed in (6, 7)]
    assert any(others) is not CORRUPTIONS[name].random
    assert all(others) is not CORRUPTIONS[name].random
    twice = CORRUPTIONS[name](torch.cat([x[:1]] * 8), 3, draw())
    assert all(torch.equal(twice[0], one) for one in twice) is not CORRUPTIONS[name].random


@every
def test_it_does_not_depend_on_the_size_of_batches(name: str, kind: str) -> None:
    x = pictures(kind, 7, dtype=torch.float64)
    key = keys(draw(2), torch.arange(7))
    for severity in (1, 4, 5):
        whole = CORRUPTIONS[name](x, severity, Draws(key))
        parts = [
            CORRUPTIONS[name](one, severity, Draws(two)) for one, two in zip(x.split(3), key.split(3), strict=True)
        ]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=rounding())
        alone = CORRUPTIONS[name](x[4:5], severity, Draws(key[4:5]))
        torch.testing.assert_close(alone, whole[4:5], rtol=0, atol=rounding())


@every
def test_a_larger_severity_leads_farther_from_the_image(name: str, kind: str) -> None:
    x = pictures(kind, 40)
    away = [
        float((CORRUPTIONS[name](x, severity, draw()) - x).flatten(1).norm(dim=1).mean()) for severity in SEVERITIES
    ]
    assert min(away) > 0
    if (name, kind != "colour") not in NOT_FARTHER:
        assert all(one <= other * (1 + 1e-6) for one, other in pairwise(away)), away
        assert away[-1] > 1.2 * away[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@named
def test_it_works_in_every_precision(name: str, dtype: torch.dtype) -> None:
    """Where nothing is random, and nothing jumps, the result is the same but for rounding."""
    x = pictures("colour", 2).to(dtype)
    z = CORRUPTIONS[name](x, 2, draw())
    assert z.dtype == dtype
    assert z.isfinite().all()
    if not CORRUPTIONS[name].random and name not in ("canny_edges", "jpeg_compression", "quantize"):
        expected = CORRUPTIONS[name](x.float(), 2, draw())
        torch.testing.assert_close(z.float(), expected, rtol=0, atol=2 * max(torch.finfo(dtype).eps, 1e-6))


@named
def test_it_takes_images_of_any_layout_and_size(name: str) -> None:
    x = pictures("colour", 3)
    plain = CORRUPTIONS[name](x, 4, draw())
    assert torch.equal(CORRUPTIONS[name](x.contiguous(memory_format=torch.channels_last), 4, draw()), plain)
    assert CORRUPTIONS[name](x[:0], 4, draw()).shape == (0, 3, 32, 32)
    oblong = CORRUPTIONS[name](x[..., :20, :13], 4, draw())
    assert oblong.shape == (3, 3, 20, 13)
    assert oblong.isfinite().all()
    watched = x.clone().requires_grad_()
    assert not CORRUPTIONS[name](watched, 4, draw()).requires_grad


@pytest.mark.parametrize(
    ("severity", "message"),
    [
        (0, "severity = 0 is out of range: allowed is a whole number from 1 to 5"),
        (6, "severity = 6 is out of range"),
        (None, "severity = None is of the wrong type: allowed is a whole number from 1 to 5"),
        (2.0, "severity = 2.0 is of the wrong type"),
        (True, "severity = True is of the wrong type"),
        ("3", "severity = '3' is of the wrong type"),
    ],
)
@named
def test_other_severities_are_refused(name: str, severity: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        CORRUPTIONS[name](pictures("colour", 1), severity, draw())
    assert "\n" not in str(caught.value)


@named
def test_what_is_no_image_is_refused(name: str) -> None:
    corruption, x = CORRUPTIONS[name], pictures("colour", 2)
    for bad, message in (
        (2 * x, r"images have pixels in \[0, 2\]: allowed is \[0.0, 1.0\]"),
        (x * math.nan, r"images\[0\] has NaN pixels"),
        ((255 * x).to(torch.uint8), "images are of the wrong type torch.uint8"),
        (x[:, :2], "1 channel .grey. or 3 .colours. are"),
        (x[0], "allowed|are not allowed"),
        ([1.0], "images are of the wrong type list"),
    ):
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            corruption(bad, 1, draw())  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="generator = 3 is of the wrong type"):
        corruption(x, 1, 3)  # type: ignore[arg-type]


@named
def test_its_tables_are_whole(name: str) -> None:
    corruption = CORRUPTIONS[name]
    assert corruption.group in ("noise", "blur", "weather", "digital", "geometric")
    assert len(corruption.colour) == 5
    assert corruption.grey is None or len(corruption.grey) == 5
    assert corruption.published in (None, *SEVERITIES)
    assert (corruption.published is not None) == (name in BENCHMARKS["mnist_c"])
    assert (corruption.__doc__ or "").splitlines()[0].endswith(".")
    assert repr(corruption) == f"{type(corruption).__name__}()"


def test_the_benchmarks_have_fifteen_each() -> None:
    assert [len(set(names)) for names in BENCHMARKS.values()] == [15, 15]
    assert chosen(None, 1) == BENCHMARKS["mnist_c"]
    assert chosen(None, 3) == BENCHMARKS["cifar10_c"]
    assert chosen(["fog", "fog", "snow"], 1) == ("fog", "snow")
    assert chosen(["fog", "cifar10_c"], 3)[:2] == ("fog", "gaussian_noise")
    assert set(chosen(["all"], 1)) == set(CORRUPTIONS) - {"saturate"}
    assert chosen(["all"], 3) == tuple(CORRUPTIONS)
    assert len(listed().splitlines()) == 1 + len(CORRUPTIONS)
    assert set(NOT_FARTHER) <= {(name, grey) for name in CORRUPTIONS for grey in (False, True)}


@pytest.mark.parametrize(
    ("names", "channels", "message"),
    [
        (["fgo"], 1, r"corruption = 'fgo' is unknown \(did you mean 'fog'\?\): allowed is one of gaussian_noise"),
        ([], 1, r"corruptions = \[\] is not allowed: one name or more is"),
        ("fog", 1, "corruptions = 'fog' is of the wrong type: allowed is a list of names"),
        ([3], 1, "corruption = 3 is of the wrong type"),
        (["saturate"], 1, "Saturate of grey images is not allowed: it does nothing to them"),
    ],
)
def test_other_names_are_refused(names: Any, channels: int, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        chosen(names, channels)
    assert "\n" not in str(caught.value)


def test_lengths_shrink_with_the_image() -> None:
    """A translation of 4 of 28 pixels is one of 8/7 of 8, and of exactly 2 pixels of 14."""
    x = torch.zeros(1, 1, 14, 14)
    x[..., 6:8, 6:8] = 1
    z = CORRUPTIONS["translate"](x, 4, draw())
    assert z.sum() == 4
    row, column = z[0, 0].nonzero().amin(0).tolist()
    assert {row, column} <= {4, 8}
