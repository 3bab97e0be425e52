"""Theory on the means and covariances of real images, with no fitted parameter, through SGD on the images themselves.

A linear classifier learns two classes of images under attack. Four curves for each setting: theory in the limit
eta -> 0, theory with the noise of SGD, SGD on Gaussian samples with the images' means and covariances, and SGD on the
images. One figure for each pair of classes; one file for all, in which a setting is selected by its name::

    one = load("theory_on_data.nc").sel(setting="mnist 3 vs 7, linf 0.1, eta 0.01")
    one.adversarial_error.plot.line(x="test_epsilon", hue="theory")
    one.simulated_adversarial_error.mean("run").plot.line("o", x="simulated_test_epsilon", hue="sample")

What theory and images differ by has three parts, each of which vanishes if its assumption holds: the weights that SGD
finds on the images are not those of the theory; the margins tau w.xi of the images are not Gaussian, which the
theory's formula for the error takes them to be; and the test images are others than the training images. Each part is
measured on the classifiers that SGD found. Pairs whose images are not there are left out, and the study says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from scipy.stats import skew

from deepcheck.data import DataError, TwoClasses, load, two_classes
from odeflow import Adversary, LearningRule
from odeflow.anisotropic import Mixture, Samples, adversarial_error, empirical_adversarial_error, integrate, simulate
from odeflow.parameters import LABELS
from odeflow.plot import draw_lines, draw_points, new_figure, style, symbol
from odeflow.provenance import provenance
from studies.registry import Claim, Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Setting:
    """How a classifier is trained and tested. eta is the rate per example, of weights and bias."""

    norm: Literal["l2", "linf"]
    epsilon: float
    eta: float
    examples: int
    largest: float
    """Largest test epsilon."""

    def __str__(self) -> str:
        return f"{self.norm} {self.epsilon:g}, eta {self.eta:g}"


@dataclass(frozen=True)
class Pair:
    """Two classes of a data set, and how they are learned."""

    images: str
    positive: str
    negative: str
    settings: tuple[Setting, ...]
    runs: int
    quick_runs: int = 0
    """In the quick form, which takes two settings; 0: it leaves the pair out."""


_MNIST = (
    Setting("l2", 1.0, 0.01, 6_000, largest=4.0),
    Setting("linf", 0.1, 0.01, 6_000, largest=0.3),
    Setting("linf", 0.05, 0.01, 6_000, largest=0.3),
)
_SLOW = (Setting("l2", 1.0, 0.002, 30_000, largest=4.0), Setting("linf", 0.1, 0.002, 30_000, largest=0.3))
_DIGITS = (Setting("l2", 0.4, 0.1, 2_000, largest=1.2), Setting("linf", 0.1, 0.1, 2_000, largest=0.3))
_CIFAR10 = (Setting("l2", 0.5, 0.002, 6_000, largest=4.0), Setting("linf", 0.008, 0.002, 6_000, largest=0.06))
PAIRS = (
    Pair("digits", "3", "7", _DIGITS, runs=100, quick_runs=100),
    Pair("mnist", "3", "7", _MNIST + _SLOW, runs=40, quick_runs=12),
    Pair("mnist", "4", "9", _MNIST, runs=40),
    Pair("mnist", "0", "1", _MNIST, runs=40),
    Pair("cifar10", "airplane", "ship", _CIFAR10, runs=30),
)
SEED = 20260107
DUAL = {"l2": "l2_norm", "linf": "l1_norm"}
TITLES = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}
THEORIES = {"eta -> 0": r"theory, $\eta\to0$", "with noise": "theory with the noise of SGD"}
SAMPLES = {"Gaussian": "SGD on Gaussian samples", "images": "SGD on the images"}
CAUSES = ("weights", "not Gaussian", "test set")
DOUBT = 0.08  # a larger difference of S is marked in the table
TIMES, TESTS = 40, 41  # points of the lines
EVERY = {"time": 4, "test": 5}  # the simulation has every so many of them


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    parts, missing = [], dict[str, str]()
    pairs = [pair for pair in PAIRS if pair.quick_runs or not quick]
    for pair, seed in zip(pairs, np.random.SeedSequence(SEED).spawn(len(pairs)), strict=True):
        if pair.images in missing:
            continue
        try:
            classes = two_classes(load(pair.images, download=not quick), pair.positive, pair.negative)
        except (DataError, ImportError) as error:
            missing[pair.images] = str(error)
            continue
        settings, runs = (pair.settings[:2], pair.quick_runs) if quick else (pair.settings, pair.runs)
        mixture = Mixture.from_samples(classes.X_train, classes.y_train)
        for setting, child in zip(settings, seed.spawn(len(settings)), strict=True):
            parts.append(_measure(classes, mixture, setting, runs, child))
    if not parts:
        raise DataError(f"no data set is there: {missing}")
    data = _described(xr.concat(parts, "setting", coords="all", data_vars="all", join="outer"))
    data.attrs = provenance(f"studies.{name}", seed=str(SEED), pairs=pairs, w0=0.03, b0=0.0)
    data.attrs["missing"] = "; ".join(f"{images}: {why}" for images, why in missing.items()) or "none"
    figures = {pair.replace(" ", "_"): _figure(one) for pair, one in _pairs(data).items()}
    return Outcome(data, figures, _table(data), tuple(_claims(data)))


def _measure(
    classes: TwoClasses, mixture: Mixture, setting: Setting, runs: int, seed: np.random.SeedSequence
) -> xr.Dataset:
    """Return the four curves of a setting, and what they differ by."""
    rule = LearningRule.per_example(setting.eta, classes.N)
    adversary = Adversary(setting.epsilon, norm=setting.norm)
    model = rule, adversary
    examples = setting.examples * np.arange(1, TIMES + 1) / TIMES
    epsilons = np.linspace(0, setting.largest, TESTS)
    theory = [
        integrate(mixture, one, adversary, examples=examples, test_epsilon=epsilons)
        for one in (replace(rule, second_order=False), rule)
    ]
    times, tests = examples[EVERY["time"] - 1 :: EVERY["time"]], epsilons[:: EVERY["test"]]
    train, test = Samples(classes.X_train, classes.y_train), Samples(classes.X_test, classes.y_test)
    options: dict[str, Any] = {"examples": times, "test_epsilon": tests, "runs": runs, "progress": True}
    seeds = seed.spawn(2)
    drawn = simulate(mixture, *model, rng=seeds[0], **options)
    learned = simulate(train, *model, rng=seeds[1], test=test, weights=True, **options)

    lines = xr.concat([_curves(one, setting.norm) for one in theory], "theory")
    points = xr.concat([_curves(one, setting.norm) for one in (drawn, learned)], "sample")
    points = points.rename({name: f"simulated_{name}" for name in (*points.data_vars, "time", "test")})
    data = lines.merge(points)

    w, b = (learned[name].isel(examples=-1).values for name in ("w", "b"))
    dims = "run", "simulated_test"
    data["formula_error"] = dims, adversarial_error(w, b, mixture, tests, setting.norm)
    data["training_error"] = dims, empirical_adversarial_error(w, b, train.X, train.y, tests, setting.norm)
    x = train.y * (w @ train.X.T)
    data["skewness"] = "label", [float(skew(x[:, train.y == label], axis=1).mean()) for label in (1, -1)]
    return _differences(data).assign_coords(
        theory=list(THEORIES), sample=list(SAMPLES), cause=list(CAUSES), label=[1, -1], run=np.arange(runs),
        setting=f"{classes.name}, {setting}", pair=classes.name, norm=setting.norm, epsilon=setting.epsilon,
        eta=setting.eta, N=classes.N, runs=runs, examples=("time", examples), test_epsilon=("test", epsilons),
        simulated_examples=("simulated_time", times), simulated_test_epsilon=("simulated_test", tests),
    )  # fmt: skip


def _curves(result: xr.Dataset, norm: str) -> xr.Dataset:
    """Return dual norm, b and E over training, and S at its end, without coordinates."""
    curves = result[["b", "error"]].assign(dual_norm=result[DUAL[norm]], S=result.adversarial_error.isel(examples=-1))
    return curves.drop_vars(curves.coords).rename(examples="time", test_epsilon="test", S="adversarial_error")


def _differences(data: xr.Dataset) -> xr.Dataset:
    """Add what theory and simulation differ by at the end of training, and why."""
    every = {"test": slice(None, None, EVERY["test"])}
    S = data.adversarial_error.isel(every).rename(test="simulated_test")
    simulated, formula, training = (
        data[name].mean("run") for name in ("simulated_adversarial_error", "formula_error", "training_error")
    )
    norm = data.simulated_dual_norm.isel(simulated_time=-1).mean("run")
    causes = S.isel(theory=1) - formula, formula - training, training - simulated.isel(sample=1)
    return data.assign(
        difference=abs(S - simulated).max("simulated_test"),
        norm_difference=data.dual_norm.isel(time=-1) / norm - 1,
        part=xr.concat([abs(cause).max("simulated_test") for cause in causes], "cause"),
    )


def _described(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    curves = {
        "adversarial_error": "adversarial error at the end of training",
        "dual_norm": "dual norm of the weights: L2 norm for L2, L1 norm for L-infinity",
        "b": LABELS["b"][0],
        "error": LABELS["error"][0],
        "examples": LABELS["examples"][0],
        "test_epsilon": LABELS["test_epsilon"][0],
    }
    names = curves | {f"simulated_{name}": f"{text}, simulated" for name, text in curves.items()}
    names |= {
        "formula_error": "adversarial error of the classifier learned from the images, by the Gaussian formula",
        "training_error": "adversarial error of the classifier learned from the images, on the training images",
        "skewness": "skewness of the margins tau w.xi of the training images, mean over runs",
        "difference": "largest difference of the adversarial error at the end, over the test epsilons",
        "norm_difference": "dual norm at the end, theory over mean of the simulation, less 1",
        "part": "largest part of the difference between theory with noise and images that has this cause",
        "theory": "theory in the limit of small learning rates, or with the noise of SGD",
        "sample": "what SGD learns from",
        "cause": "cause of a difference between theory and images",
        "label": "label tau of the class",
        "setting": "classes, norm and size of the perturbation in training, learning rate",
        "pair": "data set and its classes +1 and -1",
        "eta": "learning rate of weights and bias, per example",
    }
    names |= {name: LABELS[name][0] for name in ("norm", "epsilon", "N", "run", "runs")}
    for name, text in names.items():
        data[name].attrs = {"long_name": text, "units": "1"}
    return data


def _pairs(data: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the settings of each pair of classes."""
    return {pair: data.isel(setting=np.flatnonzero(data.pair == pair)) for pair in dict.fromkeys(data.pair.values)}


def _claims(data: xr.Dataset) -> Iterator[Claim]:
    for pair, one in _pairs(data).items():
        gap, norms = one.difference.sel(theory="with noise"), abs(one.norm_difference.sel(theory="with noise"))
        l2, linf = one.norm == "l2", one.norm == "linf"
        if pair == "mnist 3 vs 7":
            fast, slow = one.eta == 0.01, one.eta == 0.002
            yield _within(0.02, gap.sel(sample="Gaussian"), f"{pair}: S on Gaussian samples")
            yield _within(0.07, norms.where(fast), f"{pair}, eta 0.01: norms, on Gaussian samples and on images,")
            if slow.any():
                yield _within(
                    0.08, norms.sel(sample="Gaussian").where(slow), f"{pair}, eta 0.002: norms on Gaussian samples"
                )
            yield _within(0.05, gap.sel(sample="images").where(l2), f"{pair}, L2: S on the images")
            yield _within(0.06, gap.sel(sample="images").where(linf), f"{pair}, L-infinity: S on the images")
        else:
            yield _within(0.03, gap.sel(sample="Gaussian"), f"{pair}: S on Gaussian samples")
            yield _within(0.08, gap.sel(sample="images").where(l2), f"{pair}, L2: S on the images")
            limit, noise = (one.difference.sel(theory=theory, sample="images")[linf].values for theory in THEORIES)
            yield Claim(
                f"{pair}, L-infinity: S on the images is closer to theory with noise than to the limit eta -> 0",
                "largest difference "
                + ", ".join(f"{b:.3f} against {a:.3f}" for a, b in zip(limit, noise, strict=True)),
                bool((noise < limit).all()),
            )


def _within(tolerance: float, differences: xr.DataArray, what: str) -> Claim:
    largest = float(differences.max())
    statement = f"{what} within {tolerance:g} of theory with noise"
    return Claim(statement, f"largest difference {largest:.3f}", largest <= tolerance)


def _lacking(data: xr.Dataset) -> str:
    missing = data.attrs["missing"]
    return "none is missing" if missing == "none" else f"MISSING, and so left out: {missing}"


def _table(data: xr.Dataset) -> str:
    width = max(map(len, data.setting.values)) + 1
    pairs = [(sample, theory) for sample in SAMPLES for theory in THEORIES]
    lines = [
        f"data sets: {_lacking(data)}",
        "",
        f"{'theory to SGD':{width}}{'largest difference of S':^40}{'difference of the norm at the end':^40}",
        f"{'':{width}}" + 2 * (f"{'on Gaussian samples':>20}" + f"{'on images':>20}"),
        f"{'':{width}}" + 4 * "".join(f"{theory.removeprefix('with '):>10}" for theory in THEORIES),
    ]
    for setting in data.setting.values:
        one = data.sel(setting=setting)
        S, norm = (
            [one[name].sel(sample=s, theory=t).item() for s, t in pairs] for name in ("difference", "norm_difference")
        )
        lines.append(f"{setting:{width}}" + "".join(f"{x:10.3f}" for x in S) + "".join(f"{x:+10.1%}" for x in norm))
    texts = (*CAUSES, "S", "class +1", "class -1", "theory", "images")
    groups = f"{'parts of the largest difference of S':^56}{'skewness of margins':^28}{'E at the end':^28}"
    lines += [
        "",
        f"{'theory with noise to SGD on images':{width}}{groups}",
        f"{'':{width}}" + "".join(f"{text:>14}" for text in texts),
    ]
    for setting in data.setting.values:
        one = data.sel(setting=setting)
        whole = one.difference.sel(theory="with noise", sample="images").item()
        numbers = "".join(f"{x:14.3f}" for x in (*one.part.values, whole, *one.skewness.values))
        error = (
            one.error.sel(theory="with noise")[-1].item(),
            one.simulated_error.sel(sample="images")[..., -1].mean().item(),
        )
        lines.append(
            f"{setting:{width}}{numbers}" + "".join(f"{x:14.5f}" for x in error) + (" *" if whole > DOUBT else "")
        )
    lines.append(f"* S differs by more than {DOUBT:g}: the theory does not hold")
    lines.append(
        "E is small where only the tails of the margins err: negative skewness makes them longer than a Gaussian's"
    )
    return "\n".join(lines)


def _figure(data: xr.Dataset) -> Figure:
    """Draw a setting in each row: S over the test epsilon; norm, b and E over training."""
    rows = data.sizes["setting"]
    figure, axes = new_figure(rows, 4, width=7.0, height=0.8 + 1.2 * rows)
    looks: dict[str, dict[str, Any]] = {
        "Gaussian": {"color": "C0", "markerfacecolor": "white"},
        "images": {"color": "C1"},
    }
    colors = {"eta -> 0": {"color": "0.55", "linestyle": "--"}, "with noise": {"color": "C0"}}
    for row, ax_row in enumerate(axes):
        one = data.isel(setting=row)
        norm = one.norm.item()
        for ax, name in zip(ax_row, ("adversarial_error", "dual_norm", "b", "error"), strict=True):
            dim, x = ("test", "test_epsilon") if name == "adversarial_error" else ("time", "examples")
            for theory, text in THEORIES.items():
                line = one[name].sel(theory=theory).swap_dims({dim: x})
                draw_lines(line, ax, label=text, **colors[theory])
            for sample, text in SAMPLES.items():
                points = one[f"simulated_{name}"].sel(sample=sample).dropna("run", how="all")
                points = points.swap_dims({f"simulated_{dim}": f"simulated_{x}"}).rename({f"simulated_{x}": x})
                draw_points(points, ax, label=text, **looks[sample])
            with style():
                ax.set_ylabel(symbol(DUAL[norm] if name == "dual_norm" else name))
                below = symbol(x) if dim == "test" else "examples"
                ax.set_xlabel(below if row == rows - 1 else "", fontsize=8)
        with style():
            ax_row[0].axvline(one.epsilon.item(), color="0.8", linewidth=0.8, zorder=0)
            space = {"l2": "L_2", "linf": r"L_\infty"}[norm]
            title = rf"${space}$, $\varepsilon={one.epsilon.item():g}$, $\eta={one.eta.item():g}$"
            ax_row[0].set_title(title, loc="left", fontsize=8)
    with style():
        handles, texts = axes[0, 0].get_legend_handles_labels()
        images, classes = data.pair.values[0].split(" ", 1)
        title = (
            f"{TITLES[images]}, {classes.replace('vs', 'against')}; points: mean and s.d. of {data.runs.values[0]} runs"
        )
        figure.legend(handles, texts, loc="outside upper center", ncols=4, title=title, title_fontsize=8)
    return figure  # type: ignore[no-any-return]
