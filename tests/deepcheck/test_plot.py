"""Figures show the numbers they were given, and leave every global setting alone."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from deepcheck.evaluation.detection import roc
from deepcheck.evaluation.records import AttackRecord, assemble
from deepcheck.evaluation.robustness import robustness_curve
from deepcheck.plot import plot_confidences, plot_distal, plot_images, plot_robustness_curves, plot_roc
from odeflow import GaussianMixture
from odeflow import robustness_curve as theory
from tests.deepcheck.evaluation_cases import random_records


def test_roc_curves() -> None:
    curves = {"a": roc([0.9, 0.7], [0.7, 0.2]), "b": roc([0.9], [0.2])}
    ax = plot_roc(curves).axes[0]
    _, first, second = ax.lines
    for line, curve in zip((first, second), curves.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), curve.fpr)
        np.testing.assert_array_equal(line.get_ydata(), curve.tpr)
    _, texts = ax.get_legend_handles_labels()
    assert texts == ["a (area 0.875)", "b (area 1.000)"]


def test_robustness_curves_of_nets_and_of_theory() -> None:
    net = robustness_curve(random_records(0, 20), norm="linf")
    ax = plot_robustness_curves({"net": net, "theory": theory(1.0, 0.0, GaussianMixture())}).axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), net)
    assert len(ax.collections) == 1  # a standard error only where the number of examples is known
    band = np.asarray(ax.collections[0].get_paths()[0].vertices)
    spread = np.sqrt(net.values * (1 - net.values) / 20)
    assert band[:, 1].max() == pytest.approx((net.values + spread).max())


def test_confidences_add_up_to_one() -> None:
    rng = np.random.default_rng(0)
    figure = plot_confidences({"clean": rng.beta(9, 1, 500), "attacked": rng.beta(2, 2, 100)}, tau=0.5, bins=10)
    for patch in figure.axes[0].patches:
        assert patch.get_data().values.sum() == pytest.approx(1)  # type: ignore[attr-defined]
    assert figure.axes[0].lines[0].get_xdata() == [0.5, 0.5]
    assert figure.legends[0].get_texts()[0].get_text().endswith("% accepted")
    assert len(plot_confidences({"none": []}).axes) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_drawn_as_they_are(channels: int) -> None:
    images = np.random.default_rng(0).random((5, channels, 4, 6))
    figure = plot_images(images, list("abcde"), confidences=[0.5, 0.25, np.nan, 1, 0], columns=3)
    assert len(figure.axes) == 6
    for ax, image in zip(figure.axes, images, strict=False):
        np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), np.moveaxis(image, 0, -1).squeeze())
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["a (50%)", "b (25%)", "c", "d (100%)", "e (0%)", ""]
    assert not figure.axes[5].images
    assert [ax.get_title() for ax in plot_images(images, confidences=np.full(5, 0.5)).axes] == ["50%"] * 5


def distal_records(count: int, channels: int = 1) -> xr.Dataset:
    """Noise of two kinds, of which the first two of each are shown; class and confidence of restarts are not theirs."""
    n = 2 * count
    rng = np.random.default_rng(0)
    attack = AttackRecord("linf", (0.2,), np.full((1, 2, n), 3), np.full((1, 2, n), 0.99), np.full((1, 2, n), 0.2))
    records = assemble(
        {"distal": attack},
        label=np.full(n, -1),
        clean_prediction=np.full(n, 2),
        clean_confidence=np.where(np.arange(n) < count, 0.125, 0.375),
    )
    pixels = ("shown", "channel", "row", "column")
    images, noise_images = rng.random((2, 4, channels, 5, 5))
    return records.assign(
        image=(pixels, images),
        noise_image=(pixels, noise_images),
        image_prediction=("shown", [0, 1, 2, 0]),
        image_confidence=("shown", [0.75, 0.9, 0.85, 1.0]),
    ).assign_coords(
        shown=[0, 1, count, count + 1], noise=("example", np.repeat(np.array(["uniform", "smooth"], object), count))
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_distal_examples_are_under_their_noise(channels: int) -> None:
    records = distal_records(5, channels)
    figure = plot_distal(records)
    noise = records.noise_image.values
    drawn = np.concatenate([noise[:2], records.image[:2], noise[2:], records.image[2:]])
    assert len(figure.axes) == 8
    for ax, image in zip(figure.axes, drawn, strict=True):
        np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), np.moveaxis(image, 0, -1).squeeze())
    titles = ["2 (12%)", "2 (12%)", "0 (75%)", "1 (90%)", "2 (38%)", "2 (38%)", "2 (85%)", "0 (100%)"]
    assert [ax.get_title() for ax in figure.axes] == titles


def test_distal_examples_have_names_and_fit_into_the_columns() -> None:
    records = distal_records(4)
    figure = plot_distal(records, ["zero", "one", "two"], columns=1)
    assert [ax.get_title() for ax in figure.axes] == ["two (12%)", "zero (75%)", "two (38%)", "two (85%)"]
    assert all(len(ax.images) == 1 for ax in figure.axes)


def test_no_global_setting_changes() -> None:
    before = dict(mpl.rcParams)
    plot_roc({"a": roc([0.9], [0.2])})
    plot_images(np.zeros((1, 1, 2, 2)))
    plot_distal(distal_records(2))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot_roc({}), ValueError, "nothing to draw"),
        (lambda: plot_roc([]), TypeError, "type list: allowed is a dict"),  # type: ignore[arg-type]
        (lambda: plot_roc({"a": xr.Dataset()}), ValueError, r"curves\['a'\] lacks fpr"),
        (lambda: plot_robustness_curves({"a": xr.DataArray([1.0])}), ValueError, "allowed is one dim epsilon"),
        (lambda: plot_confidences({"a": [1.5]}), ValueError, r"confidences\['a'\] has values out of range"),
        (lambda: plot_confidences({"a": [0.5]}, bins=0), ValueError, "bins = 0"),
        (lambda: plot_images(np.zeros((2, 2, 4, 4))), ValueError, r"allowed is \(n, 1 or 3, height, width\)"),
        (lambda: plot_images(np.full((2, 1, 4, 4), 255)), ValueError, r"values in 255..255: allowed is \[0, 1\]"),
        (
            lambda: plot_images(np.zeros((2, 1, 4, 4)), ["a"]),
            ValueError,
            "titles are 1: allowed is one for each of the 2",
        ),
        (lambda: plot_images(np.zeros((2, 1, 4, 4)), columns=0), ValueError, "columns = 0"),
        (
            lambda: plot_distal(random_records(0, 5)),
            ValueError,
            "records lack image_prediction or noise: allowed is what",
        ),
        (lambda: plot_distal(distal_records(2), columns=0), ValueError, "columns = 0 is out of range: allowed is 1"),
        (
            lambda: plot_distal(distal_records(2), ["a"]),
            ValueError,
            "class_names has 1 names: .* of which 2 is predicted",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw()
