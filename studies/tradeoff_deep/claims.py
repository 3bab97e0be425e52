"""What the study tradeoff_deep says: the best training epsilon, what it costs, claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from studies.common.tables import allowed_share, describe, noted
from studies.registry import Claim
from studies.tradeoff_deep.measure import MIXTURE, TEST

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["WORLDS", "claims", "costs_of", "described", "table", "with_best"]

FINITE = 0.002  # by which a mean over finite nets may differ from theory
WORLDS = ("mixture", "images")


def with_best(data: xr.Dataset) -> xr.Dataset:
    """Add the training epsilon with the least adversarial error: on the line for theory, out of the measured for nets."""
    for world in WORLDS:
        line = data[f"{world}_line_adversarial_error"].values
        data[f"{world}_theory_best"] = data[f"{world}_line"].values[np.argmin(line)]
        mean = data[f"{world}_adversarial_error"].mean(f"{world}_run").values
        data[f"{world}_best"] = f"{world}_net", data[f"{world}_training"].values[np.argmin(mean, axis=1)]
    return data


def described(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    kinds = {"error": "classification error", "adversarial_error": "adversarial error at the test epsilon"}
    names = {"world": "what is learned", "test_epsilon": "size of the perturbation in testing, L2"}
    for world in WORLDS:
        for key, text in kinds.items():
            names |= {
                f"{world}_line_{key}": f"{text}, {world}, theory, for the line",
                f"{world}_theory_{key}": f"{text}, {world}, theory, at the training epsilons of the nets",
                f"{world}_{key}": f"{text}, {world}, nets",
            }
        names |= {
            f"{world}_theory_best": "training epsilon with the least adversarial error, theory",
            f"{world}_best": "training epsilon with the least mean adversarial error, out of those of the nets",
            f"{world}_training": "size of the perturbation in training, L2",
            f"{world}_line": "size of the perturbation in training, L2, for the line",
            f"{world}_net": "kind of net",
            f"{world}_run": "net",
        }
    describe(data, names)
    return data


def claims(data: xr.Dataset, within: tuple[float, float], *, quick: bool) -> Iterator[Claim]:
    """Yield what the study claims; `within`: how far E and S of linear classifiers on images may be from theory."""
    worst = []
    for key in ("error", "adversarial_error"):
        one = data[f"mixture_{key}"].sel(mixture_net="linear")
        worst.append(allowed_share(one, data[f"mixture_theory_{key}"], FINITE, "mixture_run"))
    found = max(float(one.max()) for one in worst)
    yield Claim(
        f"mixture, linear nets: E and S within 4 standard errors + {FINITE:g} (for the finite N) of theory",
        f"largest difference {found:.2f} of it",
        found <= 1,
        rival="a theory with E or S off by 0.02",
    )
    for (key, name), tolerance in zip((("error", "E"), ("adversarial_error", "S")), within, strict=True):
        found = float(_far(data, key)[1:].max())
        yield Claim(
            f"images, linear classifiers after AT: {name} within {tolerance:g} of theory",
            f"largest difference {found:.3f}",
            found <= tolerance,
            rival="an error of this size in the theory's weights or in its Gaussian formula; the limit eta -> 0 may pass as well",
        )
    costs = costs_of(data)
    if quick:  # too few images for the small errors
        costs = {name: cost for name, cost in costs.items() if name.startswith("mixture")}
    yield Claim(
        "the largest training epsilon costs clean error: E is above its least by more than its standard error",
        ", ".join(f"{name} {rise:.3f}" for name, (rise, _) in costs.items()),
        all(rise > noise for rise, noise in costs.values()),
        rival="the null that adversarial training costs nothing, within the standard error of the nets",
    )
    over = data.mixture_theory_best - TEST
    yield Claim(
        "mixture, theory: the best training epsilon exceeds the test epsilon",
        f"by {float(over):.3f}",
        float(over) > 0,
        rival="the null that training with the test's epsilon is best",
    )
    found = abs(float(data.mixture_best.sel(mixture_net="linear") - data.mixture_theory_best))
    yield Claim(
        "mixture, linear nets: the best training epsilon is within 0.25 of theory's",
        f"{found:.3f}",
        found <= 0.25,
        rival="the null that nets have their least S after standard training",
    )


def _far(data: xr.Dataset, key: str) -> xr.DataArray:
    """Return how far the linear classifiers on images are from theory, for each training epsilon."""
    mean = data[f"images_{key}"].sel(images_net="linear").mean("images_run")
    far: xr.DataArray = abs(mean - data[f"images_theory_{key}"])
    return far


def costs_of(data: xr.Dataset) -> dict[str, tuple[float, float]]:
    """Return how far E after the largest training epsilon is above its least, and the standard error of that."""
    costs = {}
    for world in WORLDS:
        E = data[f"{world}_theory_error"]
        costs[f"{world}, theory"] = float(E[-1] - E.min()), 0.0
        for net in data[f"{world}_net"].values:
            one = data[f"{world}_error"].sel({f"{world}_net": net}).dropna(f"{world}_run", how="all")
            mean, spread = one.mean(f"{world}_run"), one.std(f"{world}_run", ddof=1)
            least, runs = int(np.argmin(mean.values)), one.sizes[f"{world}_run"]
            noise = np.sqrt((spread[-1] ** 2 + spread[least] ** 2) / runs)
            costs[f"{world}, {net}"] = float(mean[-1] - mean[least]), float(noise)
    return costs


def table(data: xr.Dataset) -> str:
    """Return E and S of theory and nets, for each training epsilon."""
    lines = noted(data)
    for world in WORLDS:
        test = data.test_epsilon.sel(world=world).item()
        title = (
            f"mixture, p = {MIXTURE.p:g}, N = {data.attrs['N']}, alpha = {data.attrs['alpha']}"
            if world == "mixture"
            else data.attrs["title"]
        )
        nets = [str(net) for net in data[f"{world}_net"].values]
        lines += [
            f"{title}; S at L2 {test:g}",
            f"{'training':>9}{'theory':^18}" + "".join(f"{net:^34}" for net in nets),
            f"{'epsilon':>9}{'E':>9}{'S':>9}" + len(nets) * f"{'E':>15}{'S':>19}",
        ]
        for k, epsilon in enumerate(data[f"{world}_training"].values):
            keys = ("error", "adversarial_error")
            line = f"{epsilon:9g}" + "".join(f"{data[f'{world}_theory_{key}'][k].item():9.4f}" for key in keys)
            for net in nets:
                for key in keys:
                    one = data[f"{world}_{key}"].sel({f"{world}_net": net})[k].dropna(f"{world}_run").values
                    line += f"{one.mean():10.4f} ±{one.std(ddof=1):.4f}"
            lines.append(line)
        best = []
        for k, net in enumerate(nets):
            epsilon = data[f"{world}_best"].values[k]
            E = data[f"{world}_error"].sel({f"{world}_net": net, f"{world}_training": epsilon}).mean().item()
            one_class = world == "mixture" and abs(E - (1 - MIXTURE.p)) < 0.001
            best.append(f"{net} {epsilon:g}" + " (which knows one class only)" * one_class)
        theory = f"theory {data[f'{world}_theory_best'].item():.3g}"
        lines += [f"least S at training epsilon: {', '.join([theory, *best])}", ""]
    far = _far(data, "adversarial_error")
    lines.append(
        f"linear classifiers on images, S less theory: at most {float(far[1:].max()):.3f} after AT, {float(far[0]):.3f} after "
        "standard training"
    )
    return "\n".join(lines)
