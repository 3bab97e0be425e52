"""What adversarial training buys and what it costs: classification error against adversarial error.

Left: the end state of training as its epsilon grows, in the plane of the classification error and the adversarial error
at a fixed test epsilon, and the frontier: no linear classifier is below and to the left of it. Middle: how far the
adversarial error of the end state is above the least possible one, if the training uses the test's epsilon, and if it
uses the best epsilon. Right: which training epsilon that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from odeflow import (
    GaussianMixture,
    LearningRule,
    adversarial_error,
    classification_error,
    end_states_batch,
    optimal_classifier,
)
from odeflow.model import parameters
from odeflow.parameters import LABELS, label
from odeflow.plot import label_panels, looks, new_figure, style, symbol
from odeflow.provenance import provenance
from studies.common.tables import describe
from studies.registry import Claim, Outcome, contest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDIES = [
    {
        "name": "tradeoff",
        "title": "classification error against adversarial error, and the best training epsilon",
        "place": 60,
    },
]

PRIORS = (0.6, 0.7, 0.8)
SHOWN = 0.7  # the prior of the left panel
TESTS = (0.25, 0.5, 0.75)  # its test epsilons
RULE = LearningRule()
LARGEST = 1.6  # training epsilon

Array = npt.NDArray[np.float64]


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    training = np.linspace(0, LARGEST, 61 if quick else 301)
    tests = np.linspace(0, 0.85, 18 if quick else 52)
    parts = [_one_prior(GaussianMixture(p=p), training, tests) for p in PRIORS]
    data = xr.concat(parts, xr.DataArray(list(PRIORS), dims="p", name="p"))
    frontier = _frontier(GaussianMixture(p=SHOWN))
    data = data.merge(frontier)
    data.attrs = provenance(f"studies.{name}", RULE, seed="none", priors=PRIORS, shown=SHOWN, tests=TESTS)
    data = label(data)
    names = {
        "shown_adversarial_error": "adversarial error at the shown test epsilons",
        "least_adversarial_error": "least adversarial error of any linear classifier",
        "matched_adversarial_error": "adversarial error after training with the test's epsilon",
        "best_adversarial_error": "adversarial error after training with the best epsilon",
        "best_epsilon": "training epsilon with the least adversarial error",
        "frontier_error": "classification error on the frontier",
        "frontier_adversarial_error": "adversarial error on the frontier",
        "shown_epsilon": LABELS["test_epsilon"][0],
    }
    describe(data, names)
    return Outcome(data, _figure(data), _table(data), tuple(_claims(data)))


def _end(mixture: GaussianMixture, training: Array) -> tuple[Array, Array]:
    """Return R and b where training from R = b = 0 ends, for each epsilon."""
    model: dict[str, Any] = parameters(mixture, RULE)
    end = end_states_batch(**model, epsilon=training)
    return end.R, end.b


def _one_prior(mixture: GaussianMixture, training: Array, tests: Array) -> xr.Dataset:
    R, b = _end(mixture, training)
    best = [_best_epsilon(mixture, float(test), training) for test in tests]
    matched = adversarial_error(*_end(mixture, tests), mixture, tests)
    least = [float(optimal_classifier(mixture, float(test)).adversarial_error) for test in tests]
    shown = np.stack([adversarial_error(R, b, mixture, test) for test in TESTS])
    return xr.Dataset(
        {
            "R": ("training_epsilon", R),
            "b": ("training_epsilon", b),
            "error": ("training_epsilon", classification_error(R, b, mixture)),
            "shown_adversarial_error": (("shown_epsilon", "training_epsilon"), shown),
            "least_adversarial_error": ("test_epsilon", least),
            "matched_adversarial_error": ("test_epsilon", matched),
            "best_epsilon": ("test_epsilon", [epsilon for epsilon, _ in best]),
            "best_adversarial_error": ("test_epsilon", [error for _, error in best]),
        },
        {"training_epsilon": training, "test_epsilon": tests, "shown_epsilon": list(TESTS)},
    )


def _best_epsilon(mixture: GaussianMixture, test: float, training: Array) -> tuple[float, float]:
    """Return the training epsilon with the least adversarial error, to about 1e-6, and that error."""
    grid = training
    for _ in range(5):
        errors = adversarial_error(*_end(mixture, grid), mixture, test)
        i = int(np.argmin(errors))
        best = float(grid[i]), float(errors[i])
        grid = np.linspace(grid[max(i - 1, 0)], grid[min(i + 1, grid.size - 1)], 21)
    return best


def _frontier(mixture: GaussianMixture) -> xr.Dataset:
    """Return the errors of the linear classifiers that are not beaten in both: R = 1, b between the two optima."""
    share = np.linspace(0, 1, 101)
    errors = []
    for test in TESTS:
        first, last = (float(optimal_classifier(mixture, epsilon).b) for epsilon in (0.0, test))
        b = first + share * (last - first)
        errors.append([classification_error(1.0, b, mixture), adversarial_error(1.0, b, mixture, test)])
    frontier = np.array(errors)
    dims = ("shown_epsilon", "share")
    return xr.Dataset(
        {"frontier_error": (dims, frontier[:, 0]), "frontier_adversarial_error": (dims, frontier[:, 1])},
        {"shown_epsilon": list(TESTS), "share": share},
    )


def _claims(data: xr.Dataset) -> Iterator[Claim]:
    least, best, matched = (
        data[f"{name}_adversarial_error"].transpose("p", "test_epsilon") for name in ("least", "best", "matched")
    )
    yield contest(
        "with the best training epsilon the end state is within 0.004 of the optimum",
        lambda S: (f"largest gap {float((S - least).max()):.4f}", float((S - least).max()) < 0.004),
        best,
        rival="training with the test's epsilon",
        against=matched,
    )
    yield contest(
        "the best training epsilon gains more than 0.01 somewhere against training with the test's epsilon",
        lambda S: (f"up to {float((matched - S).max()):.4f}", float((matched - S).max()) > 0.01),
        best,
        rival="the null, training with the test's epsilon itself",
        against=matched,
    )
    over = data.best_epsilon - data.test_epsilon
    yield contest(
        "the best training epsilon exceeds the test epsilon, by more than the grid's last step",
        lambda by: (f"by {float(by.min()):.3f} to {float(by.max()):.3f}", float(by.min()) > 1e-4),
        over,
        rival="the null that the test's epsilon is the best, to that step",
        against=0 * over,
    )
    mixture = GaussianMixture(p=SHOWN)
    lowest = float(optimal_classifier(mixture).error)
    yield contest(
        "standard training ends within 0.01 of the least classification error",
        lambda error: (f"{error - lowest:.4f}", 0 <= error - lowest < 0.01),
        float(data.error.sel(p=SHOWN).isel(training_epsilon=0)),
        rival="the classifier with R = 1 and b = 0",
        against=float(classification_error(1.0, 0.0, mixture)),
    )


def _table(data: xr.Dataset) -> str:
    lines = [f"{'p':>4}{'test epsilon':>14}{'best training epsilon':>23}{'S':>9}{'S, matched':>12}{'least S':>9}"]
    for p in PRIORS:
        for test in TESTS:
            one = data.sel(p=p).sel(test_epsilon=test, method="nearest")
            lines.append(
                f"{p:4g}{float(one.test_epsilon):14.2f}{float(one.best_epsilon):23.4f}"
                f"{float(one.best_adversarial_error):9.5f}{float(one.matched_adversarial_error):12.5f}"
                f"{float(one.least_adversarial_error):9.5f}"
            )
    return "\n".join(lines)


def _figure(data: xr.Dataset) -> Figure:
    figure, axes = new_figure(1, 3, width="double", height=2.5)
    plane, gaps, best = axes[0]
    with style():
        chosen = looks(max(len(TESTS), len(PRIORS)))
        for test, look in zip(TESTS, chosen, strict=False):
            one = data.sel(p=SHOWN, shown_epsilon=test)
            text = rf"$\varepsilon_\mathrm{{test}}={test:g}$"
            mark: dict[str, Any] = {"color": look.color, "marker": look.marker}
            plane.plot(one.error, one.shown_adversarial_error, color=look.color)
            plane.plot(
                one.frontier_error, one.frontier_adversarial_error, color=look.color, linestyle="--", linewidth=0.9
            )
            matched = one.sel(training_epsilon=test, method="nearest")
            plane.plot(matched.error, matched.shown_adversarial_error, linestyle="", markersize=4, **mark)
            plane.plot([], [], **mark, label=text)
        plane.set(xlabel=symbol("error"), ylabel=symbol("adversarial_error"), title=f"$p={SHOWN:g}$")
        plane.plot([], [], color="0.3", linestyle="--", linewidth=0.9, label="optimal frontier")
        for p, look in zip(PRIORS, chosen, strict=False):
            one = data.sel(p=p)
            every: dict[str, Any] = {
                "color": look.color,
                "marker": look.marker,
                "markevery": 6,
                "markerfacecolor": "white",
            }
            least = one.least_adversarial_error
            gaps.plot(one.test_epsilon, one.matched_adversarial_error - least, **every)
            gaps.plot(
                one.test_epsilon, one.best_adversarial_error - least, linestyle="--", **every | {"linewidth": 0.9}
            )
            best.plot(one.test_epsilon, one.best_epsilon, label=f"$p={p:g}$", **every | look.line() | {"markevery": 8})
        gaps.set(xlabel=symbol("test_epsilon"), ylabel="$S$ above the optimum", yscale="log", ylim=(1e-4, 0.05))
        gaps.plot([], [], color="0.3", label=r"training $\varepsilon=\varepsilon_\mathrm{test}$")
        gaps.plot([], [], color="0.3", linestyle="--", linewidth=0.9, label=r"best training $\varepsilon$")
        best.plot(
            data.test_epsilon,
            data.test_epsilon,
            color="0.6",
            linestyle=":",
            linewidth=0.9,
            label=r"$\varepsilon=\varepsilon_\mathrm{test}$",
        )
        best.set(xlabel=symbol("test_epsilon"), ylabel="best training " + symbol("epsilon"))
        label_panels(axes[0])
        for ax in axes[0]:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.12), ncols=2, columnspacing=0.8)
    return figure  # type: ignore[no-any-return]
