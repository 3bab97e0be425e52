"""Logistic regression on images, 3 against 7, with and without adversarial training: theory through real data.

The adversary moves an image in the worst direction for a linear classifier (FGSM), in L2 or in L-infinity, without
clipping the pixels to [0, 1]. SGD starts from zero weights and takes the images in another random order in each run. The
classifier says 3 if its output, the log-odds w.xi - b, is positive.

The theory knows the training images by the means and covariances of the two classes alone, and no image comes twice.
Its lines are those of its mean weights: the spread over runs, which is left out, would move those of MNIST by less than
0.01 (it is larger in the first images, which are not shown).

Where MNIST is missing, the study takes the 8 x 8 images of scikit-learn, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from deepcheck.data import DataError, Images, TwoClasses, load, two_classes
from odeflow import Adversary, LearningRule
from odeflow.anisotropic import Mixture, Samples, adversarial_error, empirical_adversarial_error, integrate, simulate
from odeflow.anisotropic.errors import dual_norm
from odeflow.parameters import label
from odeflow.provenance import provenance
from studies.mnist_3v7_figures import figures, final
from studies.registry import Claim, Outcome

Array = npt.NDArray[np.float64]
Norm = Literal["l2", "linf"]

DIGITS = {1: 3, -1: 7}  # by label
NORMS: tuple[Norm, ...] = ("l2", "linf")
TRAININGS = ("standard", *NORMS)
ATTACKS = ("none", *NORMS)
ATTACKED: tuple[dict[str, Any], ...] = tuple({"norm": norm, "level": 1} for norm in NORMS)
LEVELS = np.linspace(0, 2, 49)  # test epsilon over training epsilon: 1 is one of them
COARSE = LEVELS[::4]  # where it is measured
FIRST = 250  # images learned, where the curves over learning time begin
SHOWN = 3  # test images of each class
SEED = 20260105


@dataclass(frozen=True)
class Setting:
    """How a data set is learned."""

    title: str
    eta: float
    """Learning rate per image, of weights and bias."""
    epochs: int
    epsilon: dict[str, float]
    """Size of the perturbation in training, in units of the range of a pixel."""
    tolerance: float
    """How far the theory's adversarial error may be from the measured one."""


SETTINGS = {
    "mnist": Setting("MNIST", 0.003, 2, {"l2": 1.5, "linf": 0.1}, tolerance=0.07),
    # only 95 test images, whose outputs are far from Gaussian
    "digits": Setting("scikit-learn's digits, not MNIST", 0.03, 20, {"l2": 0.75, "linf": 0.15}, tolerance=0.2),
}


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    images, note = _images(download=not quick)
    setting = SETTINGS[images.name]
    pair = two_classes(images, DIGITS[1], DIGITS[-1])
    mixture = Mixture.from_samples(pair.X_train, pair.y_train)
    runs = 10 if quick else 50
    parts = []
    for training, seed in zip(TRAININGS, np.random.SeedSequence(SEED).spawn(len(TRAININGS)), strict=True):
        theory, simulated = _train(pair, mixture, setting, training, runs, seed)
        weights = _weights(theory.isel(examples=-1), simulated.isel(examples=-1))
        errors = _errors(theory, simulated, pair, mixture, setting)
        parts.append(xr.merge([weights, errors, _outputs(weights, pair, mixture, setting)]))
    data = xr.concat(parts, xr.DataArray(list(TRAININGS), dims="training", name="training"))
    epsilons = np.array([setting.epsilon[norm] for norm in NORMS])
    data = data.assign_coords(
        test_epsilon=(("norm", "level"), np.outer(epsilons, LEVELS)),
        label=("image", pair.y_test),
        digit=("class", list(DIGITS.values())),
    )
    data = _describe(data)
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), data=repr(pair), eta=setting.eta, epochs=setting.epochs, runs=runs,
        training_epsilon=setting.epsilon, w0=0.0, b0=0.0,
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    data.attrs["title"] = f"{setting.title}: {DIGITS[1]} against {DIGITS[-1]}"
    return Outcome(data, figures(data, pair.shape), _table(data), tuple(_claims(data, setting)))


def _images(*, download: bool) -> tuple[Images, str]:
    """Return MNIST, or the digits where it cannot be had, and then a note that says so."""
    try:
        return load("mnist", download=download), ""
    except DataError as error:
        return load("digits"), f"Not MNIST, but scikit-learn's digits of 8 x 8 pixels, because {error}"


# --- training and measuring ---


def _train(
    pair: TwoClasses, mixture: Mixture, setting: Setting, training: str, runs: int, seed: np.random.SeedSequence
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return weights and biases over learning time: in theory, and by SGD."""
    rule = LearningRule.per_example(setting.eta, N=pair.N, loss="logistic", activation="linear")
    adversary = next((Adversary(setting.epsilon[norm], norm=norm) for norm in NORMS if norm == training), Adversary())
    train, test = Samples(pair.X_train, pair.y_train), Samples(pair.X_test, pair.y_test)
    last = setting.epochs * len(train.y)
    coarse, fine = (np.unique(np.rint(np.geomspace(FIRST, last, count))) for count in (12, 41))
    start: dict[str, Any] = {"w0": np.zeros(pair.N), "weights": True}
    theory = integrate(mixture, rule, adversary, examples=fine, **start)
    return theory, simulate(train, rule, adversary, examples=coarse, runs=runs, test=test, rng=seed, **start)


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
    theory: xr.Dataset, simulated: xr.Dataset, pair: TwoClasses, mixture: Mixture, setting: Setting
) -> xr.Dataset:
    """Return the adversarial error in both norms over learning time."""
    lines, points = [], []
    for norm in NORMS:
        epsilon = setting.epsilon[norm]
        test = pair.X_test, pair.y_test
        lines.append(adversarial_error(theory.w, theory.b, mixture, epsilon * LEVELS, norm))
        points.append(empirical_adversarial_error(simulated.w, simulated.b, *test, epsilon * COARSE, norm))
    return xr.Dataset(
        {
            "adversarial_error": (("norm", "examples", "level"), lines),
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
    shown = np.concatenate([np.flatnonzero(y == label)[:SHOWN] for label in tau])
    means, outputs, pictures, clipped = [], [], [], []
    for attack in ATTACKS:
        epsilon = setting.epsilon.get(attack, 0.0)
        moved = X - epsilon * np.outer(y, _direction(w, attack))
        inside = (moved + pair.mean).clip(0, 1) - pair.mean
        reach = epsilon * weights.w.values @ _direction(weights.w.values, attack)
        means.append(mixture.means @ weights.w.values - weights.b.item() - tau * reach)
        outputs.append(moved @ w - b)
        pictures.append(moved[shown] + pair.mean)
        clipped.append(np.mean(y * (inside @ w - b) <= 0))
    return xr.Dataset(
        {
            "output_mean": (("attack", "class"), means),
            "output_sd": ("class", np.sqrt(mixture.variances(weights.w.values))),
            "simulated_output": (("attack", "image"), outputs),
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
    for variable, text in names.items():
        data[variable].attrs = {"long_name": text, "units": "1"}
    return data


# --- what is said ---


def _claims(data: xr.Dataset, setting: Setting) -> Iterator[Claim]:
    theory, simulated = final(data)
    wrong = (data.label * data.simulated_output <= 0).astype(float)
    for norm in NORMS:
        errors = wrong.sel(attack=norm)
        less = errors.sel(training="standard") - errors.sel(training=norm)
        mean, error = less.mean().item(), less.std(ddof=1).item() / less.size**0.5
        rates = [float(errors.sel(training=training).mean()) for training in ("standard", norm)]
        yield Claim(
            f"adversarial training in {norm} lowers the adversarial error at epsilon = {setting.epsilon[norm]:g}, by more "
            "than 2 standard errors over the test images",
            f"first run: from {rates[0]:.3f} to {rates[1]:.3f}, by {mean:.3f} +- {error:.3f}",
            mean > 2 * error,
        )
    clean = simulated.sel(norm="l2", level=0).mean("run")
    most = float(clean.sel(training="standard") - clean.sel(training=list(NORMS)).min())
    yield Claim(
        "without an attack, standard training errs at most 0.005 more often than adversarial training",
        ", ".join(f"{training} {float(clean.sel(training=training)):.4f}" for training in TRAININGS),
        most <= 0.005,
    )
    gap = abs(simulated.mean("run") - theory)
    at = gap.isel(gap.argmax(...))
    yield Claim(
        f"the theory's adversarial error is within {setting.tolerance} of the measured mean, for all trainings, norms and "
        "test epsilons",
        f"largest difference {float(at):.3f} ({at.training.item()} training, {at.norm.item()}, epsilon = "
        f"{at.test_epsilon.item():g}), mean {float(gap.mean()):.3f}",
        float(at) <= setting.tolerance,
    )
    yield Claim(
        "the theory's weights have a cosine above 0.95 with the measured ones, in every run",
        f"least {float(data.cosine.min()):.3f}",
        float(data.cosine.min()) > 0.95,
    )
    ratio = data.simulated_sparsity
    yield Claim(
        "adversarial training in linf makes the weights sparser: |w|_1 / |w|_2 is the least of all, in every run",
        ", ".join(f"{training} {float(ratio.sel(training=training).mean()):.2f}" for training in TRAININGS),
        bool((ratio.sel(training="linf") < ratio.sel(training=["standard", "l2"])).all()),
    )
    exceptions = int(data.exceptions.sum())
    checked = data.exceptions.size * data.sizes["image"] * (data.sizes["simulated_level"] - 1)
    yield Claim(
        "the perturbation of size epsilon turns those images whose margin is at most epsilon |w|_*, and no others",
        f"{exceptions} exceptions in {checked} attacks",
        exceptions == 0,
    )


def _table(data: xr.Dataset) -> str:
    columns: dict[str, dict[str, Any]] = {"E": {"norm": "l2", "level": 0}}
    columns |= {f"S({data.test_epsilon.sel(at).item():g}), {at['norm']}": at for at in ATTACKED}
    lines = [data.attrs["note"]] if data.attrs["note"] else []
    lines.append(f"{data.attrs['title']}, {data.sizes['image']} test images")
    lines.append(f"{'training':10}" + "".join(f"{text:>23}" for text in (*columns, "|w|_1/|w|_2")) + f"{'cosine':>9}")
    lines.append(f"{'':10}" + f"{'theory    SGD      ':>23}" * 4)
    for training in TRAININGS:
        one = data.sel(training=training)
        theory, simulated = final(one)
        pairs = [(theory.sel(at).item(), simulated.sel(at)) for at in columns.values()]
        pairs.append((one.sparsity.item(), one.simulated_sparsity))
        cells = "".join(f"{line:9.3f}{runs.mean().item():7.3f}({runs.std(ddof=1).item():.3f})" for line, runs in pairs)
        lines.append(f"{training:10}{cells}{one.cosine.mean().item():9.3f}")
    lines.append("(in brackets: standard deviation over runs; cosine: of the weights in theory and by SGD)")
    for norm in NORMS:
        cells = ", ".join(f"{t} {data.clipped_error.sel(training=t, attack=norm).item():.3f}" for t in TRAININGS)
        lines.append(f"the same S in {norm} with pixels clipped to [0, 1] after the attack: {cells}")
    return "\n".join(lines)
