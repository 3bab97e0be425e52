"""The study theory_on_data: theory through SGD, and what they differ by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import skew

from deepcheck.data import DataError, TwoClasses, load, two_classes
from odeflow import Adversary, LearningRule
from odeflow.anisotropic import (
    Mixture,
    Samples,
    adversarial_error,
    cross_validate,
    empirical_adversarial_error,
    integrate,
    simulate,
)
from odeflow.parameters import LABELS
from odeflow.provenance import provenance
from studies.common.bounds import TOO_LARGE, bounds
from studies.common.tables import describe
from studies.registry import Outcome
from studies.theory_on_data.claims import claims, pairs_of, table
from studies.theory_on_data.figures import figure
from studies.theory_on_data.plan import CAUSES, DUAL, PAIRS, SAMPLES, THEORIES, Setting

SEED = 20260107
TIMES, TESTS = 40, 41  # points of the lines
FEW = 1000  # samples, up to which errors are held out too: where there are more, the test images differ by less
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
    figures = {pair.replace(" ", "_"): figure(one) for pair, one in pairs_of(data).items()}
    return Outcome(data, figures, table(data), tuple(claims(data)))


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
    plain = integrate(_isotropic(mixture), rule, adversary, examples=examples[-1:], test_epsilon=epsilons)
    data["isotropic_adversarial_error"] = "test", plain.adversarial_error.values[0]

    w, b = (learned[name].isel(examples=-1).values for name in ("w", "b"))
    dims = "run", "simulated_test"
    data["formula_error"] = dims, adversarial_error(w, b, mixture, tests, setting.norm)
    data["training_error"] = dims, empirical_adversarial_error(w, b, train.X, train.y, tests, setting.norm)
    x = train.y * (w @ train.X.T)
    data["held_out_error"], data["held_out_error_se"] = _held_out(train, model, setting, epsilons)
    below = bounds(test.X, test.y > 0, epsilons, setting.norm)
    data["bound"], data["bound_at_larger"] = ("test", below[0]), ("test", below[1])
    data["skewness"] = "label", [float(skew(x[:, train.y == label], axis=1).mean()) for label in (1, -1)]
    return _differences(data).assign_coords(
        theory=list(THEORIES), sample=list(SAMPLES), cause=list(CAUSES), label=[1, -1], run=np.arange(runs),
        setting=f"{classes.name}, {setting}", pair=classes.name, norm=setting.norm, epsilon=setting.epsilon,
        eta=setting.eta, N=classes.N, runs=runs, examples=("time", examples), test_epsilon=("test", epsilons),
        simulated_examples=("simulated_time", times), simulated_test_epsilon=("simulated_test", tests),
    )  # fmt: skip


def _isotropic(mixture: Mixture) -> Mixture:
    """Return the mixture with the same means, and the mean variance of each class in every direction."""
    traces = [np.trace(one) if np.ndim(one) == 2 else np.sum(one) for one in mixture.covariances]
    N = mixture.means.shape[1]
    return Mixture(mixture.p, means=mixture.means, covariances=np.outer(traces, np.ones(N)) / N)


def _held_out(
    train: Samples, model: tuple[LearningRule, Adversary], setting: Setting, epsilons: Any
) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """Return what theory with noise says of new images, and its standard error; nan where there are enough samples."""
    if len(train.y) > FEW:
        unknown = np.full(len(epsilons), np.nan)
        return ("test", unknown), ("test", unknown)
    held_out = cross_validate(train, *model, examples=[setting.examples], test_epsilon=epsilons)
    return ("test", held_out.adversarial_error.values[0]), ("test", held_out.adversarial_error_se.values[0])


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
        isotropic_difference=abs(
            data.isotropic_adversarial_error.isel(every).rename(test="simulated_test") - simulated
        ).max("simulated_test"),
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
        "held_out_error": "adversarial error at the end of training, theory with noise, on images that were left out",
        "held_out_error_se": "standard error of the held-out adversarial error",
        "skewness": "skewness of the margins tau w.xi of the training images, mean over runs",
        "bound": "adversarial error below which no classifier of the test images is",
        "bound_at_larger": f"the same at {TOO_LARGE} times the test epsilon",
        "difference": "largest difference of the adversarial error at the end, over the test epsilons",
        "isotropic_adversarial_error": "adversarial error at the end, theory with noise of isotropic classes",
        "isotropic_difference": "the same as difference, of the theory of isotropic classes",
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
    describe(data, names)
    return data
