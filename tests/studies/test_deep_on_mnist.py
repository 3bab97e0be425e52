"""The study of deep nets on two digits: exact where the net is linear, and its claims can fail."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import ndtr

from deepcheck.data import DataError, Images, load
from studies.common import attacked, images, kept, nets
from studies.deep_on_mnist import measure, plan, study
from studies.deep_on_mnist.claims import claims, judged, table
from studies.deep_on_mnist.measure import MEASURED
from studies.registry import Unavailable

SETTING = replace(plan.SETTINGS["digits"], largest={"linf": 0.4, "l2": 0.4})


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small nets lose much time where threads wait for each other on busy processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 5.0), ("l2", 13**0.5)])
def test_of_a_linear_classifier_with_gaussian_margins_all_is_known(norm: attacked.Norm, dual: float) -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.tensor([3.0, -2.0])
    y = torch.arange(400) % 2
    u = (2 * y - 1) * 0.1 + 0.03 * torch.randn(400, generator=generator)
    x = (0.5 + (u * dual / 13)[:, None] * w).view(-1, 1, 1, 2)
    assert 0 < x.min() < x.max() < 1

    def margin(at: torch.Tensor) -> torch.Tensor:
        return (at.flatten(1) - 0.5) @ w

    one = measure.measured(margin, x, y, SETTING, norm, w.numpy())
    np.testing.assert_allclose(one.measured, one.locally_linear[MEASURED], atol=1 / 400)
    assert float(one.disagreement.max()) <= 1 / 400
    assert float(one.nonlinearity.max()) < 1e-4
    assert float(one.coherence) == pytest.approx(1)
    assert float(one.R_eff.sel(direction="linear")) == pytest.approx(1)
    standard_error = 0.5 / 20
    np.testing.assert_allclose(one.measured, ndtr((one.test_epsilon - 0.1) / 0.03), atol=4 * standard_error)
    assert float(one.near[np.argmin(abs(one.test_epsilon.values - 0.1))]) == pytest.approx(
        2 * ndtr(0.025 / 0.03) - 1, abs=0.1
    )


def _found() -> xr.Dataset:
    """Return what might have been measured, of which every claim holds."""
    tests = np.linspace(0, 0.4, 33)[MEASURED]
    S = {
        "linear": tests / 0.4,
        "linear at": tests / 0.8,
        "standard": np.minimum(1, 4 * tests),
        "at": np.maximum(0, 3 * tests - 0.4),
    }
    parts = []
    for net, epsilon, key in (("linear", 0.0, "linear"), ("linear", 0.1, "linear at"), ("convolutional", 0.0, "standard"), ("convolutional", 0.1, "at")):  # fmt: skip
        curve = np.interp(np.linspace(0, 0.4, 33), tests, S[key])
        one = xr.Dataset(
            {
                "measured": (("run", "test"), [S[key], S[key]]),
                "gaussian": (("run", "size"), [curve, curve]),
                "locally_linear": (
                    ("run", "size"),
                    np.outer([1, 1], {"at": 0.2, "standard": 0.7}.get(key, 1.0) * curve),
                ),
                "theory": ("size", curve if net == "linear" else np.full(33, np.nan)),
                **{
                    name: (("run", "test"), np.full((2, 7), 0.001))
                    for name in ("disagreement", "nonlinearity", "boxed")
                },
                **{
                    f"checked_{name}": ("run", [value, value] if key == "at" else [np.nan, np.nan])
                    for name, value in (("measured", 0.1), ("locally_linear", 0.06))
                },
                "near": (("run", "test"), np.full((2, 7), 0.5 if key == "standard" else 0.1)),
                **{name: (("run", "direction"), np.full((2, 2), 0.5)) for name in ("R_eff", "R_mean_gradient")},
                **{name: ("run", [0.5, 0.5]) for name in ("coherence", "b_eff", "zero_gradients")},
            },
            {"size_epsilon": ("size", np.linspace(0, 0.4, 33)), "test_epsilon": ("test", tests)},
        ).assign_coords(direction=["means", "linear"], run=[0, 1])
        parts.append(study._named(one, net, "linf", epsilon))
    found = xr.concat(parts, "case", data_vars="all", coords="different", compat="equals")
    return found.assign_coords(norm=("case", ["linf"] * 4))


def test_where_half_is_turned_and_how_far_a_prediction_is_off() -> None:
    found = _found()
    found["locally_linear"][3, 1] += 0.2
    found["checked_measured"][3, 0] += 0.1
    data = judged(found)
    at = data.sel(case="convolutional, linf 0.1")
    assert at.half.values == pytest.approx(0.3)
    assert at.miss.values == pytest.approx([0.14, 0.2])
    assert at.named_at_half.values == pytest.approx([0.1, 0.3])
    assert data.sel(case="convolutional, linf 0").radius == 0.1
    assert all(variable.attrs["long_name"] for variable in data.variables.values())


def test_the_claims_can_fail() -> None:
    good = _found()
    found = list(claims(judged(good), SETTING))
    assert all(claim.holds is True and claim.rival_measured for claim in found)
    assert len(found) == 7
    for name, case, value in (
        ("locally_linear", "convolutional, linf 0.1", 0.2),
        ("checked_measured", "convolutional, linf 0.1", 0.2),
        ("checked_locally_linear", "convolutional, linf 0.1", 0.03),
        ("disagreement", "linear, linf 0", 0.01),
        ("theory", "linear, linf 0.1", 0.6),
        ("near", "convolutional, linf 0.1", 0.6),
        ("measured", "convolutional, linf 0.1", 0.4 * np.linspace(0, 0.4, 33)[MEASURED] / 0.16),
    ):
        bad = good.copy(deep=True)
        bad[name].loc[{"case": case}] = value
        assert [claim.holds for claim in claims(judged(bad), SETTING)].count(False) >= 1, name
    bad = good.copy(deep=True)
    for name in ("checked_measured", "checked_locally_linear"):
        bad[name].loc[{"case": "convolutional, linf 0.1"}] = 0.01
    assert len(list(claims(judged(bad), SETTING))) == 6  # nothing is claimed of one image
    bad.attrs |= {"note": "", "title": "3 against 7"}
    assert "too few images, fewer than 5, to claim anything of the rise of S\n" in table(judged(bad), SETTING)
    data = judged(good)
    data.attrs |= {"note": "", "title": "3 against 7"}
    assert max(map(len, table(data, SETTING).splitlines())) <= 120


def test_nets_and_records_are_kept(tmp_path: Path) -> None:
    digits = load("digits")
    recipe = nets.pair_recipe("digits", "l2", 0.2, epochs=1)
    network = nets.trained(recipe, digits, tmp_path, "net", count=100)
    assert nets.fingerprint(nets.trained(recipe, digits, tmp_path, "net", count=100)) == nets.fingerprint(network)
    with pytest.raises(Unavailable, match="epochs = 1 and not 2; remove"):
        nets.trained(replace(recipe, epochs=2), digits, tmp_path, "net", count=100)
    once = Mock(return_value=xr.Dataset({"x": 1.0}), __module__=measure.__name__)
    for what in (("a", 1), ("a", 1), ("a", 2)):
        assert kept.kept(tmp_path, "x", what, once).x == 1
    assert once.call_count == 2


def test_without_mnist_it_takes_the_digits_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *, download: bool = True) -> Images:
        if name == "mnist":
            raise DataError("there is none")
        return load(name)

    monkeypatch.setattr(images, "load", missing)
    found, note = images.images_of(quick=False)
    assert found.name == "digits"
    assert note == "Not MNIST, but scikit-learn's digits of 8 x 8 pixels, because there is none"
    x, y = images.examples(found, 10)
    assert x.shape == (10, 1, 8, 8)
    assert set(y.tolist()) == {0, 1}


def test_an_attack_in_the_box_is_one_without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PGD finds in the box only counts, too."""

    def found(*_: object, bounds: tuple[float, float], **__: object) -> xr.Dataset:
        return xr.Dataset({"least_epsilon": ("example", [0.1, np.inf] if bounds == (0.0, 1.0) else [0.2, 0.3])})

    monkeypatch.setattr(attacked, "measured_curve", found)
    x, y = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    boxed, free = attacked.least_sizes(torch.nn.Flatten(), x, y, epsilon=[0.1], norm="linf", seed=1, batch_size=2)
    assert boxed.tolist() == [0.1, np.inf]
    assert free.tolist() == [0.1, 0.3]
