"""Figures as they are printed: width, size of text, nothing cut or covered, no curve told by its colour alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    branches,
    fixed_points,
    integrate,
    optimal_classifier,
    phase_boundary,
    robustness_curve,
    simulate,
    sweep,
)
from odeflow.plot import clear_legend, label_panels, looks, new_figure, plot, save_figure, style, width_of
from tests.odeflow.figure_checks import covered, outside, overlapping, small, written

if TYPE_CHECKING:
    import xarray as xr

MIXTURE, RULE, FREE = GaussianMixture(p=0.7), LearningRule(), LearningRule(normalised=False)
TIMES, FEW_TIMES = np.linspace(0, 100, 51), np.linspace(0, 100, 6)


def theory(epsilon: float = 1.0, rule: LearningRule = RULE) -> xr.Dataset:
    return integrate(MIXTURE, rule, Adversary(epsilon), alpha=TIMES, test_epsilon=1.0)


def points(epsilon: float = 1.0, rule: LearningRule = RULE) -> xr.Dataset:
    return simulate(MIXTURE, rule, Adversary(epsilon), alpha=FEW_TIMES, N=50, runs=5, rng=1, test_epsilon=1.0)


def grid(**over: Any) -> xr.Dataset:
    return sweep(MIXTURE, RULE, Adversary(), over=over, alpha=[20.0])


RHO, EPSILON = np.linspace(1, 4, 12), np.linspace(0, 2, 9)

PICTURES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "theory": lambda: (theory(),),
    "simulation": lambda: (points(),),
    "theory through points": lambda: (theory(), points()),
    "two trainings": lambda: (theory(0), theory(1), points(0), points(1)),
    "free weights": lambda: (theory(rule=FREE), points(rule=FREE)),
    "a committee": lambda: (integrate(MIXTURE, FREE, Adversary(1.0), alpha=TIMES, network=Committee()),),
    "a curve": lambda: (robustness_curve(0.9, 0.1, MIXTURE),),
    "seven values": lambda: (grid(epsilon=np.linspace(0, 1.5, 7), rho=RHO),),
    "heat maps": lambda: (grid(rho=RHO, epsilon=EPSILON),),
    "heat maps in rows": lambda: (grid(rho=RHO, epsilon=EPSILON, p=[0.3, 0.7]),),
    "fixed points": lambda: (fixed_points(GaussianMixture(p=0.6), RULE, Adversary(1.6)),),
    "fixed points over epsilon": lambda: (
        sweep(GaussianMixture(p=0.6), RULE, Adversary(), over={"epsilon": EPSILON}, compute="equilibria"),
    ),
    "phases": lambda: (
        sweep(GaussianMixture(p=0.6), RULE, Adversary(), over={"epsilon": EPSILON, "rho": RHO}, compute="equilibria"),
    ),
    "branches": lambda: (branches(GaussianMixture(p=0.6), RULE, Adversary(), values=EPSILON),),
    "a boundary": lambda: (boundary(0.6),),
    "a boundary on maps": lambda: (grid(rho=RHO, epsilon=EPSILON), boundary(0.7)),
    "levels": lambda: (
        theory(),
        fixed_points(MIXTURE, RULE, Adversary(1.0), test_epsilon=1.0),
        optimal_classifier(MIXTURE, 0.5),
    ),
}


def boundary(p: float) -> xr.Dataset:
    return phase_boundary(GaussianMixture(p=p), RULE, parameter="rho", values=np.linspace(1, 4, 7))


@cache
def results(name: str) -> tuple[Any, ...]:
    return PICTURES[name]()


@pytest.mark.parametrize("width", ["single", pytest.param("double", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_can_be_printed(name: str, width: Any) -> None:
    before = dict(mpl.rcParams)
    figure = plot(*results(name), width=width, title=True)
    assert dict(mpl.rcParams) == before
    assert figure.get_size_inches()[0] == width_of(width)
    assert small(figure) == {}
    assert outside(figure) == []
    assert overlapping(figure) == []
    assert covered(figure) == []


def test_these_checks_see_faults() -> None:
    figure, axes = new_figure(width="single")
    ax = axes[0, 0]
    ax.plot([0, 1], [0, 1], label="a curve that goes through the corner")
    ax.legend(loc="upper right", fontsize=6.5)
    figure.text(0.9, 0.5, "half of this is outside of the canvas")
    figure.text(0.9, 0.5, "on it")
    assert [*small(figure)] == ["a curve that goes through the corner"]
    assert outside(figure) == ["half of this is outside of the canvas"]
    assert ("half of this is outside of the canvas", "on it") in overlapping(figure)
    assert covered(figure) == [ax]


def test_panels_have_letters_and_titles_on_request() -> None:
    plain = plot(theory())
    assert [ax.get_title(loc="left") for ax in plain.axes] == ["(a)", "(b)", "(c)"]
    assert plain.get_suptitle() == ""
    assert [ax.get_title(loc="left") for ax in plot(theory(), letters=False).axes] == ["", "", ""]
    assert [ax.get_title(loc="left") for ax in plot(*results("a curve")).axes] == [""]
    assert r"$p=0.7$, $\rho=2$" in plot(theory(), title=True).get_suptitle().replace("\n", " ")


@pytest.mark.parametrize(
    ("width", "inches"), [("single", 3.4), ("double", 7.0), (5.1, 5.1), (np.float64(4), 4.0), (None, 7.0)]
)
def test_the_width_is_that_of_a_journal(width: Any, inches: float, tmp_path: Path) -> None:
    figure = plot(theory(), width=width)
    assert figure.get_size_inches()[0] == inches
    saved = save_figure(figure, tmp_path / "a.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", saved)
    assert box is not None
    assert float(box[1]) == pytest.approx(72 * inches, abs=0.01)


@pytest.mark.parametrize("width", ["wide", 0.2, 400, float("nan"), True])
def test_a_width_that_is_none(width: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"width = .* allowed is"):
        plot(theory(), width=width)


def test_dots_an_inch(tmp_path: Path) -> None:
    from matplotlib.image import imread

    figure = plot(robustness_curve(0.9, 0.1, MIXTURE), width="single")
    assert imread(save_figure(figure, tmp_path / "a.png", dpi=100)).shape[1] == 340
    assert imread(save_figure(figure, tmp_path / "b.png")).shape[1] == 1020
    with pytest.raises(ValueError, match=r"dpi = 1\.0 is out of range"):
        save_figure(figure, tmp_path / "c.png", dpi=1)


def test_fonts_are_embedded_as_outlines_that_can_be_edited(tmp_path: Path) -> None:
    saved = save_figure(plot(theory()), tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in saved  # TrueType, type 42
    assert b"/Type3" not in saved
    assert saved.count(b"/FontFile2") == saved.count(b"/Type /FontDescriptor")


# Told apart without colour


def test_no_two_looks_are_told_by_colour_alone() -> None:
    chosen = looks(14)
    for i, (first, second) in enumerate(combinations(chosen, 2)):
        if i < 7:
            assert (first.dash, first.marker) != (second.dash, second.marker)
        assert (first.color, first.dash, first.marker) != (second.color, second.dash, second.marker)
    assert len({look.dash for look in looks(7)}) == len({look.marker for look in looks(7)}) == 7


def test_a_scale_of_values_rises_in_grey() -> None:
    grey = [float(np.dot((0.299, 0.587, 0.114), to_rgb(look.color))) for look in looks(7, ordered=True)]
    assert np.all(np.diff(grey) > 0.03)


@pytest.mark.parametrize("name", ["theory", "two trainings", "free weights", "seven values", "simulation"])
def test_curves_of_a_panel_differ_in_dash_or_marker(name: str) -> None:
    for ax in plot(*results(name)).axes:
        lines = [line for line in ax.lines if line.get_linestyle() not in ("None", "")]
        dashes = [str(line._dash_pattern) for line in lines]  # type: ignore[attr-defined]
        assert len({*dashes}) == len(dashes)
        marks = [container[0].get_marker() for container in ax.containers]
        assert len({*marks}) == len(marks)


def test_theory_and_simulation_of_one_model_look_alike() -> None:
    ax = plot(*results("two trainings")).axes[0]
    lines = [line.get_color() for line in ax.lines if line.get_linestyle() not in ("None", "")]
    assert lines == [container[0].get_color() for container in ax.containers]


# Settings


def test_the_sheet_takes_the_place_of_defaults_and_of_nothing_else() -> None:
    from cycler import cycler

    mine: Any = {"font.size": 11.0, "legend.fontsize": 9.5, "axes.prop_cycle": cycler(color=["red", "green"])}
    with mpl.rc_context(mine):
        before = dict(mpl.rcParams)
        with style():
            assert mpl.rcParams["font.size"] == 11
            assert mpl.rcParams["axes.labelsize"] == 8  # nobody asked for another one
            with style():
                assert mpl.rcParams["legend.fontsize"] == 9.5
        figure = plot(theory())
        assert figure.axes[0].lines[0].get_color() == "red"
        legend = figure.axes[-1].get_legend()
        assert legend is not None
        assert {text.get_fontsize() for text in legend.get_texts()} == {9.5}
        assert dict(mpl.rcParams) == before


# Contours


def test_values_of_contours_are_whole_and_apart() -> None:
    figure = plot(grid(rho=RHO, epsilon=EPSILON), width="single")
    written(figure)
    for ax in figure.axes:
        if not ax.get_title():
            continue
        frame: Any = ax.get_window_extent()
        boxes: list[Any] = [text.get_window_extent() for text in ax.texts]
        assert boxes
        assert all(np.all(box.min >= frame.min - 1) and np.all(box.max <= frame.max + 1) for box in boxes)
        places = [text.get_position() for text in ax.texts]
        pixels = ax.transData.transform(places)
        assert all(np.hypot(*(one - other)) > 7 for one, other in combinations(pixels, 2))


def test_text_is_of_one_family() -> None:
    families = {tuple(text.get_fontfamily()) for text in written(plot(theory()))}
    assert families == {("STIXGeneral",)}


def test_looks_are_those_of_the_sheet_wherever_they_are_asked_for() -> None:
    assert [to_hex(look.color) for look in looks(2)] == ["#0072b2", "#d55e00"]
    figure, axes = new_figure(1, 2, width="single")
    label_panels(axes[0])
    assert {text.get_fontsize() for text in written(figure) if text.get_text() in ("(a)", "(b)")} == {8}


def test_a_legend_gets_room_on_a_logarithmic_axis_too() -> None:
    figure, axes = new_figure(width="single")
    ax = axes[0, 0]
    for power in range(6):
        ax.plot([0, 1], [10.0**power, 10.0**power], label=f"curve {power}")
    ax.set_yscale("log")
    ax.legend()
    assert covered(figure) == [ax]
    clear_legend(figure, ax)
    assert covered(figure) == []
    assert ax.get_ylim()[0] > 0
