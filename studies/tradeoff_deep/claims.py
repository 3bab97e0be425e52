"""What the study tradeoff_deep says: the best training epsilon, what it costs, claims and table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from studies.common.bounds import TOO_LARGE, none_below
from studies.common.tables import allowed_share, describe, noted
from studies.registry import Claim, contest
from studies.tradeoff_deep.measure import MIXTURE, TEST

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["WORLDS", "claims", "costs_of", "described", "table", "with_best"]

FINITE = 0.002  # by which a mean over finite nets may differ from theory
WORLDS = ("mixture", "images")
ERRORS = {"error": "E", "adversarial_error": "S"}


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
    names |= {
        f"images_limit_{key}": f"{text}, images, theory in the limit of small rates" for key, text in kinds.items()
    }
    names |= {
        "images_bound": "adversarial error below which no classifier is of the test images on which the nets are attacked",
        "images_bound_at_larger": f"the same at {TOO_LARGE} times the test epsilon",
    }
    describe(data, names)
    return data


def claims(data: xr.Dataset, within: tuple[float, float], *, quick: bool) -> Iterator[Claim]:
    """Yield what the study claims; `within`: how far E and S of linear classifiers on images may be from theory."""
    linear = data.sel(mixture_net="linear")

    def agrees(shift: int) -> tuple[str, bool]:
        worst = [
            allowed_share(
                linear[f"mixture_{key}"],
                data[f"mixture_theory_{key}"].shift(mixture_training=-shift),
                FINITE,
                "mixture_run",
            )
            for key in ERRORS
        ]
        found = max(float(one.max()) for one in worst)
        return f"largest difference {found:.2f} of it", found <= 1

    yield contest(
        f"mixture, linear nets: E and S, which follow from R and b, within 4 standard errors + {FINITE:g} (for the finite N) of "
        "theory",
        agrees,
        0,
        rival="the theory of the next larger training epsilon",
        against=1,
    )
    for (key, name), tolerance in zip(ERRORS.items(), within, strict=True):
        if name == "S" or not quick:  # too few images for the small errors
            yield _on_images(data, key, name, tolerance)
    worlds = WORLDS[:1] if quick else WORLDS

    def costly(index: int) -> tuple[str, bool]:
        costs = {name: cost for world in worlds for name, cost in costs_of(data, world, index).items()}
        text = ", ".join(f"{name} {rise:.3f} ({noise:.3f})" for name, (rise, noise) in costs.items())
        return text, all(rise > 2 * noise for rise, noise in costs.values())

    yield contest(
        "the largest training epsilon costs clean error against standard training, more than 2 standard errors of it (in "
        "brackets)",
        costly,
        -1,
        rival="the smallest training epsilon in its place",
        against=1,
    )
    line = data.mixture_line.values
    yield contest(
        "mixture, theory: the best training epsilon exceeds the test epsilon, by more than the grid's step",
        lambda best: (f"by {best - TEST:.3f}", best - TEST > line[1] - line[0]),
        float(data.mixture_theory_best),
        rival="the null that training with the test's epsilon is best",
        against=TEST,
    )
    nearest = int(np.argmin(abs(data.mixture_training - data.mixture_theory_best).values))
    S = linear.mixture_adversarial_error

    def least(k: int) -> tuple[str, bool]:
        texts, holds = [], True
        for other in (k - 1, k + 1):
            if 0 <= other < S.sizes["mixture_training"]:
                more = (S[other] - S[k]).dropna("mixture_run")  # the same examples
                mean, noise = float(more.mean()), float(more.std(ddof=1)) / more.size**0.5
                texts.append(f"{mean:.4f} +- {noise:.4f} at {float(S.mixture_training[other]):g}")
                holds &= mean > 2 * noise
        return f"S is larger by {', '.join(texts)} than at {float(S.mixture_training[k]):g}", holds

    yield contest(
        "mixture, linear nets: of the training epsilons, S is least at the one next to theory's best, and larger at both its "
        "neighbours by more than 2 standard errors",
        least,
        nearest,
        rival="the next smaller one",
        against=nearest - 1,
    )
    nets = [str(net) for net in data.images_net.values]
    S = data.images_adversarial_error.min(["images_training", "images_run"])
    yield none_below(S.values, data.images_bound.values, data.images_bound_at_larger.values, nets)


def _on_images(data: xr.Dataset, key: str, name: str, tolerance: float) -> Claim:
    """Compare linear classifiers after AT on images with theory."""
    runs = data[f"images_{key}"].sel(images_net="linear").dropna("images_run")
    noise = runs.std("images_run", ddof=1) / runs.sizes["images_run"] ** 0.5

    def near(theory: xr.DataArray) -> tuple[str, bool]:
        gap = abs(runs.mean("images_run") - theory)[1:]
        worst = int(np.argmax((gap - 2 * noise[1:]).values))
        text = f"largest difference {float(gap[worst]):.3f} +- {float(noise[1:][worst]):.3f}"
        return text, bool((gap <= tolerance + 2 * noise[1:]).all())

    theory = data[f"images_theory_{key}"]
    limit = near(data[f"images_limit_{key}"])[0]
    return contest(
        f"images, linear classifiers after AT: mean {name} within {tolerance:g} + 2 standard errors of theory (of the limit "
        f"eta -> 0: {limit})",
        near,
        theory,
        rival="the theory of standard training",
        against=0 * theory + float(theory[0]),
    )


def _far(data: xr.Dataset, key: str) -> xr.DataArray:
    """Return how far the linear classifiers on images are from theory, for each training epsilon."""
    mean = data[f"images_{key}"].sel(images_net="linear").mean("images_run")
    far: xr.DataArray = abs(mean - data[f"images_theory_{key}"])
    return far


def costs_of(data: xr.Dataset, world: str, index: int) -> dict[str, tuple[float, float]]:
    """Return how far E after a training epsilon of the grid is above that after standard training, and its standard error."""
    E = data[f"{world}_theory_error"]
    costs = {f"{world}, theory": (float(E[index] - E[0]), 0.0)}
    for net in data[f"{world}_net"].values:
        one = data[f"{world}_error"].sel({f"{world}_net": net}).dropna(f"{world}_run", how="all")
        mean, spread = one.mean(f"{world}_run"), one.std(f"{world}_run", ddof=1)
        noise = np.sqrt((spread[index] ** 2 + spread[0] ** 2) / one.sizes[f"{world}_run"])
        costs[f"{world}, {net}"] = float(mean[index] - mean[0]), float(noise)
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
        lines.append(f"least S at training epsilon: {', '.join([theory, *best])}")
        if world == "images":
            below = ", ".join(f"{net} {bound:.4f}" for net, bound in zip(nets, data.images_bound.values, strict=True))
            lines.append(f"no classifier of the test images on which they are attacked has a smaller S than: {below}")
        lines.append("")
    far = _far(data, "adversarial_error")
    lines.append(
        f"linear classifiers on images, S less theory: at most {float(far[1:].max()):.3f} after AT, {float(far[0]):.3f} after "
        "standard training"
    )
    return "\n".join(lines)
