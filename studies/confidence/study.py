"""The study confidence: shares and areas of theory, of linear nets that learn online, and of nets on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import brentq
from scipy.special import erf, expit, logit

from deepcheck.data import Images, two_class_images
from deepcheck.device import describe
from deepcheck.training import Recipe, recipe
from odeflow import GaussianMixture, integrate
from odeflow.parameters import label
from odeflow.provenance import provenance
from studies.common import tables
from studies.common.images import images_of, place
from studies.common.kept import kept, study_folder
from studies.common.nets import fingerprint, kept_training
from studies.common.parallel import in_processes
from studies.common.subject import OWN, Subject
from studies.confidence.claims import claims, table
from studies.confidence.figures import figures
from studies.confidence.margins import (
    Gaussians,
    accepted,
    auc_at,
    class_margins,
    seed_margins,
    share,
    symmetric_auc,
    t_erf,
)
from studies.confidence.measure import (
    ADVERSARIES,
    LEVELS,
    MEASURED,
    PRIORS,
    RULES,
    SEED,
    SIZES,
    Setting,
    margins_of,
    simulate,
)
from studies.confidence.plan import DIGITS, FULL, setting_of
from studies.registry import Outcome

ALPHA = np.linspace(0, 100, 101)
BOUNDS = (0.01, 0.05)
"""Shares of the attacked examples that may be wrong with more confidence than the level, for `accepted`."""


def run(name: str, *, quick: bool = False, folder: Path | None = None, subject: Subject = OWN) -> Outcome:
    """Run the study; what has been trained and attacked is kept in the folder, and not done again.

    Theory and the nets that learn online are no part of it where the images or nets are others than the study's own:
    they would be the same again.
    """
    every, note = images_of(subject, quick=quick)
    note = "" if quick else note  # the digits are what the quick form is of
    images = two_class_images(every, *subject.classes)
    setting = setting_of(subject, every.name, quick=quick)
    stands_in = not quick and every.name != subject.dataset
    folder = study_folder(folder, instead=every.name if stands_in else "")
    models = [(p, rule, training) for p in PRIORS for rule in RULES for training in ADVERSARIES]
    models = models if subject.is_own else []
    online = DIGITS if quick else FULL
    keys = [(net, seed) for net in setting.nets for seed in range(setting.seeds)]
    tasks: list[tuple[Any, ...]] = [(net_on_images, *key, images, setting, folder) for key in keys]
    seeds = np.random.SeedSequence(SEED).generate_state(len(models))
    tasks += [(simulate, *one, online, int(seed)) for one, seed in zip(models, seeds, strict=True)]
    results = in_processes(_call, tasks)
    measured, simulated = results[: len(keys)], results[len(keys) :]
    summaries = {one: summary(result, setting) for one, result in zip(keys, measured, strict=True)}
    data = of_nets(summaries, setting)
    if models:
        data = _of_models(models, simulated, online).merge(data)
    options: dict[str, Any] = {
        "setting": asdict(setting),
        "online": asdict(online),
        "rules": RULES,
        "adversaries": ADVERSARIES,
    }
    data.attrs |= provenance(
        f"studies.{name}", seed=str(SEED), device=describe(place()), data=repr(images), **options
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    describe_variables(data)
    return Outcome(data, figures(data), table(data), tuple(claims(data)))


def _call(function: Callable[..., xr.Dataset], *arguments: Any) -> xr.Dataset:
    return function(*arguments)


# --- theory ---


def theory(p: float, rule: str, training: str) -> xr.Dataset:
    """Return what theory says of one model: the share at all times; AUC and accepted at the end (exact)."""
    mixture = GaussianMixture(p=p)
    found = integrate(mixture, RULES[rule], ADVERSARIES[training], alpha=ALPHA)
    R, b = (found[name].values[:, None, None] for name in ("R", "b"))
    Q = found.Q.values[:, None, None] if "Q" in found else np.ones_like(R)
    law = seed_margins(R, b, Q, mixture, np.array(SIZES)[:, None])
    ends = [seed_margins(R[-1, 0, 0], b[-1, 0, 0], Q[-1, 0, 0], mixture, size) for size in SIZES]
    t = np.array([[_threshold(end, bound) for end in ends] for bound in BOUNDS])
    return xr.Dataset(
        {
            "share": (("alpha", "delta", "level"), law.below(-t_erf(LEVELS))),
            "auc": ("delta", [end.auc() for end in ends]),
            "length": ("alpha", np.sqrt(Q[:, 0, 0])),
            "least_level": (("bound", "delta"), (1 + erf(t)) / 2),
            "accepted": (("bound", "delta"), 1 - ends[0].below(t)),
            "clean_share": ("level", 1 - ends[0].below(t_erf(LEVELS))),
        }
    )


def _threshold(law: Gaussians, bound: float) -> float:
    """Return the least t >= 0 with a probability of at most `bound` of a signed margin below -t."""
    if law.below(0.0) <= bound:
        return 0.0
    return float(brentq(lambda t: float(law.below(-t)) - bound, 0.0, float((np.abs(law.mean) + 9 * law.sd).max())))


# --- nets on images ---


def _recipe(net: str, seed: int, setting: Setting, images: Images) -> Recipe:
    model, method = setting.nets[net]
    epsilon = setting.epsilon
    own: dict[str, Any] = {"test_epsilon": epsilon}
    if method == "at":
        own = {"epsilon": epsilon, "attack_steps": 5, "step_size": epsilon / 2.5, "width": None, "augmentation": "none"}
    if method == "ccat":
        attack = {
            "epsilon": epsilon,
            "attack_steps": 5,
            "step_size": epsilon / 5,
            "starts": "published",
            "first_steps": None,
        }
        own = attack | {"epochs": setting.ccat_epochs}
    common = {"epochs": setting.epochs, "validation": setting.validation, "batch_size": setting.batch_size}
    given = dict(setting.of_linear if model == "linear" else setting.recipe)
    return recipe(images.name.split()[0], method, model=model, seed=seed, **(common | own | given))


def net_on_images(net: str, seed: int, images: Images, setting: Setting, folder: Path) -> xr.Dataset:
    """Train a net and return its margins; both are taken from the folder, if they are there."""
    one = _recipe(net, seed, setting, images)
    name = f"{one.model}_{one.method.name}_{one.seed}"
    channels_last = "resnet" in one.model
    network = kept_training(one, images, folder, name, device=str(place()), channels_last=channels_last).network
    settings = (setting, SEED, images.name, fingerprint(network))
    return kept(folder, f"{name}_margins", settings, margins_of, network, images, setting, one.seed)


def summary(one: xr.Dataset, setting: Setting) -> xr.Dataset:
    """Return what is shown of one net's margins."""
    margin, linear, label = (one[name].values for name in ("margin", "linear_margin", "label"))
    law = class_margins(linear, label)
    law = Gaussians(law.p, law.mean[:, None], law.sd[:, None])
    pairs = [[accepted(margin[0], values, bound) for values in margin] for bound in BOUNDS]
    index = setting.sizes.index(setting.epsilon)
    few = one.sizes["few"]
    longer = share(one.longer_margin.values, logit(MEASURED)) - share(margin[index, :few], logit(MEASURED))
    return xr.Dataset(
        {
            "net_share": (("net_delta", "measured_level"), share(margin, logit(MEASURED))),
            "linear_share": (("net_delta", "level"), share(linear, logit(LEVELS))),
            "gaussian_share": (("net_delta", "level"), law.below(-logit(LEVELS))),
            "net_clean_share": ("level", (margin[0] >= logit(LEVELS)[:, None]).mean(-1)),
            "net_auc": ("net_delta", [auc_at(values) for values in margin]),
            "symmetric_auc": ("net_delta", symmetric_auc((margin <= 0).mean(-1))),
            "linear_auc": ("net_delta", [auc_at(values) for values in linear]),
            "net_least_level": (("bound", "net_delta"), expit([[t for t, _ in row] for row in pairs])),
            "net_accepted": (("bound", "net_delta"), [[part for _, part in row] for row in pairs]),
            "longer_gain": ((), float(longer.max())),
            "net_margin": (("net_delta", "example"), margin.astype(np.float32)),
        }
    )


# --- all together ---


def _of_models(
    models: Sequence[tuple[float, str, str]], simulated: Sequence[xr.Dataset], online: Setting
) -> xr.Dataset:
    """Return theory and the nets that learned online, along p, rule and training."""
    parts = {one: theory(*one).merge(points) for one, points in zip(models, simulated, strict=True)}
    data = _stacked(parts, {"p": PRIORS, "rule": tuple(RULES), "training": tuple(ADVERSARIES)})
    return data.assign_coords(
        level=LEVELS, measured_level=MEASURED, bound=list(BOUNDS), delta=list(SIZES), alpha=ALPHA,
        simulated_alpha=list(online.alpha), epsilon=ADVERSARIES["at"].epsilon, N=online.N, tests=online.tests,
    )  # fmt: skip


def of_nets(summaries: dict[tuple[str, int], xr.Dataset], setting: Setting) -> xr.Dataset:
    """Return the summaries of nets on images, by net and seed in order, as one Dataset with the curve that they are put to."""
    error = np.linspace(0.005, 0.995, 67)
    seeds = range(len(summaries) // len(setting.nets))
    data = _stacked(summaries, {"net": tuple(setting.nets), "seed": tuple(seeds)})
    data = data.assign(auc_curve=("error", symmetric_auc(error))).assign_coords(
        level=LEVELS, measured_level=MEASURED, bound=list(BOUNDS), error=error, net_delta=list(setting.sizes),
        net_epsilon=setting.epsilon,
    )  # fmt: skip
    data.attrs["deep"] = setting.label
    return data


def _stacked(parts: dict[Any, xr.Dataset], over: dict[str, tuple[Any, ...]]) -> xr.Dataset:
    """Return Datasets whose keys are the values along some dimensions, in order, as one."""
    rows = list(parts.values())
    for dim, values in reversed(over.items()):
        along = xr.DataArray(list(values), dims=dim, name=dim)
        rows = [xr.concat(rows[i : i + len(values)], along) for i in range(0, len(rows), len(values))]
    return rows[0]


def describe_variables(data: xr.Dataset) -> None:
    """Give each variable its long name and unit."""
    names = {
        "share": "share of the examples whose attack reaches the level in a wrong class, theory",
        "simulated_share": "the same, of linear nets that learned online, attacked with PGD",
        "net_share": "the same, of nets trained on images, attacked with PGD",
        "linear_share": "the same, predicted from each example's linear approximation",
        "gaussian_share": "the same, predicted from Gaussian margins with their means and variances",
        "clean_share": "share of the clean examples that are right with a confidence of at least the level, theory",
        "net_clean_share": "the same, of nets trained on images",
        "auc": "area under the ROC curve of confidence, right against wrong at attacked points, theory",
        "simulated_auc": "the same, of linear nets that learned online",
        "net_auc": "the same, of nets trained on images",
        "symmetric_auc": "the same, of the seed model with equal priors and the same adversarial error",
        "auc_curve": "area under the ROC curve of the seed model with equal priors over its adversarial error",
        "error": "adversarial error",
        "linear_auc": "the same, predicted from each example's linear approximation",
        "least_level": "least level that at most the given share of attacked examples exceeds while wrong, theory",
        "net_least_level": "the same, of nets trained on images",
        "accepted": "share of the clean examples that are right and exceed that level, theory",
        "net_accepted": "the same, of nets trained on images",
        "length": "length of the weights, theory",
        "simulated_length": "length of the weights of linear nets that learned online",
        "net_margin": "signed margin of the true class after the attack",
        "longer_gain": "most that a longer attack adds to the share at a level, training epsilon",
        "level": "confidence in a wrong class",
        "measured_level": "confidence in a wrong class, where it is measured",
        "bound": "share of the attacked examples that may be wrong above the level",
        "delta": "size of the perturbation in testing, L2",
        "net_delta": "size of the perturbation in testing, L-infinity",
        "net_epsilon": "size of the perturbation in training, L-infinity",
        "simulated_alpha": "learning time, examples per dimension",
        "rule": "whether the length of the weights is kept at 1",
        "net": "net and training method",
        "seed": "seed of the training",
        "tests": "number of fresh examples that each linear net is attacked on",
    }
    label(data)
    tables.describe(data, {name: text for name, text in names.items() if name in data.variables})
