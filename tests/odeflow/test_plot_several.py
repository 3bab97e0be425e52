"""Several results in one picture, fixed points and branches: what is drawn is what the results say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from odeflow import (
    Adversary,
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
from odeflow.plot import plot

MIXTURE, RULE = GaussianMixture(p=0.7), LearningRule()
TIMES, FEW_TIMES = np.linspace(0, 20, 11), np.array([0.0, 10.0, 20.0])
STANDARD, ATTACKED = (integrate(MIXTURE, RULE, Adversary(e), alpha=TIMES, test_epsilon=1.0) for e in (0.0, 1.0))
POINTS = simulate(MIXTURE, RULE, Adversary(1.0), alpha=FEW_TIMES, N=30, runs=4, rng=1, test_epsilon=1.0)


def curves(ax: Any) -> list[Any]:
    return [line for line in ax.lines if line.get_linestyle() not in ("None", "")]


def texts(figure: Any) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_theory_through_points_of_simulation() -> None:
    figure = plot(STANDARD, ATTACKED, POINTS)
    assert [ax.get_ylabel() for ax in figure.axes] == ["$R$", "$b$", "$E$", "$S$"]
    for ax, name in zip(figure.axes, ("R", "b", "error", "adversarial_error"), strict=True):
        first, second = curves(ax)
        np.testing.assert_array_equal(first.get_ydata(), STANDARD[name])
        np.testing.assert_array_equal(second.get_ydata(), ATTACKED[name])
        (marks,) = ax.containers
        mean: Any = marks[0]
        np.testing.assert_allclose(mean.get_ydata(), POINTS[name].mean("run"))
        assert mean.get_color() == second.get_color() != first.get_color()
    simulation = "simulation, $N=30$, mean and s.d. of 4 runs"
    assert texts(figure) == [r"$\varepsilon=0$", r"$\varepsilon=1$", "theory", simulation]


def test_a_legend_says_in_what_words_results_differ() -> None:
    hinge = integrate(MIXTURE, LearningRule(loss="hinge", activation="linear"), Adversary(1.0), alpha=TIMES, test_epsilon=1.0)  # fmt: skip
    assert texts(plot(ATTACKED, hinge)) == ["squared, erf", "hinge, linear"]
    assert texts(plot(ATTACKED, ATTACKED))[1].endswith("(2)")


def test_simulations_of_two_sizes_are_told_apart() -> None:
    larger = simulate(MIXTURE, RULE, Adversary(1.0), alpha=FEW_TIMES, N=60, runs=4, rng=1, test_epsilon=1.0)
    figure = plot(ATTACKED, POINTS, larger)
    assert [text for text in texts(figure) if text.startswith("$N")] == ["$N=30$", "$N=60$"]


def test_of_free_weights_it_is_shown_what_the_errors_depend_on() -> None:
    free = integrate(MIXTURE, LearningRule(normalised=False), Adversary(1.0), alpha=TIMES)
    figure = plot(free)
    labels = ["$R$", "$b$", "$Q$", r"$R/\sqrt{Q}$", r"$b/\sqrt{Q}$", "error"]
    assert [ax.get_ylabel() for ax in figure.axes] == labels
    cosine, bias = (curves(ax)[0].get_ydata() for ax in figure.axes[3:5])
    np.testing.assert_allclose(cosine, free.R / np.sqrt(free.Q))
    # the error from these two alone is that of the result
    from odeflow import classification_error

    np.testing.assert_allclose(classification_error(cosine, bias, MIXTURE), free.error, rtol=1e-12)
    sample = simulate(MIXTURE, LearningRule(normalised=False), Adversary(1.0), alpha=FEW_TIMES, N=30, runs=4, rng=1)
    marks: Any = plot(sample).axes[3].containers[0]
    np.testing.assert_allclose(marks[0].get_ydata(), (sample.R / np.sqrt(sample.Q)).mean("run"))


def test_fixed_points_are_levels_of_trajectories() -> None:
    mixture = GaussianMixture(p=0.6)
    run = integrate(mixture, RULE, Adversary(1.6), alpha=5 * TIMES)
    points = fixed_points(mixture, RULE, Adversary(1.6))
    figure = plot(run, points)
    assert texts(figure) == ["fixed point", "unstable fixed point"]
    for ax, names in zip(figure.axes, (["R"], ["b"], ["error", "adversarial_error"]), strict=True):
        level = {line.get_ydata()[0]: line.get_linestyle() for line in curves(ax)[len(names) :]}
        edge = [line for line in ax.lines if line.get_marker() in ("^", "v")]
        values = points[names].to_dataarray().transpose("fixed_point", "variable").values
        assert len(level) + len(edge) >= len(np.unique(values)) - 1  # two may be the same number
        for value, stable in zip(values, points.stable.values, strict=True):
            for one in value:
                assert one not in level or level[one] == ("-" if stable else "--")
    assert [line.get_marker() for line in figure.axes[1].lines if line.get_marker() in ("^", "v")] == ["v", "^"]


def test_a_classifier_is_a_level() -> None:
    best = optimal_classifier(MIXTURE, 1.0)
    figure = plot(ATTACKED, best)
    assert texts(figure) == ["optimal classifier"]
    heights = [line.get_ydata()[0] for line in curves(figure.axes[2])[2:]]
    assert heights == [best.error.item(), best.adversarial_error.item()]


def test_a_single_time_is_seen() -> None:
    line = plot(ATTACKED.isel(alpha=[-1])).axes[0].lines[0]
    assert line.get_marker() == "o"
    assert plot(ATTACKED).axes[0].lines[0].get_marker() == "None"


def test_fixed_points_of_one_model_are_a_plane() -> None:
    points = fixed_points(GaussianMixture(p=0.6), RULE, Adversary(1.6))
    (ax,) = plot(points).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$R$", "$b$")
    stable, unstable = ax.lines
    np.testing.assert_array_equal(stable.get_ydata(), points.b[points.stable])
    np.testing.assert_array_equal(unstable.get_ydata(), points.b[~points.stable])
    assert (stable.get_marker(), unstable.get_marker()) == ("o", "s")


@pytest.mark.parametrize(("p", "kind"), [(0.5, "pitchfork"), (0.6, "fold")])
def test_branches_are_solid_where_stable_and_reach_their_bifurcation(p: float, kind: str) -> None:
    found = branches(GaussianMixture(p=p), RULE, Adversary(), values=np.linspace(0, 2, 17))
    figure = plot(found)
    assert texts(figure) == ["stable", "unstable", kind]
    place = found.bifurcation_epsilon.item()
    for ax, name in zip(figure.axes, "Rb", strict=True):
        drawn: dict[str, set[Any]] = {"-": set(), "--": set()}
        ends = 0
        for line in curves(ax):
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            here = x != place
            ends += int((~here).sum())
            drawn["-" if line.get_linestyle() == "-" else "--"] |= {*zip(x[here], y[here], strict=True)}
            np.testing.assert_array_equal(y[~here], found[f"bifurcation_{name}"].item())
        for dash, chosen in (("-", found.stable), ("--", ~found.stable)):
            values = found[name].where(chosen).stack(point=("branch", "epsilon")).dropna("point")
            assert drawn[dash] == {*zip(values.epsilon.values.tolist(), values.values.tolist(), strict=True)}
        assert ends == (4 if kind == "pitchfork" else 2)  # three stable and one unstable branch meet, or one of each
        (mark,) = (line for line in ax.lines if line.get_marker() in ("o", "D"))
        assert (mark.get_xdata(), mark.get_ydata()) == ([place], [found[f"bifurcation_{name}"].item()])


def test_a_boundary_has_the_number_of_stable_fixed_points_on_each_side() -> None:
    found = phase_boundary(GaussianMixture(p=0.6), RULE, parameter="rho", values=np.linspace(1, 4, 7))
    (ax,) = plot(found).axes
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.epsilon.isel(bifurcation=0))
    written = {text.get_text(): text.get_position() for text in ax.texts}
    assert set(written) == {"1 stable", "2 stable"}
    for text, (rho, epsilon) in written.items():
        assert (epsilon > np.interp(rho, found.rho, found.epsilon[0])) == (text == "2 stable")


def test_phases_have_the_number_of_stable_fixed_points_in_them() -> None:
    over = {"epsilon": np.linspace(0, 2, 9), "rho": np.linspace(1, 4, 12)}
    found = sweep(GaussianMixture(p=0.6), RULE, Adversary(), over=over, compute="equilibria")
    (ax,) = plot(found).axes
    assert {text.get_text() for text in ax.texts} == {"1 stable", "2 stable"}
    count = found.stable.sum("fixed_point")
    for text in ax.texts:
        epsilon, rho = text.get_position() if ax.get_xlabel() == r"$\varepsilon$" else text.get_position()[::-1]
        assert f"{count.sel(rho=rho, epsilon=epsilon).item()} stable" == text.get_text()


def test_a_boundary_lies_on_maps_of_the_same_model_alone() -> None:
    over = {"rho": np.linspace(1, 4, 8), "epsilon": np.linspace(0, 2, 9)}
    maps = sweep(MIXTURE, RULE, Adversary(), over=over, alpha=[20.0])
    line = phase_boundary(MIXTURE, RULE, parameter="rho", values=np.linspace(1, 4, 7))
    ax = plot(maps, line).axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), line.epsilon[0])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), line.rho)
    other = phase_boundary(GaussianMixture(p=0.6), RULE, parameter="rho", values=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"the boundary has p = 0\.6, and the map 0\.7: allowed is the same model"):
        plot(maps, other)
    with pytest.raises(ValueError, match="allowed is the same plane"):
        plot(maps, phase_boundary(MIXTURE, RULE, parameter="eta_w", values=[0.01, 0.02]))


def test_what_does_not_go_into_one_picture() -> None:
    curve = robustness_curve(0.9, 0.1, MIXTURE)
    found = branches(MIXTURE, RULE, Adversary(), values=[0.0, 1.0])
    with pytest.raises(ValueError, match="do not go into one picture"):
        plot(ATTACKED, curve)
    with pytest.raises(ValueError, match="do not go into one picture"):
        plot(found, ATTACKED)
    with pytest.raises(ValueError, match="nothing to draw"):
        plot()
    with pytest.raises(TypeError, match="allowed are Datasets"):
        plot([1.0])  # type: ignore[arg-type]
    study = ATTACKED.assign_attrs(study="scenario2")
    with pytest.raises(ValueError, match="the result of the study 'scenario2'"):
        plot(study)
