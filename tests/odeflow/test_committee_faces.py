"""Two-layer networks in sweeps, stores, files, figures and on the command line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    TeacherStudent,
    integrate,
    latex,
    load,
    save,
    simulate,
    sweep,
    xor,
)
from odeflow.cli import main
from odeflow.model import Data
from odeflow.order_parameters import random_start
from odeflow.plot import plot

MIXTURE, RULE, ADVERSARY = GaussianMixture(0.7), LearningRule(1.0, 0.5), Adversary(0.3)
NET = Committee(2, eta_c=0.2, tolerance=1e-3)
START: dict[str, Any] = {"M": [0.2, 0.05], "Q": [[0.5, 0.1], [0.1, 0.3]]}
TIMES = np.linspace(0, 2, 5)
FOUR = Committee(4, "relu")


@pytest.fixture(scope="module")
def theory() -> xr.Dataset:
    return integrate(MIXTURE, RULE, ADVERSARY, network=NET, alpha=TIMES, start=START)


def simulated(mixture: Data, network: Committee = NET, epsilon: float = 0.3, **given: Any) -> xr.Dataset:
    start = random_start(network, mixture, size=0.5, N=60, rng=1) | given
    return simulate(mixture, RULE, Adversary(epsilon), network=network, alpha=TIMES, start=start, N=60, runs=3, rng=2)


@pytest.mark.parametrize("mixture", [MIXTURE, xor(v=0.2), TeacherStudent(2, scale=0.5)], ids=["seed", "xor", "teacher"])
@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_a_result_that_is_saved_and_loaded_is_the_same(mixture: Data, ending: str, tmp_path: Path) -> None:
    result = simulated(mixture)
    again = load(save(result, tmp_path / f"one.{ending}"))
    xr.testing.assert_identical(again.load(), result)
    made = json.loads(again.attrs["configuration"])
    assert made["options"]["network"]["hidden"] == 2
    if not isinstance(mixture, GaussianMixture):
        fields = dict(made["mixture"])
        assert type(mixture).__name__ == fields.pop("kind")
        assert type(mixture)(**fields) == mixture  # the record makes the data again
    assert plot(again).axes
    assert r"\begin{table}" in latex(again)


def test_a_sweep_is_its_points_and_a_store_goes_on(theory: xr.Dataset, tmp_path: Path) -> None:
    arguments: Any = {"network": NET, "alpha": TIMES, "start": START}
    store = tmp_path / "sweep.nc"
    sweep(MIXTURE, RULE, Adversary(), over={"epsilon": [0.3]}, **arguments, store=store)
    whole = sweep(MIXTURE, RULE, Adversary(), over={"epsilon": [0.0, 0.3]}, **arguments, store=store).load()
    with ThreadPoolExecutor(2) as pool:
        other = sweep(MIXTURE, RULE, Adversary(), over={"epsilon": [0.0, 0.3]}, **arguments, executor=pool)
    for name in ("M", "Q", "c", "b", "error", "fgsm_error", "adversarial_error", "quadrature_error"):
        np.testing.assert_array_equal(whole[name], other[name])
        np.testing.assert_array_equal(whole[name].sel(epsilon=0.3), theory[name])
    assert whole.M.dims == ("epsilon", "alpha", "unit")
    np.testing.assert_array_equal(whole.Q0, START["Q"])
    changed = {**arguments, "start": {**START, "M": [0.2, 0.06]}}
    with pytest.raises(ValueError, match=r"is of another sweep: it has M0 = \[0.2, 0.05\]"):
        sweep(MIXTURE, RULE, Adversary(), over={"epsilon": [0.0, 0.3]}, **changed, store=store)


def test_a_start_is_swept_as_a_number() -> None:
    arguments: Any = {"network": NET, "alpha": [1.0]}
    found = sweep(MIXTURE, RULE, ADVERSARY, over={"Q0": [0.3, 0.6]}, **arguments, start={"M": [0.2, 0.05]})
    one = integrate(MIXTURE, RULE, ADVERSARY, **arguments, start={"M": [0.2, 0.05], "Q": 0.6 * np.eye(2)})
    np.testing.assert_array_equal(found.M.sel(Q0=0.6), one.M)
    np.testing.assert_array_equal(found.M0, [0.2, 0.05])


def test_simulations_are_swept_with_a_start_of_each_run(tmp_path: Path) -> None:
    starts = random_start(NET, xor(), size=0.5, N=40, rng=1, runs=3)
    arguments: Any = {"network": NET, "alpha": [0.0, 1.0], "N": 40, "runs": 3, "rng": 4, "compute": "simulate"}
    store = tmp_path / "runs.zarr"
    found = sweep(xor(), RULE, ADVERSARY, over={"spread": [0.1, 0.4]}, **arguments, start=starts, store=store)
    for spread in (0.1, 0.4):
        np.testing.assert_allclose(found.M.sel(spread=spread).isel(alpha=0), starts["M"], atol=1e-12)
    np.testing.assert_array_equal(found.Q0, starts["Q"])
    starts["M"] = starts["M"] * 0.99
    with pytest.raises(ValueError, match="is of another sweep: it has M0 = 'of each run, sha256"):
        sweep(xor(), RULE, ADVERSARY, over={"spread": [0.1, 0.4]}, **arguments, start=starts, store=store)


def labels(figure: Any) -> list[str]:
    return [ax.get_ylabel() for ax in figure.axes]


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_entries_of_an_array_share_a_panel(theory: xr.Dataset) -> None:
    figure = plot(theory)
    # theta does not learn here, and is not drawn; Q_21 is Q_12
    assert labels(figure) == ["$M$", "$Q$", "$c$", "$b$", "error"]
    assert [legend(figure.axes[i]) for i in (0, 1)] == [["$M_{1}$", "$M_{2}$"], ["$Q_{11}$", "$Q_{12}$", "$Q_{22}$"]]
    assert legend(figure.axes[4]) == ["classification", r"FGSM, $\varepsilon=0.3$", r"adversarial, $\varepsilon=0.3$"]
    for line, values in zip(
        figure.axes[1].lines, (theory.Q[:, 0, 0], theory.Q[:, 0, 1], theory.Q[:, 1, 1]), strict=True
    ):
        np.testing.assert_array_equal(line.get_ydata(), values)


def test_results_are_told_apart_by_colour_and_entries_by_dashes(theory: xr.Dataset) -> None:
    weak = simulate(MIXTURE, RULE, Adversary(0.1), network=NET, alpha=TIMES, start=START, N=60, runs=3, rng=1)
    figure = plot(theory, simulate(MIXTURE, RULE, ADVERSARY, network=NET, alpha=TIMES, start=START, N=60, runs=3), weak)
    first, second = figure.axes[0].lines[:2]
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    colours = [container[0].get_color() for container in figure.axes[0].containers]
    assert colours == [first.get_color()] * 2 + [colours[2]] * 2
    assert colours[2] != first.get_color()


def test_of_many_units_each_has_its_panel_and_a_teachers_losses_have_one() -> None:
    figure = plot(simulated(xor(v=0.1), FOUR, c=[1, 1, -1, -1]))
    assert labels(figure)[:6] == ["$M$"] * 4 + ["$Q$"] * 2
    assert legend(figure.axes[1]) == ["$M_{21}$", "$M_{22}$", "$M_{23}$", "$M_{24}$"]
    assert [len(legend(figure.axes[i])) for i in (4, 5)] == [4, 6]  # the diagonal, and the rest
    taught = plot(simulated(TeacherStudent(2)))
    assert labels(taught)[-1] == "loss"
    assert legend(taught.axes[-1]) == ["clean", r"attacked, $\varepsilon=0.3$"]


def test_networks_that_differ_are_named(theory: xr.Dataset) -> None:
    fixed = Committee(2, tolerance=1e-3)
    other = integrate(MIXTURE, RULE, ADVERSARY, network=fixed, alpha=TIMES, start=START)
    (above,) = plot(theory, other).legends
    assert [text.get_text() for text in above.get_texts()] == [r"$\eta_c=0.2$", r"$\eta_c=0$"]


def test_the_command_line_does_what_python_does(
    theory: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--network committee --hidden 2 --eta-c 0.2 --tolerance 1e-3 --p 0.7 --eta-w 1 --eta-b 0.5 --epsilon 0.3"
    start = "--M0 0.2 0.05 --Q0 0.5 0.1 0.1 0.3 --alpha-max 2 --points 5"
    assert main(["integrate", *words.split(), *start.split(), "--out", str(tmp_path / "one.nc")]) == 0
    found = load(tmp_path / "one.nc")
    for name in ("M", "Q", "c", "b", "adversarial_error"):
        np.testing.assert_array_equal(found[name], theory[name])
    said = capsys.readouterr().out
    assert f"Q12 = {float(theory.Q[-1, 0, 1]):.8f}" in said
    assert "Q21" not in said
    assert f"S_FGSM(0.3) = {float(theory.fgsm_error[-1]):.8f}" in said


def test_the_command_line_has_every_kind_of_data(tmp_path: Path) -> None:
    words = [
        "simulate",
        "--network",
        "committee",
        "--hidden",
        "2",
        "--runs",
        "2",
        "--N",
        "50",
        "--seed",
        "1",
        "--alpha-max",
        "1",
        "--points",
        "2",
        "--start-size",
        "0.5",
    ]
    for data, expected in (
        ("xor --spread 0.2 --scale 0.8", xor(1.6, 0.2)),
        ("clusters --means 1 0 -1 0 0 1 0 -1 --labels 1 1 -1 -1 --spread 0.2 --scale 0.8", xor(1.6, 0.2)),
        ("teacher --teacher-units 2 --teacher-weights 1 -1", TeacherStudent(2, weights=(1, -1))),
    ):
        file = tmp_path / "one.nc"
        arguments = [
            *words,
            "--start-seed",
            "3",
            "--out",
            str(file),
            "--overwrite",
            "--attack",
            "pgd",
            "--data",
            *data.split(),
        ]
        assert main(arguments) == 0
        start = random_start(Committee(2), expected, size=0.5, N=50, rng=3, runs=2)
        model: Any = (expected, LearningRule(), Adversary(attack="pgd"))
        wanted = simulate(*model, network=Committee(2), alpha=[0.0, 1.0], start=start, N=50, runs=2, rng=1)
        xr.testing.assert_equal(load(file), wanted)


def test_losses_with_a_teacher_are_those_of_independent_quadrature() -> None:
    # values by nested Gauss-Legendre panels over student and teacher, to 1e-7
    state = {
        "R": np.array([[0.6, 0.2], [0.1, 0.5]]),
        "Q": np.array([[0.7, 0.2], [0.2, 0.5]]),
        "c": np.ones(2),
        "theta": np.zeros(2),
        "b": np.array(0.0),
    }
    found = Committee(2).measured(state, TeacherStudent(2), {"scale": np.array(1.0)}, 0.3)
    assert float(found["loss"]) == pytest.approx(0.1531501, abs=1e-6)
    assert float(found["adversarial_loss"]) == pytest.approx(0.2879434, abs=1e-6)
