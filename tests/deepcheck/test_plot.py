"""Figures show the numbers they were given, and leave every global setting alone."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from deepcheck.evaluation.detection import roc
from deepcheck.evaluation.robustness import robustness_curve
from deepcheck.plot import plot_confidences, plot_images, plot_robustness_curves, plot_roc
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


def test_no_global_setting_changes() -> None:
    before = dict(mpl.rcParams)
    plot_roc({"a": roc([0.9], [0.2])})
    plot_images(np.zeros((1, 1, 2, 2)))
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
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw()
