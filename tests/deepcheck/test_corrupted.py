"""Errors by corruption and severity, and their means."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from deepcheck.corruptions import BENCHMARKS, CORRUPTIONS
from deepcheck.data import load as load_images
from deepcheck.defences import GaussianNoise
from deepcheck.evaluation import (
    corrupted_images,
    corruption_errors,
    format_corruption_table,
    mean_corruption_error,
)
from deepcheck.plot_corruptions import plot_corrupted, plot_corruptions
from odeflow.provenance import load, save
from tests.deepcheck.corruption_cases import pictures
from tests.deepcheck.devices import on_every_device, on_the_cpu
from tests.deepcheck.digits_net import Digits, digits_as_tensors, trained_net

pytestmark = on_every_device

NAMES = ("gaussian_noise", "fog", "translate")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digits_as_tensors()


@pytest.fixture(scope="module")
def errors(digits: Digits) -> xr.Dataset:
    where = digits.test.device
    return corruption_errors(trained_net(), (digits.test, digits.labels), NAMES, (1, 3, 5), device=where)


def test_they_are_what_the_net_says_of_the_corrupted_images(errors: xr.Dataset, digits: Digits) -> None:
    assert dict(errors["error"].sizes) == {"corruption": 3, "severity": 3}
    assert errors["corruption"].values.tolist() == list(NAMES)
    assert errors["group"].values.tolist() == ["noise", "weather", "geometric"]
    net, n = trained_net(), len(digits.test)
    for name in NAMES:
        for severity in (1, 3, 5):
            with torch.no_grad():
                said = net(corrupted_images(name, digits.test, severity)).argmax(1)
            wrong = float((said != digits.labels).double().mean())
            one = errors.sel(corruption=name, severity=severity)
            assert one["error"].item() == wrong
            assert one["standard_error"].item() == pytest.approx(np.sqrt(wrong * (1 - wrong) / n))
            np.testing.assert_array_equal(one["prediction"].values, said.cpu().numpy())
    with torch.no_grad():
        assert errors["clean_error"].item() == float((net(digits.test).argmax(1) != digits.labels).double().mean())
    assert float(errors["error"].sel(severity=5).min()) > errors["clean_error"].item()
    for name in map(str, errors.variables):
        assert errors[name].attrs["units"] == "1"
        assert errors[name].attrs["long_name"]
    assert errors.attrs["schema"] == "1"
    assert errors.attrs["seed"] == "0"


def test_they_do_not_depend_on_batches_or_on_the_other_corruptions(errors: xr.Dataset, digits: Digits) -> None:
    where, data = digits.test.device, (digits.test, digits.labels)
    options: dict[str, Any] = {"device": where, "batch_size": 77}
    alone = corruption_errors(trained_net(), data, ["translate"], [3], **options)
    np.testing.assert_array_equal(alone["prediction"], errors["prediction"].sel(corruption=["translate"], severity=[3]))
    other = corruption_errors(trained_net(), data, ["translate"], [3], seed=1, device=where)
    assert not np.array_equal(other["prediction"], alone["prediction"])
    few = corruption_errors(trained_net(), data, ["translate"], [3], examples=50, device=where)
    np.testing.assert_array_equal(few["prediction"], alone["prediction"].isel(example=slice(50)))
    tail = corrupted_images("fog", digits.test[40:60], 2, first=40)
    assert torch.equal(tail, corrupted_images("fog", digits.test, 2, batch_size=33)[40:60])


def test_a_data_set_is_taken_as_its_test_images_and_a_random_defence_has_a_seed(digits: Digits) -> None:
    where = digits.test.device
    found = [
        corruption_errors(
            GaussianNoise(trained_net(), seed=seed), load_images("digits"), ["fog"], [2], examples=40, device=where
        )
        for seed in (3, 4)
    ]
    np.testing.assert_array_equal(found[0]["prediction"], found[1]["prediction"])
    plain = corruption_errors(trained_net(), load_images("digits"), severities=[1], examples=5, device=where)
    assert tuple(plain["corruption"].values) == BENCHMARKS["mnist_c"]


def made(error: Any, clean: float = 0.1, *, n: int = 10, seed: int = 0) -> xr.Dataset:
    """Return errors, in tenths, of ten examples whose wrong ones are drawn."""
    error = np.asarray(error, float)
    rng = np.random.default_rng(seed)

    def wrong(share: float) -> np.ndarray:
        return rng.permutation(np.arange(n) < round(share * n)).astype(np.int16)

    predictions = np.array([[wrong(one) for one in row] for row in error])
    return xr.Dataset(
        {
            "error": (("corruption", "severity"), error),
            "clean_error": clean,
            "clean_standard_error": 0.0,
            "prediction": (("corruption", "severity", "example"), predictions),
            "clean_prediction": ("example", wrong(clean)),
            "label": ("example", np.zeros(n, np.int64)),
        },
        coords={"corruption": ["a", "b"][: len(error)], "severity": list(range(1, 1 + error.shape[1]))},
    )


def test_the_means_are_those_of_the_formulas() -> None:
    net, base = made([[0.2, 0.4], [0.1, 0.3]]), made([[0.4, 0.8], [0.2, 0.2]], clean=0.1)
    means = mean_corruption_error(net, base)
    assert means["corruption_error"].values.tolist() == pytest.approx([0.3, 0.2])
    assert means["mean_error"].item() == pytest.approx(0.25)
    assert means["normalised_error"].values.tolist() == pytest.approx([0.5, 1.0])
    assert means["mce"].item() == pytest.approx(0.75)
    assert means["relative_error"].values.tolist() == pytest.approx([0.4 / 1.0, 0.2 / 0.2])
    assert means["relative_mce"].item() == pytest.approx(0.7)
    # standard errors: of the mean over the examples of each one's part in it
    wrong = net["prediction"].values != 0
    assert means["mean_error_standard_error"].item() == pytest.approx(wrong.mean((0, 1)).std() / np.sqrt(10))
    part = (wrong.mean(1) / np.array([[0.6], [0.2]])).mean(0)
    assert part.mean() == pytest.approx(0.75)
    assert means["mce_standard_error"].item() == pytest.approx(part.std() / np.sqrt(10))
    relative = ((wrong.mean(1) - (net["clean_prediction"].values != 0)) / np.array([[0.5], [0.1]])).mean(0)
    assert relative.mean() == pytest.approx(0.7)
    assert means["relative_mce_standard_error"].item() == pytest.approx(relative.std() / np.sqrt(10))
    for name in means.data_vars:
        assert means[name].attrs["units"] == "1"


def test_of_the_baseline_itself_they_are_1(errors: xr.Dataset) -> None:
    means = mean_corruption_error(errors, errors)
    assert means["mce"].item() == pytest.approx(1)
    assert means["relative_mce"].item() == pytest.approx(1)
    turned = errors.isel(corruption=[2, 0, 1], severity=[2, 1, 0])
    assert mean_corruption_error(errors, turned)["mce"].item() == pytest.approx(1)
    assert "mce" not in mean_corruption_error(errors)


def test_where_the_baseline_loses_nothing_there_is_no_relative_error() -> None:
    net, base = made([[0.2, 0.4], [0.1, 0.3]]), made([[0.1, 0.1], [0.2, 0.2]], clean=0.1)
    means = mean_corruption_error(net, base)
    assert np.isnan(means["relative_error"].values).tolist() == [True, False]
    assert np.isnan(means["relative_mce"].item())
    assert means["mce"].item() > 1
    text = format_corruption_table(net, base)
    assert text.splitlines()[-1] == "relative mCE: none, as the baseline loses nothing by a"


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (made([[0.2, 0.4]]), "baseline lacks the corruption b: allowed is one that has all of them"),
        (made([[0.2], [0.1]]), "baseline lacks the severity 2"),
        (made([[0.0, 0.0], [0.1, 0.1]]), "baseline is never wrong under a: allowed is one that is"),
        (made([[0.2, 0.4], [0.1, 0.3]], n=20), "baseline is of other images"),
        (xr.Dataset({"error": 1.0}), "baseline lacks clean_error: allowed is what corruption_errors returns"),
        (3, "baseline is of the wrong type int"),
    ],
)
@on_the_cpu
def test_a_baseline_that_does_not_fit_is_refused(baseline: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        mean_corruption_error(made([[0.2, 0.4], [0.1, 0.3]]), baseline)
    assert "\n" not in str(caught.value)


def test_a_published_baseline_needs_only_errors() -> None:
    base = made([[0.4, 0.8], [0.2, 0.2]])[["error", "clean_error"]]
    assert mean_corruption_error(made([[0.2, 0.4], [0.1, 0.3]]), base)["mce"].item() == pytest.approx(0.75)


@on_the_cpu
def test_they_are_saved_and_read(errors: xr.Dataset, tmp_path: Path) -> None:
    again = load(save(errors, tmp_path / "errors.nc"))
    xr.testing.assert_identical(again.drop_attrs(), errors.drop_attrs())
    text = format_corruption_table(again, again)
    assert text == format_corruption_table(errors, errors)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == list(NAMES)
    assert lines[1].split() == ["corruption", "1", "3", "5", "mean", "CE"]
    assert lines[-2].startswith("mCE 100.00 +- ")
    assert lines[-1].startswith("relative mCE 100.00 +- ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruptions": ["fgo"]}, r"corruption = 'fgo' is unknown \(did you mean 'fog'\?\)"),
        ({"severities": (0,)}, "severity = 0 is out of range: allowed is a whole number from 1 to 5"),
        ({"severities": (1, 1)}, r"severities = \[1, 1\] is not allowed: one or more out of 1 to 5, each once, are"),
        ({"severities": ()}, r"severities = \[\] is not allowed"),
        ({"severities": 3}, "severities = 3 is of the wrong type: allowed are numbers out of 1 to 5"),
        ({"seed": -1}, "seed = -1 is out of range"),
        ({"batch_size": 0}, "batch_size = 0 is out of range"),
        ({"examples": 500}, "examples = 500"),
        ({"corruptions": ["saturate"]}, "Saturate of grey images is not allowed"),
    ],
)
def test_bad_input_is_refused_before_any_work(options: dict[str, Any], message: str, digits: Digits) -> None:
    def never(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the net was asked")

    with pytest.raises((ValueError, TypeError), match=message) as caught:
        corruption_errors(never, (digits.test, digits.labels), **{"device": digits.test.device, **options})
    assert "\n" not in str(caught.value)


def test_figures_show_every_corruption(errors: xr.Dataset) -> None:
    figure = plot_corruptions(errors)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [f"{100 * one:.1f}" for one in errors["error"].values.ravel()]
    drawn = plot_corrupted(pictures("colour", 1), ["all"], (1, 5))
    assert [text.get_text() for text in drawn.texts][:2] == ["gaussian noise", "shot noise"]
    shown = [ax for ax in drawn.axes if ax.images]
    assert len(shown) == 3 * len(CORRUPTIONS)
    # the second row begins after the two blocks of the first
    expected = corrupted_images("shot_noise", pictures("colour", 1), 5)[0].permute(1, 2, 0).cpu().numpy()
    np.testing.assert_allclose(np.asarray(shown[8].images[0].get_array()), expected, atol=1e-7)
    with pytest.raises(ValueError, match=r"image has the shape \(2, 1, 8, 8\)"):
        plot_corrupted(pictures("small", 2))
    with pytest.raises(ValueError, match="errors has no error by corruption and severity"):
        plot_corruptions(xr.Dataset())
