"""Figures show the numbers they are given, labelled, and change no global setting."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, robustness_curve, simulate, sweep
from odeflow.plot import draw_lines, draw_map, draw_points, new_figure, plot, save_figure, style

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


def test_a_small_second_dimension_makes_coloured_curves() -> None:
    over = {"epsilon": [0.0, 0.5, 1.0], "rho": np.linspace(1, 3, 9)}
    for result, x in (
        (sweep(*MODEL, over=over, alpha=[1.0, 2.0]), r"$\rho$"),
        (sweep(*MODEL, over={"epsilon": [0.0, 0.5, 1.0]}, alpha=[1.0, 2.0]), r"$\alpha$"),
        (sweep(*MODEL, over=over, alpha=[1.0], compute="simulate", N=5, runs=3, rng=1), r"$\rho$"),
    ):
        figure = plot(result)
        assert [ax.get_ylabel() for ax in figure.axes] == ["$R$", "$b$", "$E$", "$S$"]
        assert {ax.get_xlabel() for ax in figure.axes} == {x}
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == [rf"$\varepsilon={value}$" for value in ("0", "0.5", "1")]
    curves = plot(sweep(*MODEL, over=over, alpha=[1.0, 2.0])).axes[1].lines
    expected = sweep(*MODEL, over=over, alpha=[1.0, 2.0]).b.isel(alpha=-1)
    np.testing.assert_array_equal([line.get_ydata() for line in curves], expected)


def test_one_large_parameter_makes_a_curve_at_the_last_alpha() -> None:
    result = sweep(*MODEL, over={"rho": np.linspace(1, 3, 9)}, alpha=[1.0, 2.0])
    figure = plot(result)
    assert [ax.get_xlabel() for ax in figure.axes] == 3 * [r"$\rho$"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), result.R.isel(alpha=-1))


def test_two_large_parameters_make_heat_maps_and_a_third_makes_rows() -> None:
    over = {"rho": np.linspace(1, 3, 9), "epsilon": np.linspace(2, 0, 8)}
    result = sweep(*MODEL, over=over, alpha=[1.0, 20.0])
    figure = plot(result)
    maps = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in maps] == ["$R$", "$b$", "$E$", "$S$"]
    # a label that the panel beneath has too is there once
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in maps] == 2 * [("", r"$\rho$")] + 2 * [
        (r"$\varepsilon$", r"$\rho$")
    ]
    drawn = np.asarray(maps[3].collections[0].get_array())
    np.testing.assert_array_equal(drawn.reshape(9, 8)[:, ::-1], result.adversarial_error.isel(alpha=-1))
    assert maps[3].texts  # the contours' labels

    rows = plot(sweep(*MODEL, over={**over, "p": [0.3, 0.5]}, alpha=[20.0]))
    titles = [ax.get_title() for ax in rows.axes if ax.get_title()]
    assert titles == [f"${name}$, $p={p}$" for p in (0.3, 0.5) for name in "RbES"]


def test_fixed_points_are_filled_where_stable() -> None:
    result = sweep(*MODEL, over={"epsilon": np.linspace(0, 2, 21)}, compute="equilibria")
    figure = plot(result)
    assert [ax.get_ylabel() for ax in figure.axes] == ["$R$", "$b$", "$E$", "$S$"]
    filled, hollow = figure.axes[1].lines
    np.testing.assert_array_equal(filled.get_ydata(), result.b.values[result.stable])
    assert hollow.get_markerfacecolor() == "white"
    with pytest.raises(ValueError, match="select the others"):
        plot(result.drop_vars(["p", "rho"]).expand_dims(p=[0.5, 0.6], rho=[1.0, 2.0]))


def test_a_map_of_points_that_failed_is_white() -> None:
    values = sweep(*MODEL, over={"rho": [1.0, 2.0, 3.0], "epsilon": [0.0, 1.0]}, alpha=[1.0]).R.isel(alpha=0)
    drawn = draw_map(values.where(values.rho > 1)).get_array()
    assert drawn is not None
    assert np.ma.getmaskarray(drawn).reshape(3, 2).tolist() == [[True, True], [False, False], [False, False]]
    draw_map(values.where(values.rho > 5))
    with pytest.raises(ValueError, match="exactly two"):
        draw_map(values[0])


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


@pytest.mark.slow
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
