"""Figures show the numbers they are given, labelled, and change no global setting."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, robustness_curve, simulate
from odeflow.plot import draw_lines, draw_points, new_figure, plot, save_figure, style

MODEL = (GaussianMixture(p=0.6), LearningRule(), Adversary(0.5))


@pytest.fixture(scope="module")
def theory() -> xr.Dataset:
    return integrate(*MODEL, alpha=np.linspace(0, 10, 11))


@pytest.fixture(scope="module")
def sample() -> xr.Dataset:
    return simulate(*MODEL, N=20, alpha=[0.0, 5.0, 10.0], runs=8, rng=1)


def test_lines_are_the_values(theory: xr.Dataset) -> None:
    (line,) = draw_lines(theory.R, label="theory")
    np.testing.assert_array_equal(line.get_xdata(), theory.alpha)
    np.testing.assert_array_equal(line.get_ydata(), theory.R)
    assert line.axes is not None
    assert (line.axes.get_xlabel(), line.axes.get_ylabel()) == (r"$\alpha$", "$R$")


@pytest.mark.parametrize(("spread", "divisor"), [("sd", 1.0), ("se", np.sqrt(8))])
def test_points_are_means_with_error_bars(sample: xr.Dataset, spread: str, divisor: float) -> None:
    points, _, (bars,) = draw_points(sample.b, spread=spread).lines  # type: ignore[arg-type]
    assert points is not None
    np.testing.assert_allclose(np.asarray(points.get_ydata(), float), sample.b.mean("run"))
    low, high = np.array([segment[:, 1] for segment in bars.get_segments()]).T
    np.testing.assert_allclose(high - low, 2 * sample.b.std("run", ddof=1) / divisor, atol=1e-15)


def test_they_draw_on_the_axes_they_are_given(theory: xr.Dataset, sample: xr.Dataset) -> None:
    _, axes = new_figure()
    ax = axes[0, 0]
    ax.set_ylabel("mine")
    draw_lines(theory.R, ax)
    draw_points(sample.R, ax)
    assert len(ax.lines) >= 2
    assert ax.get_ylabel() == "mine"


def test_the_natural_picture(theory: xr.Dataset, sample: xr.Dataset) -> None:
    for result in (theory, sample):
        figure = plot(result)
        assert [ax.get_ylabel() for ax in figure.axes] == ["$R$", "$b$", "error"]
        legend = figure.axes[2].get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["classification", r"adversarial, $\varepsilon=0.5$"]
    curve = plot(robustness_curve(0.9, 0.1, MODEL[0]))
    assert [ax.get_xlabel() for ax in curve.axes] == [r"$\varepsilon$"]


def test_no_picture_is_known(theory: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="no picture is known"):
        plot(theory.isel(alpha=0))
    with pytest.raises(ValueError, match="dims"):
        draw_lines(theory.R.expand_dims(x=2))
    with pytest.raises(ValueError, match="dims"):
        draw_points(theory.R)
    with pytest.raises(ValueError, match="spread"):
        draw_points(theory.R.expand_dims(run=2), spread="all")  # type: ignore[arg-type]


def test_no_global_setting_changes(theory: xr.Dataset, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save_figure(plot(theory), tmp_path / "figure.png")
    assert dict(mpl.rcParams) == before
    with style():
        assert mpl.rcParams["font.size"] == 8
    assert dict(mpl.rcParams) == before


def test_vector_output_is_the_same_every_time_and_keeps_text(theory: xr.Dataset, tmp_path: Path) -> None:
    files = [save_figure(plot(theory), tmp_path / f"{name}.pdf") for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b"/Type /Font" in files[0].read_bytes() or b"/Subtype /CIDFontType2" in files[0].read_bytes()
    assert "<text" in save_figure(plot(theory), tmp_path / "figure.svg").read_text()


def test_bad_figure_files(theory: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.pdf, \.png, \.svg"):
        save_figure(plot(theory), tmp_path / "figure.bmp")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        save_figure(plot(theory), tmp_path / "none" / "figure.png")
