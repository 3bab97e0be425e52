"""Where adversarial training ends, over the perturbation and the separation of the classes.

Each panel is one mixture. The colour is the adversarial error, at the training's epsilon, of the end state that is
approached from R = b = 0 (p = 1/2: from an infinitesimal b, as in a finite system). The lines are the bifurcations at
which end states appear or vanish, followed as solutions of their own equations, not read off the colours. Dotted: beyond
it the end state is approached more slowly than in 10^6 examples per dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    adversarial_error,
    classification_error,
    critical_epsilon,
    end_states_batch,
    fixed_points_batch,
    integrate_batch,
    jacobian,
    phase_boundary,
    runaway_direction,
)
from odeflow.model import parameters
from odeflow.parameters import label
from odeflow.plot import label_panels, new_figure, style, symbol
from odeflow.provenance import provenance
from studies.common.tables import describe
from studies.registry import Claim, Outcome, contest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STUDIES = [
    {
        "name": "phase_diagram",
        "title": "where adversarial training ends: adversarial error, phases, boundaries",
        "place": 50,
    },
]

MIXTURES = {
    "equal": GaussianMixture(p=0.5),
    "p06": GaussianMixture(p=0.6),
    "p07": GaussianMixture(p=0.7),
    "unequal": GaussianMixture(p=0.3, v1=1.0, v2=2.0),
}
RULE = LearningRule()
SYMMETRY_BREAKING = 1e-6  # b(0) at p = 1/2
SLOW = 1e6  # relaxation time of the dotted line


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    points = 31 if quick else 121
    epsilon, rho = np.linspace(0, 3, points), np.linspace(0.05, 4, points)
    panels = [_panel(mixture, epsilon, rho) for mixture in MIXTURES.values()]
    data = xr.concat(panels, xr.DataArray(list(MIXTURES), dims="panel", name="panel"), join="outer")
    mixtures = {key: parameters(mixture) for key, mixture in MIXTURES.items()}
    data.attrs = provenance(f"studies.{name}", RULE, seed="none", mixtures=mixtures, b0=SYMMETRY_BREAKING)
    data = label(data)
    names = {
        "stable": "number of stable fixed points with finite bias",
        "relaxation_time": "relaxation time of the end state, examples per dimension",
        "stable_below": "number of stable fixed points just below the boundary",
        "stable_above": "number of stable fixed points just above the boundary",
        "boundary": "epsilon at which the number of stable fixed points changes",
        "panel": "mixture",
        "bifurcation": "number of the boundary, in rising order of b",
    }
    describe(data, names)
    return Outcome(data, _figure(data), _table(), tuple(_claims(data)))


def _panel(mixture: GaussianMixture, epsilon: Any, rho: Any) -> xr.Dataset:
    """Return the end states and the boundaries of one mixture."""
    model: dict[str, Any] = {**parameters(mixture, RULE), "epsilon": epsilon, "rho": rho[:, None]}
    shape = rho.size, epsilon.size
    end = end_states_batch(**model, b0=SYMMETRY_BREAKING if mixture.p == 0.5 else 0.0)
    fixed = fixed_points_batch(**model)
    same = np.isclose(fixed.b, end.b[:, None], rtol=1e-6, atol=1e-9)
    rate = np.max(np.where(same, -fixed.eigenvalues.real.max(axis=2), -np.inf), axis=1)
    dims = ("rho", "epsilon")
    R, b = (xr.DataArray(values.reshape(shape), dims=dims) for values in (end.R, end.b))
    separation = xr.DataArray(rho, dims="rho")
    # the errors depend on rho R and the mixture's other parameters: take rho R/2 as the margin of separation 2
    margin = R * separation / 2
    reference = GaussianMixture(p=mixture.p, rho=2 * float(rho.max()), v1=mixture.v1, v2=mixture.v2)
    scaled = margin / (reference.rho / 2)
    attacked = xr.DataArray(epsilon, dims="epsilon")
    curves = phase_boundary(mixture, RULE, parameter="rho", values=rho)
    with np.errstate(divide="ignore", over="ignore"):
        time = np.where(np.isinf(end.b), np.inf, 1 / np.maximum(rate, 0))
    return xr.Dataset(
        {
            "R": R,
            "b": b,
            "error": classification_error(scaled, b, reference),
            "adversarial_error": adversarial_error(scaled, b, reference, attacked),
            "stable": (dims, fixed.stable.sum(axis=1).reshape(shape).astype(float)),
            "relaxation_time": (dims, time.reshape(shape)),
            "boundary": (("bifurcation", "rho"), curves.epsilon.values),
            "stable_below": (("bifurcation", "rho"), curves.stable_below.values),
            "stable_above": (("bifurcation", "rho"), curves.stable_above.values),
        },
        {"rho": rho, "epsilon": epsilon, "bifurcation": np.arange(curves.sizes["bifurcation"])},
    )


def _claims(data: xr.Dataset) -> Iterator[Claim]:
    step = float(data.epsilon.diff("epsilon")[0])

    def separated(boundary: xr.DataArray) -> tuple[str, bool]:
        wrong = _wrongly_separated(data, boundary)
        return f"{wrong} of {data.stable.size} wrong", wrong == 0

    yield contest(
        "the located boundaries separate the numbers of stable fixed points at every grid point",
        separated,
        data.boundary,
        rival="boundaries that are off by one step of the grid",
        against=data.boundary + step,
    )

    def marginal(off: float) -> tuple[str, bool]:
        sizes = [_marginal(mixture, off) for mixture in MIXTURES.values()]
        return ", ".join(f"{value:.1e}" for value in sizes), max(sizes) < 1e-5

    yield contest(
        "at the located bifurcations an eigenvalue vanishes, to 1e-5 of the other (folds: a square root of rounding)",
        marginal,
        0.0,
        rival="bifurcations off by 0.001 in epsilon",
        against=1e-3,
    )

    def reached(b0: float) -> tuple[str, bool]:
        difference, compared = _against_integration(data, b0)
        return f"{difference:.1e} at {compared} points", difference < 1e-5

    yield contest(
        "end states that relax within 1,000 agree with integration to alpha = 50,000, to 1e-5",
        reached,
        0.0,
        rival="integration from b(0) = -1, which ends in another state where there are two",
        against=-1.0,
    )

    def favours(exchanged: bool) -> tuple[str, bool]:
        largest = max(_largest_bias(data, panel, exchanged) for panel in ("p06", "p07"))
        return f"largest b {largest:.2f}", largest < 0

    yield contest(
        "for p > 1/2 and equal variances the end state favours the majority",
        favours,
        False,
        rival="the end states with the priors exchanged",
        against=True,
    )


def _wrongly_separated(data: xr.Dataset, boundary: xr.DataArray) -> int:
    """Return at how many points the number of stable fixed points is not that between the boundaries."""
    below = boundary < data.epsilon
    last = boundary.where(below, -np.inf).max("bifurcation")
    first = boundary.where(~below, np.inf).min("bifurcation")
    predicted = (
        data.stable_above.where(boundary == last)
        .max("bifurcation")
        .fillna(data.stable_below.where(boundary == first).max("bifurcation"))
        .fillna(1)  # no boundary at this rho
    )
    near = (abs(boundary - data.epsilon) < 1e-9).any("bifurcation")
    return int(((predicted != data.stable) & ~near).sum())


def _marginal(mixture: GaussianMixture, off: float) -> float:
    """Return the size of the smaller eigenvalue relative to the larger at the bifurcations of a mixture at rho = 2."""
    worst = 0.0
    located = critical_epsilon(mixture, RULE)
    for R, b, epsilon in zip(located.R.values, located.b.values, located.epsilon.values, strict=True):
        sizes = np.abs(np.linalg.eigvals(jacobian(R, b, mixture, RULE, Adversary(float(epsilon) + off))))
        worst = max(worst, float(sizes.min() / sizes.max()))
    return worst


def _largest_bias(data: xr.Dataset, panel: str, exchanged: bool) -> float:
    """Return the largest bias of the end states of a panel, or of some of them with the classes' priors exchanged."""
    if not exchanged:
        return float(data.b.sel(panel=panel).max())
    some = data.isel(rho=slice(1, None, 8), epsilon=slice(None, None, 8))
    mixture = replace(MIXTURES[panel], p=1 - MIXTURES[panel].p)
    model: dict[str, Any] = parameters(mixture, RULE)
    end = end_states_batch(**model | {"epsilon": some.epsilon.values, "rho": some.rho.values[:, None]})
    return float(np.max(end.b))


def _against_integration(data: xr.Dataset, b0: float) -> tuple[float, int]:
    """Return the largest difference of R and b from a long integration, and the number of points compared."""
    worst, compared = 0.0, 0
    for panel, mixture in MIXTURES.items():
        some = data.sel(panel=panel).isel(rho=slice(1, None, 8), epsilon=slice(None, None, 8))
        model: dict[str, Any] = parameters(mixture, RULE)
        model |= {"epsilon": some.epsilon.values, "rho": some.rho.values[:, None]}
        start = b0 or (SYMMETRY_BREAKING if mixture.p == 0.5 else 0.0)
        y = integrate_batch(**model, b0=start, alpha=[5e4]).y[:, 0]
        soon = some.relaxation_time.values.ravel() < 1e3
        gap = np.abs(y - np.stack([some.R.values.ravel(), some.b.values.ravel()], axis=1))[soon]
        worst, compared = max(worst, float(gap.max())), compared + int(soon.sum())
    return worst, compared


def _table() -> str:
    lines = [f"{'p':>4}{'v1':>5}{'v2':>5}{'far bias':>10}  epsilon_c at rho = 2"]
    for mixture in MIXTURES.values():
        located = ", ".join(f"{value:.8f}" for value in critical_epsilon(mixture, RULE).epsilon.values)
        far = {0: "returns", 1: "to +inf", -1: "to -inf"}[runaway_direction(mixture)]
        lines.append(f"{mixture.p:4g}{mixture.v1:5g}{mixture.v2:5g}{far:>10}  {located}")
    return "\n".join(lines)


def _figure(data: xr.Dataset) -> Figure:
    figure, axes = new_figure(1, len(MIXTURES), width="double", height=2.3)
    texts = {
        "equal": [(0.75, 3.2, "$b=0$"), (2.3, 1.0, r"$b=\pm b^*$")],
        "p06": [(0.75, 3.2, "one"), (2.45, 1.0, "two")],
        "p07": [(0.75, 3.2, "one"), (2.45, 1.0, "two")],
        "unequal": [(0.45, 3.5, "one"), (1.5, 2.3, "none"), (2.35, 1.0, "one, not\nreached")],
    }
    with style():
        for ax, (panel, mixture) in zip(axes[0], MIXTURES.items(), strict=True):
            one = data.sel(panel=panel)
            colours = ax.pcolormesh(
                one.epsilon,
                one.rho,
                one.adversarial_error,
                vmin=0,
                vmax=0.7,
                cmap="magma",
                shading="nearest",
                rasterized=True,
            )
            _lines(ax, one)
            for x, y, text in texts[panel]:
                ax.text(x, y, text, color="white", ha="center", va="center", fontsize=7)
            variances = "" if mixture.v1 == mixture.v2 else f", $v_2={mixture.v2:g}$"
            ax.set(xlabel=symbol("epsilon"), xlim=(0, 3), ylim=(float(one.rho.min()), float(one.rho.max())))
            ax.set_title(f"$p={mixture.p:g}${variances}", fontsize=8)
        for ax in axes[0, 1:]:
            ax.set_yticklabels([])
        axes[0, 0].set_ylabel(symbol("rho"))
        bar = figure.colorbar(colours, ax=list(axes[0]), pad=0.01, aspect=25)
        bar.set_label("adversarial error", fontsize=8)
        label_panels(axes[0])
    return figure  # type: ignore[no-any-return]


def _lines(ax: Axes, one: xr.Dataset) -> None:
    """Draw the boundaries, and where the end state becomes too slow to be seen."""
    for curve in one.boundary:
        ax.plot(curve, one.rho, color="white")
    slow = np.log10(np.minimum(one.relaxation_time, 1e300))
    ax.contour(one.epsilon, one.rho, slow, levels=[np.log10(SLOW)], colors="white", linestyles=":", linewidths=0.9)
