"""How the mean and the variance over runs of R and b approach the theory with N: both differences fall as 1/N.

Large learning rates, because the deviation of the mean is small: at those of the two scenarios it is below 0.5/N.
Reduced simulation, at a cost per step that does not depend on N, for N = 10 to 10^6. The exponents are the slopes of
weighted least-squares fits in logarithms, with weights from the standard errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, simulate
from odeflow.parameters import label
from odeflow.plot import Look, clear_legend, label_panels, looks, new_figure, style, symbol
from odeflow.provenance import provenance
from studies.common.power import altered, noticed_changes, power_lines
from studies.registry import Claim, Outcome, contest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STUDIES = [
    {
        "name": "finite_size",
        "title": "how mean and variance of R and b at finite N approach the theory",
        "place": 30,
    },
]

SIZES = (10, 20, 50, 100, 200, 500, 1000, 10_000, 100_000, 1_000_000)
ALPHA = 2.0
SEED = 20260102
# Terms of order 1/N^2 bend the lines at small N: what a slope may differ from -1 beyond its standard errors, and where
# the fits begin. The fit of the mean ends where its deviation is lost in the standard error.
CURVATURE = 0.1
SMALLEST = 50
SLOWER = -0.6  # an exponent that the fits must tell from -1
LARGEST_OF_MEAN = 1000
VARIABLES = ("R", "b")


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    model = (GaussianMixture(p=0.7), LearningRule(eta_w=4.0, eta_b=3.0), Adversary(0.9))
    most, examples, beyond = (60_000, 5e7, 1e7) if quick else (200_000, 4e8, 4e8)
    limits = [examples if N <= LARGEST_OF_MEAN else beyond for N in SIZES]
    runs = [int(max(min(most, limit / (N * ALPHA)), 128)) for N, limit in zip(SIZES, limits, strict=True)]
    theory = integrate(*model, alpha=[ALPHA]).isel(alpha=0)
    seeds = np.random.SeedSequence(SEED).spawn(len(SIZES))
    samples = [
        simulate(*model, N=N, alpha=[ALPHA], runs=count, rng=seed).isel(alpha=0)
        for N, count, seed in zip(SIZES, runs, seeds, strict=True)
    ]
    data = xr.Dataset(coords={"N": list(SIZES), "runs": ("N", runs)})
    for variable in VARIABLES:
        values = [sample[variable].values for sample in samples]
        variance = np.array([np.var(x, ddof=1) for x in values])
        fourth = np.array([np.mean((x - x.mean()) ** 4) for x in values])
        data[variable] = ("N", [x.mean() for x in values], _attrs(f"mean of {variable} over the runs"))
        data[f"{variable}_standard_error"] = ("N", np.sqrt(variance / runs), _attrs(f"standard error of {variable}"))
        data[f"{variable}_variance"] = ("N", variance, _attrs(f"variance of {variable} over the runs"))
        error = np.sqrt((fourth - variance**2) / runs)
        data[f"{variable}_variance_standard_error"] = ("N", error, _attrs(f"standard error of {variable}_variance"))
        data[f"{variable}_theory"] = ((), float(theory[variable]), _attrs(f"{variable} as N grows"))
    data.runs.attrs = _attrs("number of runs")
    data.attrs = provenance(f"studies.{name}", *model, seed=str(SEED), alpha=ALPHA, runs=runs)

    claims, rows = [], []
    for text, quantity, error in _quantities(data):
        last = quantity.N.values[-1]
        scaled = f"{last * float(quantity[-1]):.3f} +- {last * float(error[-1]):.3f} (N = {last:g})"
        rows.append(f"{text:20}{_judge(quantity, error)[0]:>20}{scaled:>34}")
        flat = float(quantity[0]) * (quantity.N / quantity.N[0]) ** SLOWER
        claims.append(
            contest(
                f"{text} falls as N^-1, within 4 standard errors + {CURVATURE}",
                lambda one: _judge(*one),
                (quantity, error),
                rival=f"a law N^{SLOWER:g} with the same relative errors",
                against=(flat, error / quantity * flat),
            )
        )
    claims.append(_theory_claim(data, model))
    data["noticed"] = noticed_changes(
        lambda parameter, factor: _levels(data, integrate(*altered(model, parameter, factor), alpha=[ALPHA]))[1]
    )
    table = "\n".join(
        [
            f"{'':20}{'exponent':>20}{'N times it':>34}",
            *rows,
            "",
            *power_lines(data.noticed, "that both means fall as N^-1"),
        ]
    )
    return Outcome(label(data), _figure(data), table, tuple(claims))


def _judge(quantity: xr.DataArray, error: xr.DataArray) -> tuple[str, bool]:
    slope, slope_error = _slope(quantity, error)
    return f"N^{slope:.3f} +- {slope_error:.3f}", abs(slope + 1) <= 4 * slope_error + CURVATURE


def _levels(data: xr.Dataset, theory: xr.Dataset) -> tuple[str, bool]:
    """Fit the differences of the means from a theory: they level off if it is wrong."""
    end = theory.isel(alpha=0, drop=True)
    changed = data.assign({f"{name}_theory": end[name] for name in VARIABLES})
    found = [_judge(quantity, error) for text, quantity, error in _quantities(changed) if "mean" in text]
    return ", ".join(text for text, _ in found), all(holds for _, holds in found)


def _theory_claim(data: xr.Dataset, model: tuple[GaussianMixture, LearningRule, Adversary]) -> Claim:
    wrong = altered(model, "rho", 1.01)
    return contest(
        "and so do both differences of the mean together, which would level off at what the theory is wrong by",
        lambda theory: _levels(data, theory),
        integrate(*model, alpha=[ALPHA]),
        rival="the theory for rho larger by 1 %",
        against=integrate(*wrong, alpha=[ALPHA]),
    )


def _attrs(long_name: str) -> dict[str, str]:
    return {"long_name": long_name, "units": "1"}


def _quantities(data: xr.Dataset) -> list[tuple[str, xr.DataArray, xr.DataArray]]:
    """Return what should fall as 1/N, with its standard error, where it is fitted."""
    found = []
    for variable in VARIABLES:
        of_mean = data.sel(N=slice(SMALLEST, LARGEST_OF_MEAN))
        gap = abs(of_mean[variable] - of_mean[f"{variable}_theory"])
        found.append((f"|mean {variable} - theory|", gap, of_mean[f"{variable}_standard_error"]))
        of_variance = data.sel(N=slice(SMALLEST, None))
        error = of_variance[f"{variable}_variance_standard_error"]
        found.append((f"variance of {variable}", of_variance[f"{variable}_variance"], error))
    return found


def _slope(quantity: xr.DataArray, error: xr.DataArray) -> tuple[float, float]:
    """Fit log quantity = slope log N + constant by weighted least squares; return the slope and its standard error."""
    x = np.log(quantity.N.values.astype(float))
    y = np.log(quantity.values)
    weight = quantity.values / error.values  # one over the standard error of y
    design = np.stack([x, np.ones_like(x)], axis=1) * weight[:, None]
    coefficients = np.linalg.lstsq(design, y * weight)[0]
    covariance = np.linalg.inv(design.T @ design)
    return float(coefficients[0]), float(np.sqrt(covariance[0, 0]))


def _figure(data: xr.Dataset) -> Figure:
    figure, axes = new_figure(1, 2, width="double", height=2.6)
    with style():
        chosen = looks(len(VARIABLES))
    for look, variable in zip(chosen, VARIABLES, strict=True):
        gap = abs(data[variable] - data[f"{variable}_theory"])
        _draw(axes[0, 0], gap, data[f"{variable}_standard_error"], variable, look, LARGEST_OF_MEAN)
        variance = data[f"{variable}_variance"]
        _draw(axes[0, 1], variance, data[f"{variable}_variance_standard_error"], variable, look, max(SIZES))
    axes[0, 0].set(ylabel=r"$|\mathrm{mean} - \mathrm{theory}|$")
    axes[0, 1].set(ylabel="variance over runs")
    for ax in axes[0]:
        ax.set(xscale="log", yscale="log", xlabel="$N$")
        with style():
            ax.legend()
    with style():
        label_panels(axes.flat)
        for ax in axes.flat:
            clear_legend(figure, ax)
    return figure  # type: ignore[no-any-return]


def _draw(ax: Axes, values: xr.DataArray, errors: xr.DataArray, variable: str, look: Look, largest: int) -> None:
    """Draw what is above its noise as points with standard errors, and a line c/N through them."""
    shown = values.where((values > 2 * errors) & (largest >= values.N), drop=True)
    bars = errors.sel(N=shown.N)
    N = shown.N.values
    with style():
        ax.errorbar(N, shown, yerr=bars, **look.points(), label=f"{symbol(variable)}, mean and s.e. of runs")
    weights = (shown / bars) ** 2 * (shown.N >= SMALLEST)
    c = np.exp(np.average(np.log(shown * N), weights=weights))
    ax.plot(N, c / N, **look.line(), label=rf"${c:.2f}/N$")
