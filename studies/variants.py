"""Variants of the attack and of the learning rule, each in theory and in simulation, in scenario 2.

Above: whom the adversary attacks, and how hard. Below: what is learned from an attacked example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, simulate
from odeflow.laws import Uniform
from odeflow.parameters import LABELS, label
from odeflow.plot import draw_lines, draw_points, label_panels, looks, new_figure, style, symbol
from odeflow.provenance import provenance
from studies.common.power import CHANGES, PARAMETERS, altered, noticed_changes
from studies.common.tables import allowed_share
from studies.registry import Claim, Outcome, contest

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
STATE = ("cosine", "bias", "length")  # E and S follow from them
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
    for variable in dict.fromkeys((*VARIABLES, *STATE)):
        data[f"simulated_{variable}"] = points[variable]
    data["noticed"] = xr.concat([_power(data, key, coarse) for key in VARIANTS], data.variant)
    settings = {key: f"{rule}, {adversary}" for key, (rule, adversary) in VARIANTS.items()}
    data.attrs = provenance(
        f"studies.{name}", MIXTURE, seed=str(SEED), N=N, runs=runs, variants=settings, test_epsilon=TEST_EPSILON
    )
    return Outcome(data, _figure(data), _table(data), tuple(_claim(data, key, runs) for key in VARIANTS))


def _classifier(result: xr.Dataset) -> xr.Dataset:
    """Return what describes the classifier: cosine R / sqrt(Q), bias b / sqrt(Q), length sqrt(Q), and the errors."""
    length = np.sqrt(result.Q) if "Q" in result else xr.ones_like(result.R)
    data = result[["error", "adversarial_error"]].reset_coords(drop=True)
    names = {
        "cosine": LABELS["cosine"][0],
        "bias": "bias in units of the length of the weights",
        "length": "length of the weights",
    }
    for (name, text), values in zip(names.items(), (result.R / length, result.b / length, length), strict=True):
        data[name] = values.reset_coords(drop=True)
        data[name].attrs = {"long_name": text, "units": "1"}
    return label(data)


def _largest(data: xr.Dataset, variant: str, expected: xr.Dataset) -> tuple[float, str]:
    """Return the largest difference of a variant's simulations from a theory, in units of what is allowed, and of what."""
    one = data.sel(variant=variant)
    simulated = {name: one[f"simulated_{name}"] for name in STATE}
    ratios = {
        name: float(allowed_share(values, expected[name].sel(alpha=values.simulated_alpha), ALLOWANCE).max())
        for name, values in simulated.items()
    }
    worst = max(ratios, key=lambda name: ratios[name])
    return ratios[worst], worst


def _power(data: xr.Dataset, variant: str, alpha: npt.NDArray[np.float64]) -> xr.DataArray:
    """Return which error of a parameter the claim of a variant would notice."""
    parameters = [name for name in PARAMETERS if name != "epsilon" or VARIANTS[variant][1].epsilon]

    def holds(parameter: str, factor: float) -> bool:
        model = altered((MIXTURE, *VARIANTS[variant]), parameter, factor)
        theory = _classifier(integrate(*model, alpha=alpha, test_epsilon=TEST_EPSILON))
        return _largest(data, variant, theory)[0] <= 1

    return noticed_changes(holds, parameters).reindex(parameter=list(PARAMETERS))


def _claim(data: xr.Dataset, variant: str, runs: int) -> Claim:
    others = {key: data.sel(variant=key) for key, model in VARIANTS.items() if model != VARIANTS[variant]}

    def test(theory: xr.Dataset) -> tuple[str, bool]:
        worst, name = _largest(data, variant, theory)
        return f"largest difference is {worst:.2f} of that ({name})", worst <= 1

    nearest = min(others, key=lambda key: _largest(data, variant, others[key]))
    return contest(
        f"{variant}: mean cosine, bias and length of {runs} runs at N = {N} within 4 standard errors + {ALLOWANCE * N:g}/N of "
        "the theory",
        test,
        data.sel(variant=variant),
        rival=f"the theory of the nearest of the other variants, {nearest}",
        against=others[nearest],
    )


def _table(data: xr.Dataset) -> str:
    lines = [f"{'alpha = 100':42}" + "".join(f"{text:>10}" for text in ("cosine", "E", f"S({TEST_EPSILON:g})"))]
    for variant in VARIANTS:
        final = data.sel(variant=variant).isel(alpha=-1)
        lines.append(f"{variant:42}" + "".join(f"{float(final[name]):10.4f}" for name in VARIABLES))
    lines += ["", f"{'least error of a parameter that is noticed':42}" + "".join(f"{name:>9}" for name in PARAMETERS)]
    for variant in VARIANTS:  # of both signs the one that is noticed later
        later = data.noticed.sel(variant=variant).max("sign", skipna=False).values
        lines.append(f"{variant:42}" + "".join(f"{'none' if np.isnan(one) else f'{one:.1%}':>9}" for one in later))
    return "\n".join(
        [*lines, f"(relative, of either sign; none: up to {max(CHANGES):.0%} not, or p out of range, or epsilon 0)"]
    )


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
