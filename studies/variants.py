"""Variants of the attack and of the learning rule, each in theory and in simulation, in scenario 2.

Above: whom the adversary attacks, and how hard. Below: what is learned from an attacked example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, simulate
from odeflow.laws import Uniform
from odeflow.parameters import LABELS, label
from odeflow.plot import draw_lines, draw_points, label_panels, looks, new_figure, style, symbol
from odeflow.provenance import provenance
from studies.common.tables import allowed_share
from studies.registry import Claim, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Variant = tuple[LearningRule, Adversary]

STUDIES = [
    {
        "name": "variants",
        "title": "variants of the attack and of the rule: theory through Monte Carlo",
        "place": 40,
    },
]

MIXTURE = GaussianMixture(p=0.7)
ATTACKS: dict[str, Variant] = {
    "no attack": (LearningRule(), Adversary(0.0)),
    "every example": (LearningRule(), Adversary(1.0)),
    "half of the examples": (LearningRule(), Adversary(1.0, fraction=0.5)),
    "epsilon uniform in [0, 2]": (LearningRule(), Adversary(1.0, law=Uniform(0.0, 2.0))),
    "update if the attack succeeds": (LearningRule(update="non_robust"), Adversary(1.0)),
}
RULES: dict[str, Variant] = {
    "squared loss, erf": (LearningRule(), Adversary(1.0)),
    "squared loss, tanh": (LearningRule(activation="tanh"), Adversary(1.0)),
    "hinge loss": (LearningRule(loss="hinge", activation="linear"), Adversary(1.0)),
    "logistic loss": (LearningRule(loss="logistic", activation="linear"), Adversary(1.0)),
    "perceptron": (LearningRule(loss="perceptron", activation="sign"), Adversary(1.0)),
    "logistic loss, free |w|": (LearningRule(loss="logistic", activation="linear", normalised=False), Adversary(1.0)),
}
VARIANTS = {f"attack: {name}": variant for name, variant in ATTACKS.items()} | {
    f"rule: {name}": variant for name, variant in RULES.items()
}
TITLES = {"attack": "whom the adversary attacks", "rule": "what is learned"}
VARIABLES = ("cosine", "error", "adversarial_error")
TEST_EPSILON = 1.0
N = 1000
SEED = 20260103
# The term of order 1/N of the mean (study finite_size).
ALLOWANCE = 1 / N


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    runs = 20 if quick else 100
    seeds = np.random.SeedSequence(SEED).spawn(len(VARIANTS))
    fine, coarse = np.linspace(0, 100, 101), np.linspace(0, 100, 11)
    theory, simulation = [], []
    for (rule, adversary), seed in zip(VARIANTS.values(), seeds, strict=True):
        parts = (MIXTURE, rule, adversary)
        theory.append(_classifier(integrate(*parts, alpha=fine, test_epsilon=TEST_EPSILON)))
        sample = simulate(*parts, N=N, alpha=coarse, runs=runs, rng=seed, test_epsilon=TEST_EPSILON)
        simulation.append(_classifier(sample))
    variant = xr.DataArray(list(VARIANTS), dims="variant", name="variant", attrs={"long_name": "variant", "units": "1"})
    data = xr.concat(theory, variant)
    points = xr.concat(simulation, variant).rename(alpha="simulated_alpha")
    for variable in VARIABLES:
        data[f"simulated_{variable}"] = points[variable]
    settings = {key: f"{rule}, {adversary}" for key, (rule, adversary) in VARIANTS.items()}
    data.attrs = provenance(
        f"studies.{name}", MIXTURE, seed=str(SEED), N=N, runs=runs, variants=settings, test_epsilon=TEST_EPSILON
    )
    return Outcome(data, _figure(data), _table(data), tuple(_claim(data, key) for key in VARIANTS))


def _classifier(result: xr.Dataset) -> xr.Dataset:
    """Return what describes the classifier whatever its length: the cosine R / sqrt(Q), and the errors."""
    length = np.sqrt(result.Q) if "Q" in result else 1.0
    data = result[["error", "adversarial_error"]].reset_coords(drop=True)
    data["cosine"] = (result.R / length).reset_coords(drop=True)
    data["cosine"].attrs = {"long_name": LABELS["cosine"][0], "units": "1"}
    return label(data)


def _claim(data: xr.Dataset, variant: str) -> Claim:
    one = data.sel(variant=variant)
    worst = 0.0
    for variable in VARIABLES:
        simulated = one[f"simulated_{variable}"]
        expected = one[variable].sel(alpha=simulated.simulated_alpha)
        worst = max(worst, float(allowed_share(simulated, expected, ALLOWANCE).max()))
    return Claim(
        f"{variant}: mean at N = {N} within 4 standard errors + {ALLOWANCE * N:g}/N of the theory",
        f"largest difference is {worst:.2f} of that",
        worst <= 1,
        rival="the theory of any other variant shown that is not the same one: at least five times what is allowed",
    )


def _table(data: xr.Dataset) -> str:
    lines = [f"{'alpha = 100':42}" + "".join(f"{text:>10}" for text in ("cosine", "E", f"S({TEST_EPSILON:g})"))]
    for variant in VARIANTS:
        final = data.sel(variant=variant).isel(alpha=-1)
        lines.append(f"{variant:42}" + "".join(f"{float(final[name]):10.4f}" for name in VARIABLES))
    return "\n".join(lines)


def _figure(data: xr.Dataset) -> Figure:
    figure, axes = new_figure(2, 3, width="double", height=4.4)
    for row, (kind, variants) in enumerate((("attack", ATTACKS), ("rule", RULES))):
        with style():
            chosen = looks(len(variants))
        for look, name in zip(chosen, variants, strict=True):
            one = data.sel(variant=f"{kind}: {name}")
            text = name.replace("epsilon", r"$\varepsilon$").replace("|w|", "$|w|$")
            for ax, variable in zip(axes[row], VARIABLES, strict=True):
                draw_lines(one[variable], ax, label=text, **look.line())
                points = one[f"simulated_{variable}"].rename(simulated_alpha="alpha")
                draw_points(points, ax, **look.points())
        with style():
            axes[row, 0].set_ylabel(symbol("cosine"))
            axes[row, 1].set_ylabel("classification error $E$")
            axes[row, 2].set_ylabel(r"adversarial error $S$, $\varepsilon_\mathrm{test}=1$")
            handles, texts = _entries(axes[row, 0], variants)
            axes[row, 2].legend(handles, texts, loc="upper left", bbox_to_anchor=(1.0, 1.0), title=TITLES[kind])
    with style():
        label_panels(axes.flat)
        figure.suptitle(rf"lines: theory; points: $N={N}$, mean and s.d. of {data.sizes['run']} runs", fontsize=7)
    return figure  # type: ignore[no-any-return]


def _entries(ax: Axes, variants: dict[str, Variant]) -> tuple[list[Any], list[str]]:
    """Return what a legend says: a line with its mark for each variant."""
    from matplotlib.lines import Line2D

    _, texts = ax.get_legend_handles_labels()
    marks = [
        Line2D([], [], **look.line(), marker=look.marker, markerfacecolor="white") for look in looks(len(variants))
    ]
    return marks, texts
