"""The study tradeoff_deep: errors of theory, linear and deep nets, on the mixture and on images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from deepcheck.data import Images, two_classes
from deepcheck.device import describe
from odeflow import Adversary, LearningRule, adversarial_error, classification_error, sweep
from odeflow.anisotropic import Mixture, Samples, integrate, simulate
from odeflow.provenance import provenance
from studies.common.bounds import bounds
from studies.common.images import NEGATIVE, POSITIVE, examples, images_of, place
from studies.common.kept import digest_of, kept, study_folder
from studies.common.nets import fingerprint, pair_recipe, trained
from studies.common.parallel import in_processes
from studies.registry import Outcome
from studies.tradeoff_deep.claims import WORLDS, claims, described, table, with_best
from studies.tradeoff_deep.figures import figure
from studies.tradeoff_deep.measure import HIDDEN, MIXTURE, RULE, SEED, TEST, Online, image_net, online_nets
from studies.tradeoff_deep.plan import ON_IMAGES, ONLINE, OnImages

Array = npt.NDArray[np.float64]

LARGEST = 1.3  # training epsilon on the mixture
LINE = 53  # training epsilons of the lines


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets and what was measured of them are kept in the folder, and not done again."""
    images, note = images_of(quick=quick)
    setting, online = ON_IMAGES[images.name], ONLINE[quick]
    training = online.training
    folder = study_folder(folder, instead="" if quick or images.name == "mnist" else images.name)
    convolutional: list[tuple[Any, ...]] = [
        ("images", epsilon, seed, images, folder)
        for epsilon in setting.training
        for seed in range(setting.runs["convolutional"])
    ]
    nets: list[tuple[Any, ...]] = [(net, epsilon, online, folder) for net in HIDDEN for epsilon in training]
    tasks = [*convolutional, *nets]
    found = in_processes(_task, tasks)
    shape = len(setting.training), setting.runs["convolutional"]
    deep = np.array(found[: len(convolutional)]).reshape(*shape, 2)
    learned = np.array(found[len(convolutional) :]).reshape(len(HIDDEN), len(training), 2, -1)
    data = xr.merge([_on_mixture(online, training, learned), _on_images(images, setting, deep)], join="outer")
    data = described(with_best(data))
    data.attrs = provenance(
        f"studies.{name}", MIXTURE, RULE, seed=str(SEED), device=describe(place()), data=repr(images),
        setting=setting, online=online, hidden=HIDDEN, positive=POSITIVE, negative=NEGATIVE, w0=0.03, b0=0.0,
    ) | {"data_set": images.name, "note": note, "title": f"{setting.title}: {POSITIVE} against {NEGATIVE}"}  # fmt: skip
    data.attrs |= {"N": f"{online.N}", "alpha": f"{online.alpha:g}"}
    return Outcome(data, figure(data), table(data), tuple(claims(data, setting.within, quick=quick)))


def _task(kind: str, epsilon: float, *rest: Any) -> Any:
    """Return E and S of one net on images, or of all nets of a kind on the mixture."""
    return _image_net(epsilon, *rest) if kind == "images" else _online_nets(kind, epsilon, *rest)


# --- the mixture ---


def _online_nets(net: str, epsilon: float, online: Online, folder: Path) -> Array:
    """Return E and S of nets that learned online, shape (2, largest number of runs), padded with NaN."""
    name = f"mixture_{net.replace(' ', '_')}_{epsilon:g}"
    settings = (SEED, MIXTURE, RULE, HIDDEN[net], TEST, epsilon, online)
    errors = kept(folder, name, settings, online_nets, net, epsilon, online).errors.values
    return np.pad(errors, ((0, 0), (0, max(online.runs.values()) - online.runs[net])), constant_values=np.nan)


def _on_mixture(online: Online, training: tuple[float, ...], learned: Array) -> xr.Dataset:
    """Return theory and nets on the mixture."""
    line = np.linspace(0, LARGEST, LINE)

    def theory(grid: Array) -> tuple[Array, Array]:
        end = sweep(MIXTURE, RULE, Adversary(), over={"epsilon": grid}, alpha=[online.alpha]).isel(alpha=0)
        R, b = end.R.values, end.b.values
        return classification_error(R, b, MIXTURE), adversarial_error(R, b, MIXTURE, TEST)

    return _world("mixture", line, theory(line), np.array(training), theory(np.array(training)), list(HIDDEN), learned)


def _world(
    world: str, line: Array, on_line: tuple[Array, Array], training: Array, theory: tuple[Array, Array], nets: list[str],
    learned: Array,
) -> xr.Dataset:  # fmt: skip
    """Return E and S of theory and nets under names of their own; `learned` has shape (nets, training, 2, runs)."""
    at, over = f"{world}_training", f"{world}_line"
    dims = f"{world}_net", at, f"{world}_run"
    return xr.Dataset(
        {
            f"{world}_line_error": (over, on_line[0]),
            f"{world}_line_adversarial_error": (over, on_line[1]),
            f"{world}_theory_error": (at, theory[0]),
            f"{world}_theory_adversarial_error": (at, theory[1]),
            f"{world}_error": (dims, learned[:, :, 0]),
            f"{world}_adversarial_error": (dims, learned[:, :, 1]),
        },
        {at: training, over: line, f"{world}_net": nets, f"{world}_run": np.arange(learned.shape[-1])},
    )


# --- images ---


def _image_net(epsilon: float, seed: int, images: Images, folder: Path) -> Array:
    """Return E, on all test images, and S, on some of them, of a convolutional net."""
    setting = ON_IMAGES[images.name]
    label = f"{epsilon:g}_{seed}"
    recipe = pair_recipe(images.name, "l2", epsilon, seed=SEED + seed, epochs=setting.epochs)
    network = trained(recipe, images, folder, label)
    every, some = examples(images, 1_000_000), examples(images, setting.attacked)
    settings = (SEED, digest_of(*every, *some), setting.test, fingerprint(network))
    errors = kept(folder, f"{label}_errors", settings, image_net, network, every, some, setting.test).errors
    return np.asarray(errors.values)


def _on_images(images: Images, setting: OnImages, deep: Array) -> xr.Dataset:
    """Return theory, linear classifiers and convolutional nets (errors of shape (training, runs, 2)) on images."""
    pair = two_classes(images, POSITIVE, NEGATIVE)
    mixture, train = Mixture.from_samples(pair.X_train, pair.y_train), Samples(pair.X_train, pair.y_train)
    rule, test = LearningRule.per_example(setting.eta, pair.N), Samples(pair.X_test, pair.y_test)
    options: dict[str, Any] = {"examples": [setting.images], "test_epsilon": [setting.test]}

    def theory(grid: Array, rule: LearningRule = rule) -> tuple[Array, Array]:
        ends = [integrate(mixture, rule, Adversary(epsilon, norm="l2"), **options) for epsilon in grid]
        return np.array([end.error.item() for end in ends]), np.array([end.adversarial_error.item() for end in ends])

    training, line = np.array(setting.training), np.linspace(0, setting.largest, LINE // 2)
    learned = np.full((2, len(training), 2, max(setting.runs.values())), np.nan)
    for k, epsilon in enumerate(training):
        runs = setting.runs["linear"]
        end = simulate(train, rule, Adversary(epsilon, norm="l2"), runs=runs, rng=SEED, test=test, **options)
        learned[0, k, :, :runs] = end.error.values[:, 0], end.adversarial_error.values[:, 0, 0]
    learned[1, ..., : deep.shape[1]] = deep.transpose(0, 2, 1)
    data = _world("images", line, theory(line), training, theory(training), ["linear", "convolutional"], learned)
    limit = theory(training, replace(rule, second_order=False))
    for name, errors in zip(("error", "adversarial_error"), limit, strict=True):
        data[f"images_limit_{name}"] = "images_training", errors
    x, y = (one.cpu().numpy() for one in examples(images, setting.attacked))
    below = [bounds(X, plus, [setting.test], "l2")[:, 0] for X, plus in ((test.X, test.y > 0), (x, y == 1))]
    for key, one in zip(("bound", "bound_at_larger"), np.transpose(below), strict=True):
        data[f"images_{key}"] = "images_net", one
    return data.assign(test_epsilon=("world", [TEST, setting.test])).assign_coords(world=list(WORLDS))
