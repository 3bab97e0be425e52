"""How the mean of R and b over runs at finite N approaches the theory: as 1/N.

Large learning rates, because the deviation is small: at those of the two scenarios it is below 0.5/N. Reduced
simulation. The slope of log |mean - theory| against log N
is fitted with weights from the standard errors of the means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, simulate
from odeflow.labels import label
from odeflow.plot import new_figure, style, symbol
from odeflow.provenance import provenance
from studies.registry import Claim, Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (50, 100, 200, 500, 1000)
ALPHA = 2.0
SEED = 20260102
# Terms of order 1/N^2 bend the line at small N: what the slope may differ from -1 beyond its standard errors.
CURVATURE = 0.1


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    model = (GaussianMixture(p=0.7), LearningRule(eta_w=4.0, eta_b=3.0), Adversary(0.9))
    runs = 20_000 if quick else 200_000
    theory = integrate(*model, alpha=[ALPHA]).isel(alpha=0)
    seeds = np.random.SeedSequence(SEED).spawn(len(SIZES))
    means: dict[str, list[float]] = {"R": [], "b": []}
    errors: dict[str, list[float]] = {"R": [], "b": []}
    for N, seed in zip(SIZES, seeds, strict=True):
        simulated = simulate(*model, N=N, alpha=[ALPHA], runs=runs, rng=seed).isel(alpha=0)
        for variable, values in means.items():
            values.append(float(simulated[variable].mean()))
            errors[variable].append(float(simulated[variable].std(ddof=1)) / np.sqrt(runs))
    data = xr.Dataset(
        {variable: ("N", means[variable]) for variable in means}
        | {f"{variable}_standard_error": ("N", errors[variable]) for variable in means}
        | {f"{variable}_theory": theory[variable] for variable in means},
        {"N": list(SIZES)},
        provenance(f"studies.{name}", *model, seed=str(SEED), alpha=ALPHA, runs=runs),
    )
    claims = []
    table = [f"{'':4}{'slope':>16}{'N (mean - theory) at N = 1000':>34}"]
    for variable in means:
        gap = data[variable] - data[f"{variable}_theory"]
        slope, slope_error = _slope(gap, data[f"{variable}_standard_error"])
        last = SIZES[-1] * float(gap[-1]), SIZES[-1] * errors[variable][-1]
        table.append(f"{variable:4}{f'{slope:.3f} +- {slope_error:.3f}':>16}{f'{last[0]:.2f} +- {last[1]:.2f}':>34}")
        claims.append(
            Claim(
                f"|mean {variable} - theory| falls as N^-1, within 4 standard errors + {CURVATURE}",
                f"N^{slope:.3f} +- {slope_error:.3f}",
                abs(slope + 1) <= 4 * slope_error + CURVATURE,
            )
        )
    for variable in means:
        data[f"{variable}_standard_error"].attrs = {
            "long_name": f"standard error of the mean of {variable}",
            "units": "1",
        }
        data[f"{variable}_theory"].attrs = {"long_name": f"{variable} as N grows", "units": "1"}
    return Outcome(label(data), _figure(data, runs), "\n".join(table), tuple(claims))


def _slope(gap: xr.DataArray, error: xr.DataArray) -> tuple[float, float]:
    """Fit log |gap| = slope log N + constant by weighted least squares; return the slope and its standard error."""
    x = np.log(gap.N.values.astype(float))
    y = np.log(np.abs(gap.values))
    weight = np.abs(gap.values) / error.values  # one over the standard error of y
    design = np.stack([x, np.ones_like(x)], axis=1) * weight[:, None]
    coefficients = np.linalg.lstsq(design, y * weight)[0]
    covariance = np.linalg.inv(design.T @ design)
    return float(coefficients[0]), float(np.sqrt(covariance[0, 0]))


def _figure(data: xr.Dataset, runs: int) -> Figure:
    figure, axes = new_figure()
    ax = axes[0, 0]
    N = data.N.values
    for color, variable in enumerate(("R", "b")):
        gap = abs(data[variable] - data[f"{variable}_theory"]).values
        bars = data[f"{variable}_standard_error"].values
        with style():
            ax.errorbar(N, gap, yerr=bars, fmt="o", color=f"C{color}", label=symbol(variable))
        scale = np.exp(np.average(np.log(gap * N), weights=(gap / bars) ** 2))
        ax.plot(N, scale / N, color=f"C{color}", label=rf"${scale:.2f}/N$")
    ax.set(xscale="log", yscale="log", xlabel="$N$", ylabel=r"$|\mathrm{mean} - \mathrm{theory}|$")
    with style():
        ax.legend(loc="upper right", ncols=2, columnspacing=1.0)
    ax.set_title(f"mean of {runs:,} runs, with standard error", fontsize=7)
    return figure  # type: ignore[no-any-return]
