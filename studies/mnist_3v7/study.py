"""The study mnist_3v7: two digits are learned by SGD, and in theory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from deepcheck.data import TwoClasses, two_classes
from odeflow import Adversary, LearningRule
from odeflow.anisotropic import Mixture, Samples, adversarial_error, empirical_adversarial_error, integrate, simulate
from odeflow.anisotropic.errors import dual_norm
from odeflow.parameters import label
from odeflow.provenance import provenance
from studies.common.bounds import TOO_LARGE, bounds
from studies.common.images import load_or_digits
from studies.common.tables import describe
from studies.mnist_3v7.claims import claims, table
from studies.mnist_3v7.figures import figures
from studies.mnist_3v7.plan import (
    ATTACKS,
    COARSE,
    DIGITS,
    FIRST,
    LEVELS,
    NORMS,
    SEED,
    SETTINGS,
    SHOWN,
    TRAININGS,
    Setting,
)
from studies.registry import Outcome

Array = npt.NDArray[np.float64]


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    images, note = load_or_digits(download=not quick)
    setting = SETTINGS[images.name]
    pair = two_classes(images, DIGITS[1], DIGITS[-1])
    mixture = Mixture.from_samples(pair.X_train, pair.y_train)
    runs = 10 if quick else 50
    parts = []
    for training, seed in zip(TRAININGS, np.random.SeedSequence(SEED).spawn(len(TRAININGS)), strict=True):
        theory, limit, simulated = _train(pair, mixture, setting, training, runs, seed)
        weights = _weights(theory.isel(examples=-1), simulated.isel(examples=-1))
        errors = _errors(theory, limit, simulated, pair, mixture, setting)
        parts.append(xr.merge([weights, errors, _outputs(weights, pair, mixture, setting)]))
    data = xr.concat(parts, xr.DataArray(list(TRAININGS), dims="training", name="training"))
    epsilons = np.array([setting.epsilon[norm] for norm in NORMS])
    data = data.assign_coords(
        test_epsilon=(("norm", "level"), np.outer(epsilons, LEVELS)),
        label=("image", pair.y_test),
        digit=("class", list(DIGITS.values())),
    )
    below = [bounds(pair.X_test, pair.y_test > 0, setting.epsilon[norm] * LEVELS, norm) for norm in NORMS]
    for key, one in zip(("bound", "bound_at_larger"), np.swapaxes(below, 0, 1), strict=True):
        data[key] = ("norm", "level"), one
    data = _describe(data)
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), data=repr(pair), eta=setting.eta, epochs=setting.epochs, runs=runs,
        training_epsilon=setting.epsilon, w0=0.0, b0=0.0,
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    data.attrs["title"] = f"{setting.title}: {DIGITS[1]} against {DIGITS[-1]}"
    return Outcome(data, figures(data, pair.shape), table(data), tuple(claims(data, setting)))


# --- training and measuring ---


def _train(
    pair: TwoClasses, mixture: Mixture, setting: Setting, training: str, runs: int, seed: np.random.SeedSequence
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return weights and biases over learning time: in theory, in its limit eta -> 0 at the end, and by SGD."""
    rule = LearningRule.per_example(setting.eta, N=pair.N, loss="logistic", activation="linear")
    adversary = next((Adversary(setting.epsilon[norm], norm=norm) for norm in NORMS if norm == training), Adversary())
    train, test = Samples(pair.X_train, pair.y_train), Samples(pair.X_test, pair.y_test)
    last = setting.epochs * len(train.y)
    coarse, fine = (np.unique(np.rint(np.geomspace(FIRST, last, count))) for count in (12, 41))
    start: dict[str, Any] = {"w0": np.zeros(pair.N), "weights": True}
    theory = integrate(mixture, rule, adversary, examples=fine, **start)
    limit = integrate(mixture, replace(rule, second_order=False), adversary, examples=[last], **start)
    return theory, limit, simulate(train, rule, adversary, examples=coarse, runs=runs, test=test, rng=seed, **start)


def _weights(theory: xr.Dataset, simulated: xr.Dataset) -> xr.Dataset:
    """Return the classifiers at the end of training."""
    w, W = theory.w.values, simulated.w.values
    lengths = np.linalg.norm(w), np.linalg.norm(W, axis=1)
    return xr.Dataset(
        {
            "w": ("feature", w),
            "b": theory.b.item(),
            "sparsity": np.abs(w).sum() / lengths[0],
            "perturbation": (("norm", "feature"), [_direction(w, norm) for norm in NORMS]),
            "simulated_w": (("run", "feature"), W),
            "simulated_b": ("run", simulated.b.values),
            "simulated_sparsity": ("run", np.abs(W).sum(axis=1) / lengths[1]),
            "simulated_perturbation": (("norm", "feature"), [_direction(W[0], norm) for norm in NORMS]),
            "cosine": ("run", W @ w / lengths[0] / lengths[1]),
        },
        {"run": simulated.run.values, "norm": list(NORMS)},
    )


def _errors(
    theory: xr.Dataset, limit: xr.Dataset, simulated: xr.Dataset, pair: TwoClasses, mixture: Mixture, setting: Setting
) -> xr.Dataset:
    """Return the adversarial error in both norms over learning time."""
    lines, ends, points = [], [], []
    for norm in NORMS:
        epsilon = setting.epsilon[norm]
        test = pair.X_test, pair.y_test
        lines.append(adversarial_error(theory.w, theory.b, mixture, epsilon * LEVELS, norm))
        ends.append(adversarial_error(limit.w, limit.b, mixture, epsilon * LEVELS, norm)[0])
        points.append(empirical_adversarial_error(simulated.w, simulated.b, *test, epsilon * COARSE, norm))
    return xr.Dataset(
        {
            "adversarial_error": (("norm", "examples", "level"), lines),
            "limit_adversarial_error": (("norm", "level"), ends),
            "simulated_adversarial_error": (("norm", "run", "simulated_examples", "simulated_level"), points),
        },
        {
            "examples": theory.examples.values, "simulated_examples": simulated.examples.values,
            "level": LEVELS, "simulated_level": COARSE,
        },
    )  # fmt: skip


def _outputs(weights: xr.Dataset, pair: TwoClasses, mixture: Mixture, setting: Setting) -> xr.Dataset:
    """Return what the first run's classifier says of the test images, without and with an attack, and the theory."""
    X, y, tau = pair.X_test, pair.y_test, np.array(list(DIGITS))
    w, b = weights.simulated_w[0].values, weights.simulated_b[0].item()
    other_w, other_b = weights.simulated_w[-1].values, weights.simulated_b[-1].item()
    shown = np.concatenate([np.flatnonzero(y == label)[:SHOWN] for label in tau])
    means, outputs, others, pictures, clipped = [], [], [], [], []
    for attack in ATTACKS:
        epsilon = setting.epsilon.get(attack, 0.0)
        moved = X - epsilon * np.outer(y, _direction(w, attack))
        inside = (moved + pair.mean).clip(0, 1) - pair.mean
        reach = epsilon * weights.w.values @ _direction(weights.w.values, attack)
        means.append(mixture.means @ weights.w.values - weights.b.item() - tau * reach)
        outputs.append(moved @ w - b)
        others.append((X - epsilon * np.outer(y, _direction(other_w, attack))) @ other_w - other_b)
        pictures.append(moved[shown] + pair.mean)
        clipped.append(np.mean(y * (inside @ w - b) <= 0))
    return xr.Dataset(
        {
            "output_mean": (("attack", "class"), means),
            "output_sd": ("class", np.sqrt(mixture.variances(weights.w.values))),
            "simulated_output": (("attack", "image"), outputs),
            "last_output": (("attack", "image"), others),
            "shown_image": (("attack", "shown", "feature"), pictures),
            "clipped_error": ("attack", clipped),
            "exceptions": ("norm", [_exceptions(w, b, X, y, setting.epsilon[norm], norm) for norm in NORMS]),
        },
        {"attack": list(ATTACKS), "class": tau, "shown": shown, "norm": list(NORMS)},
    )


def _direction(w: Array, norm: str) -> Array:
    """Return the unit perturbation that raises w.xi most: its product with w is the dual norm."""
    return np.sign(w) if norm == "linf" else w / np.linalg.norm(w)


def _exceptions(w: Array, b: float, X: Array, y: Array, epsilon: float, norm: str) -> int:
    """Count the attacks, at all test epsilons > 0, that do not turn an image just if its margin is <= epsilon |w|_*."""
    margin = y * (X @ w - b)
    found = 0
    for size in epsilon * COARSE[1:]:
        wrong = y * ((X - size * np.outer(y, _direction(w, norm))) @ w - b) <= 0
        found += int(np.sum(wrong != (margin <= size * dual_norm(w, norm))))
    return found


def _describe(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    names = {
        "adversarial_error": "adversarial error in theory",
        "bound": "adversarial error below which no classifier of the test images is",
        "bound_at_larger": f"the same at {TOO_LARGE} times the test epsilon",
        "simulated_adversarial_error": "share of the test images that are misclassified after the attack",
        "w": "weights in theory, mean over runs",
        "b": "bias in theory, mean over runs",
        "sparsity": "|w|_1 / |w|_2 of the mean weights in theory",
        "simulated_w": "weights",
        "simulated_b": "bias",
        "simulated_sparsity": "|w|_1 / |w|_2",
        "cosine": "cosine of the weights with those in theory",
        "perturbation": "unit perturbation that raises the output most, in theory",
        "simulated_perturbation": "unit perturbation that raises the output of the first run's classifier most",
        "output_mean": "mean output for a class in theory",
        "output_sd": "standard deviation of the output for a class in theory",
        "simulated_output": "output of the first run's classifier for a test image, the log-odds of a 3",
        "last_output": "output of the last run's classifier for a test image after its own attack",
        "limit_adversarial_error": "adversarial error in theory, in the limit of small learning rates, at the end",
        "shown_image": "pixels of some test images after the attack on the first run's classifier",
        "clipped_error": "share of the test images that the first run's classifier gets wrong if pixels are clipped",
        "exceptions": "test images and epsilons where the attack and the rule margin <= epsilon |w|_* disagree",
        "simulated_examples": "learning time, images",
        "examples": "learning time, images",
        "level": "size of the perturbation in testing over that in training",
        "simulated_level": "size of the perturbation in testing over that in training",
        "attack": "norm of the perturbation of the training's size, if there is one",
        "class": "label of the class",
        "digit": "digit of the class",
        "label": "label of the test image: +1 for a 3, -1 for a 7",
        "shown": "index of the test image",
        "training": "norm of the adversary in training, if there is one",
    }
    label(data)
    describe(data, names)
    return data
