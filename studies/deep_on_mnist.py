"""3 against 7: the robustness of deep nets under attack, and that of their linear approximations.

A linear classifier, a small convolutional and a residual net learn to tell two digits apart, with and without
adversarial training (AT). For each there is the robustness curve that PGD measures, S over the size of the attack, and
what predicts it: for the linear one the theory of one-pass SGD on the means and covariances of the images; for the
others their margins and gradients at the clean images, the locally linear prediction of `deepcheck.match`, and the same
with Gaussian margins.

The predictions know of no bounds of the pixels, so the measured curve is that of attacks without bounds. (An attack in
the box [0, 1] is one of them: where it turns more images than PGD without bounds, it counts.) The nets are trained in
the box, as usual.

Where MNIST is missing, the study takes the 8 x 8 images of scikit-learn, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.data import Images, two_classes
from deepcheck.device import describe
from deepcheck.match import linearity, match
from odeflow import Adversary, LearningRule
from odeflow.anisotropic import Mixture, Samples, integrate, simulate
from odeflow.provenance import provenance
from studies.deep_on_mnist_figures import figures
from studies.deep_on_mnist_findings import MEASURED, NEAR, claims, judged, table
from studies.pairs import (
    FREE,
    NEGATIVE,
    POSITIVE,
    Norm,
    examples,
    fingerprint,
    images_of,
    kept,
    least_sizes,
    pair_recipe,
    place,
    trained,
)
from studies.parallel import in_processes
from studies.registry import Outcome

Array = npt.NDArray[np.float64]

SEED = 20260711
ATTACKED = 1  # linear classifiers of each training that PGD attacks
SIZES = 33  # sizes of the attack, from 0 to the largest one, for the lines
WITHIN = 0.03  # of the measured curve, up to the training epsilon
MODELS = {"convolutional": "conv_small", "residual": "resnet_ccat"}


@dataclass(frozen=True)
class Setting:
    """What is trained, and how it is attacked."""

    title: str
    trainings: dict[Norm, tuple[float, ...]]
    """Training epsilons by norm; standard training is there besides."""
    largest: dict[Norm, float]
    """Largest size of the attack; the training epsilons are multiples of 1/32 of it, at which PGD attacks."""
    nets: dict[str, dict[Norm, tuple[float, ...]]]
    """Training epsilons of each deep net."""
    runs: dict[str, int]
    """Number of nets of each kind, each with a seed of its own."""
    eta: float
    """Learning rate per image of the linear classifier."""
    images: int
    """Images that it learns from."""
    recipes: dict[str, dict[str, Any]]
    """Fields of the recipe of each deep net."""
    counts: dict[str, int]
    """Training images of the nets that do not take all of them."""
    examples: dict[str, int]
    """Test images that PGD attacks."""
    checked: dict[str, int]
    """Test images that AT nets are attacked on at their training epsilon: more, as little is expected to be turned."""
    of_linearity: int = 60
    """Test images at which the deviation from the linear approximation is measured."""
    within: float = WITHIN
    theory_within: float = 0.06


_MNIST: dict[Norm, tuple[float, ...]] = {"linf": (0.1, 0.2, 0.3), "l2": (1.0, 2.0)}
_DIGITS: dict[Norm, tuple[float, ...]] = {"linf": (0.1,), "l2": (0.4,)}
SETTINGS = {
    "mnist": Setting(
        "MNIST",
        _MNIST,
        {"linf": 0.4, "l2": 4.0},
        {"convolutional": _MNIST, "residual": {"linf": (0.1,), "l2": (1.0,)}},
        {"linear": 20, "convolutional": 3, "residual": 2},
        eta=0.01,
        images=6_000,
        recipes={
            "convolutional": {"epochs": 4},
            "residual": {"epochs": 4, "width": 4},
        },
        counts={"residual": 4_000},
        examples={"linear": 300, "convolutional": 250, "residual": 100},
        checked={"convolutional": 600, "residual": 300},
    ),
    "digits": Setting(  # the quick form, too: without the residual net, which takes longest
        "scikit-learn's digits, not MNIST",
        _DIGITS,
        {"linf": 0.4, "l2": 1.6},
        {"convolutional": _DIGITS},
        {"linear": 20, "convolutional": 2},
        eta=0.1,
        images=2_000,
        recipes={"convolutional": {"epochs": 15}},
        counts={},
        examples={"linear": 95, "convolutional": 95},
        checked={"convolutional": 95},
        of_linearity=30,
        within=0.06,  # of 95 images, 5
        theory_within=0.1,  # two standard errors of 95 images
    ),
}


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets and what was measured of them are kept in the folder, and not done again."""
    if folder is None:
        raise ValueError("folder = None is not allowed: a folder for checkpoints and records is")
    images, note = images_of(quick=quick)
    setting = SETTINGS[images.name]
    if images.name != "mnist" and not quick:
        folder = folder.with_name(f"{folder.name}_{images.name}")
    folder.mkdir(exist_ok=True)
    theory = _theory(setting, images)
    tasks: list[tuple[Any, ...]] = []
    for net, epsilons in reversed(setting.nets.items()):  # the slow ones first
        trainings = [(norm, epsilon) for norm, some in epsilons.items() for epsilon in some]
        for norm, epsilon in [*trainings, ("linf", 0.0)]:
            tasks += [(net, norm, epsilon, seed, images, folder, theory) for seed in range(setting.runs[net])]
    tasks += [("linear", norm, epsilon, None, images, folder, theory) for norm, epsilon in theory]
    nets: dict[str, list[xr.Dataset]] = {}
    for found in in_processes(_net, tasks):
        for one in found:
            nets.setdefault(one.case.item(), []).append(one)
    joint: dict[str, Any] = {"data_vars": "all", "coords": "different", "compat": "equals"}
    parts = [xr.concat(ones, "run", **joint) if len(ones) > 1 else ones[0] for ones in nets.values()]
    parts = [one if "run" in one.dims else one.expand_dims("run") for one in parts]
    order = {
        str(case): (list(setting.runs).index(net), norm, epsilon) for case, net, norm, epsilon in map(_keys, parts)
    }
    parts.sort(key=lambda one: order[one.case.item()])
    parts = [one.assign_coords(run=np.arange(one.sizes["run"])) for one in parts]
    data = judged(xr.concat(parts, "case", join="outer", **joint))
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), device=describe(place()), data=repr(images), setting=setting,
        positive=POSITIVE, negative=NEGATIVE, steps=40, restarts=3, w0=0.03, b0=0.0,
    ) | {"data_set": images.name, "note": note, "title": f"{setting.title}: {POSITIVE} against {NEGATIVE}"}  # fmt: skip
    return Outcome(data, figures(data), table(data, setting), tuple(claims(data, setting)))


def _keys(one: xr.Dataset) -> tuple[Any, ...]:
    return tuple(one[name].item() for name in ("case", "net", "norm", "epsilon"))


def _sizes(setting: Setting, norm: Norm) -> Array:
    return np.linspace(0, setting.largest[norm], SIZES)


# --- training and measuring ---


def _theory(setting: Setting, images: Images) -> dict[tuple[Norm, float], tuple[Array, Array]]:
    """Return what a linear classifier learns in theory, for each training: its curve S, and its weights."""
    pair = two_classes(images, POSITIVE, NEGATIVE)
    mixture, rule = Mixture.from_samples(pair.X_train, pair.y_train), LearningRule.per_example(setting.eta, pair.N)
    curves = {}
    for norm in setting.trainings:
        for epsilon in (0.0, *setting.trainings[norm]):
            adversary = Adversary(epsilon, norm=norm)
            options: dict[str, Any] = {"examples": [setting.images], "test_epsilon": _sizes(setting, norm)}
            found = integrate(mixture, rule, adversary, weights=True, **options).isel(examples=0)
            curves[norm, epsilon] = found.adversarial_error.values, found.w.values
    return curves


def _net(
    net: str, norm: Norm, epsilon: float, seed: int | None, images: Images, folder: Path,
    theory: dict[tuple[Norm, float], tuple[Array, Array]],
) -> list[xr.Dataset]:  # fmt: skip
    """Return what was measured after one training: in its norm, or in every norm if it is standard training.

    Of a deep net of that seed; or of all linear classifiers, in its norm only.
    """
    setting = SETTINGS[images.name]
    x, y = examples(images, setting.examples[net])
    if seed is None:
        return [_linear(norm, epsilon, x, y, images, folder, theory[norm, epsilon])]
    label = f"{net}_{norm}_{epsilon:g}_{seed}" if epsilon else f"{net}_standard_{seed}"
    recipe = pair_recipe(images.name, norm, epsilon, model=MODELS[net], seed=SEED + seed, **setting.recipes[net])
    residual = net == "residual"
    network = trained(recipe, images, folder / label, count=setting.counts.get(net), channels_last=residual)
    norms = [norm] if epsilon else [one for one in setting.trainings if setting.nets[net][one]]
    parts = []
    for one in norms:
        what = (SEED, images.name, _effort(setting, net, one), fingerprint(network))

        def measure(one: Norm = one) -> xr.Dataset:
            return _measured(network, x, y, setting, one, theory[one, epsilon][1])

        found = kept(folder / f"{label}_{one}.nc", what, measure)
        if epsilon:
            subject = (SEED, images.name, setting.checked[net], norm, epsilon, fingerprint(network))
            checked = examples(images, setting.checked[net])

            def check(checked: tuple[Tensor, Tensor] = checked) -> xr.Dataset:
                return _checked(network, *checked, norm, epsilon)

            found = found.merge(kept(folder / f"{label}_check.nc", subject, check))
        parts.append(_named(found, net, one, epsilon))
    return parts


def _effort(setting: Setting, net: str, norm: Norm) -> tuple[Any, ...]:
    return (
        setting.eta,
        setting.images,
        setting.examples[net],
        setting.of_linearity,
        setting.largest[norm],
        *MEASURED,
        40,  # steps of PGD
    )


def _linear(
    norm: Norm, epsilon: float, x: Tensor, y: Tensor, images: Images, folder: Path, theory: tuple[Array, Array]
) -> xr.Dataset:
    """Return what was measured of linear classifiers that learn by one-pass SGD on the images.

    Their curve is exact, and on all test images; PGD attacks one of them on some, to see whether it finds the same.
    """
    setting = SETTINGS[images.name]
    pair = two_classes(images, POSITIVE, NEGATIVE)
    rule, train = LearningRule.per_example(setting.eta, pair.N), Samples(pair.X_train, pair.y_train)
    options: dict[str, Any] = {"examples": [setting.images], "weights": True, "runs": setting.runs["linear"]}
    options |= {"test": Samples(pair.X_test, pair.y_test), "test_epsilon": _sizes(setting, norm)}
    learned = simulate(train, rule, Adversary(epsilon, norm=norm), rng=SEED, **options).isel(examples=0)
    mean = torch.tensor(pair.mean.reshape(pair.shape)).to(x)

    W = learned.w.values[:ATTACKED]

    def measure() -> xr.Dataset:
        found = []
        for w, b in zip(W, learned.b.values, strict=False):
            weights, bias = torch.tensor(w).to(x).view(pair.shape), float(b)

            def margin(at: Tensor, weights: Tensor = weights, bias: float = bias) -> Tensor:
                return ((at - mean) * weights).flatten(1).sum(1) - bias

            found.append(_measured(margin, x, y, setting, norm, theory[1]))
        return xr.concat(found, "run", coords="minimal", compat="equals")

    what = (SEED, images.name, _effort(setting, "linear", norm), W.tobytes())
    one = kept(folder / f"linear_{norm}_{epsilon:g}.nc", what, measure)
    exact = learned.adversarial_error.values  # on all test images; PGD is checked on some
    one = one.assign_coords(run=range(len(W))).reindex(run=range(len(exact)))
    one = one.assign(measured=(("run", "test"), exact[:, MEASURED]), locally_linear=(("run", "size"), exact))
    return _named(one.assign(theory=("size", theory[0])), "linear", norm, epsilon)


def _measured(model: Model, x: Tensor, y: Tensor, setting: Setting, norm: Norm, w: Array) -> xr.Dataset:
    """Return the measured and the predicted curves of a classifier, and how linear it is.

    `w` are the weights of the linear classifier that learns with the same epsilon, in theory.
    """
    sizes = _sizes(setting, norm)
    tests = sizes[MEASURED]
    batch = 100 if isinstance(model, torch.nn.Module) else 500  # of linear ones more is faster
    local = match(model, x, y, epsilon=list(sizes), norm=norm, directions={"linear": w}, batch_size=batch)
    boxed, least = least_sizes(model, x, y, epsilon=list(tests), norm=norm, seed=SEED, batch_size=batch)
    turned = least <= tests[:, None]
    some = slice(None, None, max(len(x) // setting.of_linearity, 1))
    deviation = np.full(len(tests), np.nan)
    options: dict[str, Any] = {"norm": norm, "generator": torch.Generator(x.device).manual_seed(SEED)}
    found = linearity(model, x[some], y[some], epsilon=list(tests[1:]), bounds=FREE, batch_size=batch, **options)
    deviation[1:] = found.nonlinearity.sel(perturbation="pgd").values
    distance = local.distance.values
    stuck = np.isnan(distance)
    distance = np.where(stuck, np.where(local.label * local.z > 0, np.inf, -np.inf), distance)
    with np.errstate(invalid="ignore"):
        near = [np.mean(np.abs(distance - size) <= NEAR * size) for size in tests]
    return xr.Dataset(
        {
            "measured": ("test", turned.mean(1)),
            "boxed": ("test", (boxed <= tests[:, None]).mean(1)),
            "locally_linear": ("size", local.locally_linear.values),
            "gaussian": ("size", local.gaussian.values),
            "disagreement": ("test", np.mean(turned != (distance <= tests[:, None]), axis=1)),
            "near": ("test", near),
            "nonlinearity": ("test", deviation),
            "coherence": local.coherence,
            "R_eff": ("direction", local.R_eff.values),
            "R_mean_gradient": ("direction", local.R_mean_gradient.values),
            "b_eff": local.b_eff,
            "zero_gradients": float(local.zero_gradients),
        },
        {"size_epsilon": ("size", sizes), "test_epsilon": ("test", tests), "direction": ["means", "linear"]},
    ).drop_attrs(deep=True)


def _checked(model: Model, x: Tensor, y: Tensor, norm: Norm, epsilon: float) -> xr.Dataset:
    """Return the measured and the predicted S at one size of the attack."""
    predicted = match(model, x, y, epsilon=[epsilon], norm=norm, batch_size=100).locally_linear.item()
    least = least_sizes(model, x, y, epsilon=[epsilon], norm=norm, seed=SEED, batch_size=100)[1]
    return xr.Dataset({"checked_measured": np.mean(least <= epsilon), "checked_locally_linear": predicted})


def _named(one: xr.Dataset, net: str, norm: Norm, epsilon: float) -> xr.Dataset:
    """Give what was measured of a net its place: the dim case, by its net and training."""
    return one.drop_attrs(deep=True).assign_coords(
        case=f"{net}, {norm} {epsilon:g}", net=net, norm=norm, epsilon=epsilon
    )
