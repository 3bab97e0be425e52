"""Separation: nets that meet the propositions with equality, all points of a line, bounds, and what is refused."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binom
from torch import Tensor, nn

from deepcheck.evaluation.rejection import rejection
from deepcheck.evaluation.separation import (
    PropositionWarning,
    binomial_bounds,
    chebyshev_bounds,
    composed,
    loss_bounds,
    separation,
    wrong_confidences,
)
from tests.deepcheck.confidence_cases import NOTHING, Exhaustive, Small, generator, small_images
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.linear_nets import near

pytestmark = on_every_device


class Capped(nn.Module):
    """A net of two classes whose log-odds of the class 0 are -40, but near 1/2 rise to a cap at a distance of 0.05."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(20.0, dtype=torch.float64))
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, 0]
        odds = ((self.slope * (x - 0.5).abs() - 1) * 40).clamp(max=0) + self.cap
        odds = torch.where((x - 0.5).abs() < 0.2, odds, -40.0)
        return torch.stack([odds, torch.zeros_like(odds)], 1)


def capped(cap: float, share: int = 6, n: int = 25) -> xr.Dataset:
    """What is found of this net where so many of n examples of the class 1 are near 1/2."""
    images = torch.where(torch.arange(n) < share, 0.5, 0.1).view(n, 1, 1, 1).double()
    labels = torch.ones(n, dtype=torch.int64)
    return wrong_confidences(Capped(cap), images, labels, delta=[0.0, 0.06], starts=2, steps=20, generator=generator())


def test_proposition_2_is_met_with_equality() -> None:
    """F_y = 1/2 on a share of the points, where the wrong class is given, and 1 on the others."""
    found = capped(0.0)
    bounds = loss_bounds(found, level=0.9)
    assert bounds.error.values.tolist() == [0.0, 6 / 25]
    for loss in ("cross_entropy", "squared"):
        for worst_of in ("all points", "loss attack"):
            bound = bounds.error_bound.sel(loss=loss, worst_of=worst_of).values
            np.testing.assert_allclose(bound, [0, 6 / 25], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", [0.55, 0.9, 0.99])
def test_proposition_1_is_met_with_equality(level: float) -> None:
    """A loss of tau(1 - p) on a share of the points, and 0 on the others."""
    found = capped(math.log(level / (1 - level)) + 1e-9)
    bounds = loss_bounds(found, level=level)
    assert bounds.share.values.tolist() == [0.0, 6 / 25]
    np.testing.assert_allclose(bounds.separation_bound.values[..., 1], 6 / 25, rtol=1e-6)
    np.testing.assert_allclose(bounds.separation_bound.values[..., 0], 0, atol=1e-12)
    assert bounds.separation_bound.dims == ("loss", "worst_of", "delta")


@pytest.mark.parametrize("seed", range(20))
def test_of_all_points_the_propositions_hold_and_are_near(seed: int) -> None:
    net, images = Small(seed=seed), small_images(60, seed=seed)
    labels = torch.randint(3, (60,), generator=generator(seed))
    found = wrong_confidences(net, images, labels, delta=[0.0, 0.1, 0.3], starts=1, steps=5, generator=generator())
    bounds = loss_bounds(found, level=[0.4, 0.5, 0.7, 0.9, 0.99, 1.0])
    whole = bounds.sel(worst_of="all points")
    assert (bounds.share <= whole.separation_bound * (1 + 1e-12)).all()
    assert (bounds.error <= whole.error_bound * (1 + 1e-12)).all()
    assert (bounds.share > 0.4 * whole.separation_bound).any()  # a bound that is far from everything would tell nothing
    assert (bounds.expected_loss.sel(worst_of="loss attack") <= whole.expected_loss).all()
    e = found.worst_loss.mean("example")
    np.testing.assert_allclose(
        whole.separation_bound.sel(loss="cross_entropy", level=0.9), e / math.log(10), rtol=1e-12
    )
    squared = ((1 - np.exp(-found.worst_loss)) ** 2).mean("example")
    np.testing.assert_allclose(whole.separation_bound.sel(loss="squared", level=0.7), squared / 0.49, rtol=1e-9)
    np.testing.assert_allclose(whole.error_bound.sel(loss="squared"), 4 * squared, rtol=1e-9)
    assert (whole.separation_bound.sel(loss="cross_entropy", level=1.0) == 0).all()
    assert (bounds.share.sel(level=1.0) == 0).all()


def test_a_weak_attack_on_the_loss_shows_as_a_share_above_its_bound() -> None:
    net, images, labels = near(16, edges=False, width=1.0)
    options: dict[str, Any] = {"delta": 0.3, "generator": generator(), "starts": 1, "steps": 20}
    strong = loss_bounds(wrong_confidences(net, images, labels, **options), level=0.6)
    weak = loss_bounds(wrong_confidences(net, images, labels, loss_attack=NOTHING, **options), level=0.6)
    alone = {"worst_of": "loss attack", "loss": "cross_entropy"}
    assert (strong.share <= strong.separation_bound.sel(alone)).all()
    assert (weak.share > weak.separation_bound.sel(alone)).all()


def test_proposition_3_on_a_line() -> None:
    """Everything by a grid: the most confident neighbours of all points, their net, and the two conditions."""
    net, n, level = Small(pixels=1, seed=4), 200, 0.7
    xi, eta, step = 0.03, 0.05, 1 / 1000
    images = (torch.randint(1001, (n,), generator=generator(2)).double() * step).view(n, 1, 1, 1)
    with torch.no_grad():
        line = net(torch.linspace(0, 1, 1001, dtype=torch.float64).view(-1, 1, 1, 1)).softmax(1).cpu().numpy()
    labels = net(images).argmax(1)
    found = wrong_confidences(
        net,
        images,
        labels,
        delta=[0.02, 0.08, 0.2],
        attacks={"all": Exhaustive(161)},
        loss_attack=NOTHING,
        generator=generator(),
    )
    result = composed(found, level=level, xi=xi, eta=eta)
    assert float(result.delta) == 0.08
    assert float(result.composed_level) == pytest.approx(0.3)

    def ball(i: int, r: float) -> slice:
        k = round(r / step)
        return slice(max(i - k, 0), i + k + 1)

    neighbour = [ball(i, xi).start + int(line[ball(i, xi)].max(1).argmax()) for i in range(1001)]
    sure = line[neighbour].max(1) >= level
    composed_wrong, fails, bad = [], [], []
    for x, y in zip((images.flatten() / step).round().int().tolist(), labels.tolist(), strict=True):
        others = [k for k in range(3) if k != y]
        bad.append(bool((line[ball(x, xi + eta)][:, others] >= level).any()))
        fails.append(not sure[ball(x, eta)].all())
        answers = line[neighbour][ball(x, eta)][:, others]
        composed_wrong.append(bool((answers > 1 - level).any()))
    assert float(result.share) == np.mean(bad)
    holds = ~np.array(bad) & ~np.array(fails)
    assert 20 < holds.sum() < n - 10
    assert not (np.array(composed_wrong) & holds).any()  # Proposition 3
    assert (np.array(composed_wrong) & ~holds).any()  # and it does not hold of itself


def test_the_least_delta_that_is_large_enough_is_taken_and_beyond_all_a_warning_names_the_proposition() -> None:
    net, images, labels = near(16, edges=False)
    found = wrong_confidences(net, images, labels, delta=[0.0, 0.1, 0.3], starts=1, steps=5, generator=generator())
    shares = separation(found, level=[0.6, 0.9])
    for xi, eta, index in (
        (0, 0, 0),
        (0.05, 0.05, 1),
        (0.1, 0.2, 2),
        (0.0, 0.11, 2),
    ):  # 0.1 + 0.2 > 0.3 in binary numbers
        one = composed(found, level=[0.6, 0.9], xi=xi, eta=eta)
        assert one.share.values.tolist() == shares.share.values[:, index].tolist()
        assert one.upper.values.tolist() == shares.upper.values[:, index].tolist()
        assert float(one.delta) == [0.0, 0.1, 0.3][index]
    with pytest.warns(
        PropositionWarning,
        match=re.escape("eta + xi = 0.4 is more than every delta that was measured, up to 0.3: Proposition 3"),
    ):
        beyond = composed(found, level=[0.6, 0.9], xi=0.2, eta=0.2)
    assert beyond.share.isnull().all()


# --- bounds ---


def test_the_published_bounds() -> None:
    """Of 300 points the published attack turned 26 of the adversarially trained net, and 277 of the natural one."""
    lower, upper = chebyshev_bounds([26, 277], 300, 0.9, 0.1)
    assert upper[0] == pytest.approx(14 / 75, rel=1e-12)
    assert lower[1] == pytest.approx(247 / 300, rel=1e-12)
    below, above = binomial_bounds([26, 277], 300)
    assert above[0] < upper[0]
    assert below[1] > lower[1]


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("n", [1, 7, 300])
def test_bounds_are_where_so_many_or_more_and_so_few_or_fewer_become_unlikely(n: int, confidence: float) -> None:
    k = np.arange(n + 1)
    lower, upper = binomial_bounds(k, n, confidence)
    np.testing.assert_allclose(binom.sf(k[1:] - 1, n, lower[1:]), 1 - confidence, rtol=1e-7)
    np.testing.assert_allclose(binom.cdf(k[:-1], n, upper[:-1]), 1 - confidence, rtol=1e-7)
    assert lower[0] == 0
    assert upper[-1] == 1
    assert (np.diff(lower) > 0).all()
    assert (np.diff(upper) > 0).all()


@pytest.mark.parametrize("bounds", [binomial_bounds, chebyshev_bounds])
@pytest.mark.parametrize("n", [5, 40, 300])
def test_bounds_hold_as_often_as_they_say_at_every_probability(bounds: Any, n: int) -> None:
    """Summed over the binomial law, which is exact."""
    q = np.linspace(0.001, 0.999, 400)[:, None]
    k = np.arange(n + 1)
    lower, upper = bounds(k, n, 0.9)
    law = binom.pmf(k, n, q)
    assert (law * (lower <= q)).sum(1).min() >= 0.9 - 1e-9
    assert (law * (upper >= q)).sum(1).min() >= 0.9 - 1e-9
    if bounds is chebyshev_bounds:
        exact_lower, exact_upper = binomial_bounds(k, n, 0.9)
        assert (lower <= exact_lower).all()
        assert (upper >= exact_upper).all()
        assert (law * ((lower <= q) & (q <= upper))).sum(1).min() >= 0.9 - 1e-9
    else:
        assert (law * (lower <= q)).sum(1).min() < 0.93  # and not much more often


def test_separation_counts_and_bounds() -> None:
    net, images, labels = near(40, edges=False)
    found = wrong_confidences(net, images, labels, delta=[0.05, 0.1], starts=1, steps=5, generator=generator())
    result = separation(found, level=[0.55, 0.8, 1.0], confidence=0.8)
    assert dict(result.sizes) == {"level": 3, "delta": 2}
    lower, upper = binomial_bounds(result.bad.values, 40, 0.8)
    assert np.array_equal(result.lower.values, lower)
    assert np.array_equal(result.upper.values, upper)
    assert np.array_equal(result.share.values, result.bad.values / 40)
    assert (result.share.diff("delta") >= 0).all()
    assert (result.share.diff("level") <= 0).all()
    assert separation(found, level=0.8).share.values.tolist() == result.share.sel(level=0.8).values.tolist()
    assert json.loads(result.attrs["configuration"])["function"] == "separation"
    found["wrong_confidence"][1, :, :10] = found["wrong_confidence"][1, :, :10] * 0 + 0.8  # exactly the level
    found["wrong_confidence"][1, :, 10:] = found["wrong_confidence"][1, :, 10:] * 0 + 0.79
    assert separation(found, level=0.8).bad.values[1] == 10


# --- bad input ---


def test_bad_numbers() -> None:
    net, images = Small(), small_images(4)
    found = wrong_confidences(net, images, net(images).argmax(1), delta=0.1, starts=1, steps=1, generator=generator())
    for level in (1 / 3, 0.2, 0.0, -1.0, 1.01, math.nan, [0.5, 2.0]):
        for function in (separation, loss_bounds):
            with pytest.raises(
                ValueError, match=re.escape("is out of range: allowed is a number > 0.3333 and <= 1, as one of 3 cl")
            ):
                function(found, level=level)
        with pytest.raises(ValueError, match=r"level = .* is out of range"):
            composed(found, level=level, xi=0.0, eta=0.0)
    for bad in ("0.5", None, [], [[0.5]], True):
        with pytest.raises(TypeError, match=r"level = .* is of the wrong type: allowed is a number or a list of them"):
            separation(found, level=bad)  # type: ignore[arg-type]
    for name in ("xi", "eta"):
        with pytest.raises(ValueError, match=rf"{name} = -0.1 is out of range: allowed is a finite number and >= 0"):
            composed(found, level=0.9, **({"xi": 0.01, "eta": 0.01} | {name: -0.1}))
    with pytest.raises(ValueError, match=r"confidence = 1\.0 is out of range"):
        separation(found, level=0.9, confidence=1.0)
    with pytest.raises(TypeError, match="found is of the wrong type dict"):
        separation({}, level=0.9)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=re.escape("found lacks worst_loss: allowed is what deepcheck.evaluation.separation")
    ):
        loss_bounds(found.drop_vars("worst_loss"), level=0.9)
    for arguments, message in (
        ((3, 2), "bad = 3 is out of range: allowed is 0..n"),
        ((-1, 2), "bad = -1 is out of range"),
        ((0, 0), "n = 0 is out of range: allowed is 1 or more"),
        ((1, 2, 0.0), "confidence = 0.0 is out of range"),
    ):
        for bounds in (binomial_bounds, chebyshev_bounds):
            with pytest.raises(ValueError, match=re.escape(message)):
                bounds(*arguments)
    with pytest.raises(TypeError, match="bad has the type float64: allowed are integers"):
        binomial_bounds(0.5, 2)
    with pytest.raises(
        ValueError, match=re.escape("deviation = 0.1 is too small for n = 50 and confidence = 0.9: allowed is 0.2236")
    ):
        chebyshev_bounds(3, 50, 0.9, 0.1)


RAGGED: Any = [[0.9], [0.8, 0.7]]
NESTED: Any = [[0.1, 0.2]]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda found: separation(found, level=[[0.9], [0.8, 0.7]]),
            "level = [[0.9], [0.8, 0.7]] is of the wrong type",
        ),
        (lambda found: rejection(found, level=0.9, eta=NESTED), "eta = [[0.1, 0.2]] is of the wrong type"),
        (lambda _: binomial_bounds([1, 2], [3, 4, 5]), "bad and n have the shapes (2,) and (3,)"),
        (lambda found: separation(found.isel(example=slice(0)), level=0.9), "found has no examples"),
    ],
)
def test_lists_of_lists_and_nothing_are_refused_in_one_line(ask: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as caught:
        ask(capped(0.5))
    assert "\n" not in str(caught.value)


def test_a_radius_may_be_an_array_of_no_dims() -> None:
    found = capped(0.5)
    one = rejection(found, level=0.9, eta=np.array(float(found.delta[0])))
    assert one.awpr.ndim == 0
