"""What is measured: recall and critical epsilon of nets on mixtures, of linear classifiers and deep nets on images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from scipy.special import ndtr, ndtri

from deepcheck.data import Images, two_class_images, two_classes
from deepcheck.device import choose
from deepcheck.training.online import train_online
from deepcheck.training.stacked import StackedNets
from odeflow import Adversary, GaussianMixture, LearningRule, classification_error, integrate, sweep
from odeflow.anisotropic import Mixture, Samples
from odeflow.anisotropic import integrate as integrate_on_data
from odeflow.anisotropic import simulate as learn_images
from studies.common.attacked import Norm

Array = npt.NDArray[np.float64]

SEED = 20260315
P = 0.7
RECALL = 0.1
"""A net that recognises a smaller share of the minority has collapsed."""
RECALLS = (0.05, RECALL, 0.2)
RULES = {"|w| = 1": LearningRule(), "free |w|": LearningRule(eta_w=0.4, normalised=False)}
END = 100.0
"""Learning time alpha at which nets are judged."""
TIMES = (30.0, END, 300.0)
SIZES = np.linspace(0, 1.6, 161)
"""Training epsilons of theory's lines, in units of rho/2."""
SHOWN_RHO = 2.0
"""Separation of the centres where one is shown."""
TEST = 2000
"""Test examples of each class of the mixture."""


@dataclass(frozen=True)
class Nets:
    """Nets on mixtures, and over what they are measured."""

    name: str
    hidden: tuple[int, ...]
    N: int
    rule: str
    rho: tuple[float, ...]
    sizes: tuple[float, ...]
    """Training epsilons in units of rho/2, from 0 on."""
    runs: int = 10
    start: Literal["random", "trained"] = "random"
    times: tuple[float, ...] = TIMES


@dataclass(frozen=True)
class Pair:
    """Linear classifiers on two classes, the majority first."""

    positive: int | str
    negative: int | str
    norm: Norm
    sizes: tuple[float, ...]
    """Training epsilons in units of half the distance of the class means."""
    eta: float = 0.01
    examples: int = 6000
    runs: int = 10


@dataclass(frozen=True)
class Convolutional:
    """Deep nets on two classes, the majority first: small convolutional ones on 3 and 7, if nothing else is said."""

    norm: Norm
    ramp: float
    """Share of the training over which epsilon grows from 0."""
    sizes: tuple[float, ...]
    seeds: int = 2
    images: int = 4200
    epochs: int = 5
    classes: tuple[str, str] = ("3", "7")
    model: str = "conv_small"
    recipe: tuple[tuple[str, Any], ...] = ()
    """Other fields of the recipe, with their values."""

    @property
    def kind(self) -> str:
        """What tells nets of one study apart: norm and ramp."""
        return f"{self.norm}, ramp {self.ramp:g}"


# --- the definition ---


def critical(epsilon: npt.ArrayLike, recall: npt.ArrayLike, threshold: float = RECALL) -> Array:
    """Return the least epsilon at which the recall falls below a threshold, with its probit interpolated linearly.

    Parameters
    ----------
    epsilon
        Increasing training epsilons, shape (n,).
    recall
        Shape (..., n).
    threshold
        In (0, 1).

    Returns
    -------
    ndarray
        Shape (...); 0 where the recall is below the threshold without attack; NaN where it never is, or already is at
        a first epsilon > 0.
    """
    epsilon, recall = np.asarray(epsilon, np.float64), np.asarray(recall, np.float64)
    above = ndtri(np.clip(recall, 1 / (2 * TEST), 1 - 1 / (2 * TEST))) - ndtri(threshold)
    below = above < 0
    last = np.argmax(below, axis=-1)[..., None]
    first = np.maximum(last - 1, 0)
    high, low = (np.take_along_axis(above, index, -1)[..., 0] for index in (first, last))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(last[..., 0] > 0, high / (high - low), 0.0)
    crossing = epsilon[first[..., 0]] + share * (epsilon[last[..., 0]] - epsilon[first[..., 0]])
    measured = below.any(axis=-1) & ((last[..., 0] > 0) | (epsilon[0] == 0))
    return np.where(measured, crossing, np.nan)


# --- mixtures ---


def minority_recall(R: Any, b: Any, Q: Any, mixture: GaussianMixture) -> Any:
    r"""Return the recall of the class -1, :math:`\Phi((\rho R/2 + b)/\sqrt{v_2 Q})` (exact for linear classifiers)."""
    return ndtr((mixture.rho * R / 2 + b) / np.sqrt(mixture.v2 * Q))


def swept(
    mixture: GaussianMixture,
    rule: LearningRule,
    over: dict[str, Array],
    alpha: npt.ArrayLike,
    start: dict[str, float] | None = None,
) -> xr.Dataset:
    """Return theory over epsilon and alpha, with the recall of the minority."""
    result = sweep(mixture, rule, Adversary(), over=over, alpha=alpha, **(start or {}))  # type: ignore[arg-type]
    Q = result.Q if "Q" in result else 1.0
    return result.assign(recall=minority_recall(result.R, result.b, Q, mixture))


def trained_start(mixture: GaussianMixture, rule: LearningRule) -> dict[str, float]:
    """Return the theory's state after training without attack until alpha = 100."""
    end = integrate(mixture, rule, Adversary(), alpha=[0.0, END]).isel(alpha=-1)
    return {f"{name}0": float(end[name]) for name in ("R", "b", "Q") if name in end}


def nets_on_mixture(nets: Nets, rho: float) -> xr.Dataset:
    """Train nets at each epsilon, and return recall, E, R and b at the times, and the critical epsilons, in units of rho/2.

    R is the mean cosine between the margin's gradient and B, for a linear net that of w. b is a linear net's b/|w|.
    """
    mixture, rule = GaussianMixture(p=P, rho=rho), RULES[nets.rule]
    device = choose("auto")
    seeds = [int(one.generate_state(1)[0]) for one in np.random.SeedSequence([SEED, nets.N, *nets.hidden]).spawn(3)]
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    noise = torch.randn(2, TEST, nets.N, generator=generators[0], device=device)
    noise[0, :, 0] += rho / 2
    noise[1, :, 0] -= rho / 2
    options: dict[str, Any] = {"N": nets.N, "runs": nets.runs, "hidden": nets.hidden}
    initial = None
    if nets.start == "trained":
        *_, (_, initial) = train_online(mixture, rule, Adversary(), alpha=[END], generator=generators[1], **options)
    rows = []
    for size in nets.sizes:
        # the same examples at every epsilon
        options["generator"] = torch.Generator(device).manual_seed(seeds[2])
        trained = train_online(mixture, rule, Adversary(size * rho / 2), alpha=nets.times, initial=initial, **options)
        rows.append(np.array([judged(one, noise, mixture) for _, one in trained]))  # (time, quantity, run)
    values = np.array(rows)
    names = "recall", "error", "R", "b"
    result = xr.Dataset(
        {name: (("point", "time", "run"), values[:, :, k]) for k, name in enumerate(names)},
        {"time": list(nets.times), "run": np.arange(nets.runs), "point": np.arange(len(nets.sizes))},
    )
    result["net_epsilon"] = "point", np.array(nets.sizes)
    across = result.recall.transpose("time", "run", "point")
    result["critical"] = ("share", "time", "run"), np.stack([critical(nets.sizes, across, one) for one in RECALLS])
    begin = trained_start(mixture, rule) if nets.start == "trained" else None
    line = swept(mixture, rule, {"epsilon": SIZES * rho / 2}, nets.times, begin).recall.values.T
    result["expected"] = "time", critical(SIZES, line)
    return result.assign_coords(
        share=list(RECALLS), net=nets.name, rho=rho, N=nets.N, start=nets.start, net_rule=nets.rule,
        depth=len(nets.hidden) + 1,
    )  # fmt: skip


def judged(nets: StackedNets, noise: torch.Tensor, mixture: GaussianMixture) -> Array:
    """Return recall, E, R and b of each net, shape (4, nets): by formula if they are linear, else on test examples."""
    if nets.depth == 1:
        w, b = nets.weights[0][:, 0].double().cpu().numpy(), -nets.biases[0][:, 0, 0].double().cpu().numpy()
        length = np.linalg.norm(w, axis=1)
        R, b = w[:, 0] / length, b / length
        return np.array([minority_recall(R, b, 1.0, mixture), classification_error(R, b, mixture), R, b])
    right, cosine = [], 0.0
    for x, tau in zip(noise, (1, -1), strict=True):
        examples = x.expand(len(nets), -1, -1)
        right.append((tau * nets.forward(examples)[0][..., 0] > 0).double().mean(1).cpu().numpy())
        gradient = nets.gradient(nets.forward(examples[:, :200])[1])
        unit = gradient[..., 0] / gradient.norm(dim=2).clamp(min=1e-30)
        cosine += (P if tau > 0 else 1 - P) * unit.mean(1).double().cpu().numpy()
    error = P * (1 - right[0]) + (1 - P) * (1 - right[1])
    return np.array([right[1], error, cosine, np.full(len(nets), np.nan)])


# --- images ---


def unbalanced(images: Images, share: float, count: int | None = None) -> Images:
    """Return two classes of which the class 1 has a share of the training images, by leaving some out.

    Parameters
    ----------
    images
        From `two_class_images`.
    share
        In (0, 1).
    count
        Most training images; None: as many as there are.

    Returns
    -------
    Images
        Training images of each class, spread evenly over the data set and in its order, and all test images.
    """
    classes = [(np.flatnonzero(images.train_labels == label), part) for label, part in ((1, share), (0, 1 - share))]
    total = min(*(len(found) / part for found, part in classes), len(images.train_labels) if count is None else count)
    kept = [found[np.linspace(0, len(found) - 1, round(part * total)).astype(int)] for found, part in classes]
    chosen = np.sort(np.concatenate(kept))
    return replace(images, train_images=images.train_images[chosen], train_labels=images.train_labels[chosen])


def half_distance(plus: Array, minus: Array, norm: str) -> float:
    """Return half the distance of two means in the norm of the attack."""
    return float(np.linalg.norm(plus - minus, 2 if norm == "l2" else np.inf) / 2)


def linear_on_images(pair: Pair, images: Images) -> xr.Dataset:
    """Return recall, E, b and |w|_2 over epsilon: theory as eta -> 0, theory with the noise of SGD, and SGD."""
    classes = two_classes(unbalanced(two_class_images(images, pair.positive, pair.negative), P), 1, 0)
    shrinkage: Any = "ledoit-wolf" if (classes.y_train < 0).sum() <= classes.N else 0.0
    mixture = Mixture.from_samples(classes.X_train, classes.y_train, shrinkage=shrinkage)
    unit = half_distance(mixture.means[0], mixture.means[1], pair.norm)
    rule = LearningRule.per_example(pair.eta, classes.N)
    train_set, test = Samples(classes.X_train, classes.y_train), Samples(classes.X_test, classes.y_test)
    classes_of = [images.class_names.index(str(name)) for name in (pair.positive, pair.negative)]
    seeds = np.random.SeedSequence([SEED, *classes_of, len(pair.norm)]).spawn(1)
    theory, learned = [], []
    for size in pair.sizes:
        model = Adversary(size * unit, norm=pair.norm)
        predicted = [
            integrate_on_data(mixture, one, model, examples=[pair.examples], weights=True).isel(examples=0)
            for one in (replace(rule, second_order=False), rule)
        ]
        theory.append([_predicted(one, mixture) for one in predicted])
        found = learn_images(
            train_set, rule, model, examples=[pair.examples], runs=pair.runs, rng=seeds[0], test=test, weights=True
        ).isel(examples=0)
        minority = test.X[test.y < 0]
        recall = (found.w.values @ minority.T - found.b.values[:, None] < 0).mean(1)
        learned.append([recall, found.error.values, found.b.values, found.l2_norm.values])
    names = "recall", "error", "b", "norm"
    lines, points = np.array(theory), np.array(learned)
    result = xr.Dataset(
        {f"image_theory_{name}": (("image_theory", "point"), lines[..., k].T) for k, name in enumerate(names)}
    )
    result = result.assign({f"image_{name}": (("point", "run"), points[:, k]) for k, name in enumerate(names)})
    result = result.rename(image_norm="image_norm_of_w")
    result["image_epsilon"] = "point", np.array(pair.sizes)
    result["image_theory_critical"] = "image_theory", critical(pair.sizes, lines[..., 0].T)
    result["image_critical"] = "run", critical(pair.sizes, points[:, 0].T)
    return result.assign_coords(
        image_theory=["eta -> 0", "with noise"], run=np.arange(pair.runs), point=np.arange(len(pair.sizes)), image_norm=pair.norm, unit=unit,
        classes=f"{pair.positive} against {pair.negative}", image_eta=pair.eta,
    )  # fmt: skip


def _predicted(theory: xr.Dataset, mixture: Mixture) -> list[float]:
    """Return the theory's recall, E, b and |w|_2. The recall is that of the mean weights."""
    w, b = theory.w.values, float(theory.b)
    spread = np.sqrt(max(float(mixture.variances(w)[1]), 1e-300))
    recall = ndtr(-(w @ mixture.means[1] - b) / spread)
    return [float(recall), float(theory.error), b, float(theory.l2_norm)]
