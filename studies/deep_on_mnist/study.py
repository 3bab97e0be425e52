"""The study deep_on_mnist: nets are trained and measured, and set beside the theory of linear classifiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from deepcheck.data import Images, two_classes
from deepcheck.device import describe
from odeflow import Adversary, LearningRule
from odeflow.anisotropic import Mixture, Samples, integrate, simulate
from odeflow.provenance import provenance
from studies.common.attacked import Norm
from studies.common.images import classes_text, examples, images_of, place
from studies.common.kept import digest_of, kept, study_folder
from studies.common.nets import fingerprint, pair_recipe, trained
from studies.common.parallel import in_processes
from studies.common.subject import OWN, Subject
from studies.deep_on_mnist.claims import claims, judged, table
from studies.deep_on_mnist.figures import figures
from studies.deep_on_mnist.measure import MEASURED, SEED, Setting, checked, linear_curves, measured, sizes_of
from studies.deep_on_mnist.plan import setting_of
from studies.registry import Outcome

Array = npt.NDArray[np.float64]

ATTACKED = 1  # linear classifiers of each training that PGD attacks
Theory = Mapping[tuple[Norm, float], tuple[Array, Array]]
"""For each training of a linear classifier: its curve S, and its weights."""


def run(name: str, *, quick: bool = False, folder: Path | None = None, subject: Subject = OWN) -> Outcome:
    """Run the study; nets and what was measured of them are kept in the folder, and not done again."""
    images, note = images_of(subject, quick=quick)
    setting = setting_of(subject, images.name, quick=quick)
    stands_in = not quick and images.name != subject.dataset
    folder = study_folder(folder, instead=images.name if stands_in else "")
    theory = theory_of(setting, images)
    tasks: list[tuple[Any, ...]] = []
    for net, runs in reversed([(net, setting.runs[net]) for net in setting.nets]):  # the slow ones first
        tasks += [
            (net, norm, epsilon, seed, images, folder, theory, setting)
            for norm, epsilon in trainings(setting, net)
            for seed in range(runs)
        ]
    tasks += [("linear", norm, epsilon, None, images, folder, theory, setting) for norm, epsilon in theory]
    parts = [one for found in in_processes(measured_net, tasks) for one in found]
    data = assembled(parts, setting)
    data.attrs |= provenance(
        f"studies.{name}", seed=str(SEED), device=describe(place()), data=repr(images), setting=setting,
        positive=setting.classes[0], negative=setting.classes[1], steps=setting.steps, restarts=3, w0=0.03, b0=0.0,
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    return Outcome(data, figures(data), table(data, setting), tuple(claims(data, setting)))


def trainings(setting: Setting, net: str) -> list[tuple[Norm, float]]:
    """Return norm and epsilon of each training of a deep net, standard training last."""
    return [*((norm, epsilon) for norm, some in setting.nets[net].items() for epsilon in some), ("linf", 0.0)]


def assembled(parts: Iterable[xr.Dataset], setting: Setting) -> xr.Dataset:
    """Return what `measured_net` found, of several nets, as the data of the study: along case and run."""
    nets: dict[str, list[xr.Dataset]] = {}
    for one in parts:
        nets.setdefault(one.case.item(), []).append(one)
    joint: dict[str, Any] = {"data_vars": "all", "coords": "different", "compat": "equals"}
    joined = [xr.concat(ones, "run", **joint) if len(ones) > 1 else ones[0] for ones in nets.values()]
    joined = [one if "run" in one.dims else one.expand_dims("run") for one in joined]
    order = {
        str(case): (list(setting.runs).index(net), norm, epsilon) for case, net, norm, epsilon in map(_keys, joined)
    }
    joined.sort(key=lambda one: order[one.case.item()])
    joined = [one.assign_coords(run=np.arange(one.sizes["run"])) for one in joined]
    keys = {name: ("case", [one[name].item() for one in joined]) for name in ("net", "norm", "epsilon")}
    data = judged(xr.concat(joined, "case", join="outer", **joint).assign_coords(keys))
    data.attrs["title"] = f"{setting.title}: {classes_text(setting.classes)}"
    return data


def _keys(one: xr.Dataset) -> tuple[Any, ...]:
    return tuple(one[name].item() for name in ("case", "net", "norm", "epsilon"))


# --- training and measuring ---


def theory_of(setting: Setting, images: Images) -> dict[tuple[Norm, float], tuple[Array, Array]]:
    """Return what a linear classifier learns in theory, for each training: its curve S, and its weights."""
    mixture = mixture_of(setting, images)
    return {
        (norm, epsilon): learned_in_theory(mixture, setting, norm, epsilon)
        for norm, epsilon in linear_trainings(setting)
    }


def linear_trainings(setting: Setting) -> list[tuple[Norm, float]]:
    """Return norm and epsilon of each training of the linear classifiers."""
    return [(norm, epsilon) for norm, some in setting.trainings.items() for epsilon in (0.0, *some)]


def mixture_of(setting: Setting, images: Images) -> Mixture:
    """Return means and covariances of the two classes."""
    pair = two_classes(images, *setting.classes)
    return Mixture.from_samples(pair.X_train, pair.y_train)


def learned_in_theory(mixture: Mixture, setting: Setting, norm: Norm, epsilon: float) -> tuple[Array, Array]:
    """Return the curve S and the weights of a linear classifier after one training."""
    rule = LearningRule.per_example(setting.eta, mixture.means.shape[1])
    options: dict[str, Any] = {"examples": [setting.images], "test_epsilon": sizes_of(setting, norm)}
    found = integrate(mixture, rule, Adversary(epsilon, norm=norm), weights=True, **options).isel(examples=0)
    return found.adversarial_error.values, found.w.values


def measured_net(
    net: str,
    norm: Norm,
    epsilon: float,
    seed: int | None,
    images: Images,
    folder: Path,
    theory: Theory,
    setting: Setting,
) -> list[xr.Dataset]:
    """Return what was measured after one training: in its norm, or in every norm if it is standard training.

    Of a deep net of that seed; or of all linear classifiers, in its norm only.
    """
    x, y = examples(images, setting.examples[net], setting.classes)
    if seed is None:
        return [_linear(norm, epsilon, x, y, images, folder, theory[norm, epsilon], setting)]
    label = f"{net}_{norm}_{epsilon:g}_{seed}" if epsilon else f"{net}_standard_{seed}"
    model = setting.models[net]
    recipe = pair_recipe(images.name, norm, epsilon, model=model, seed=SEED + seed, **setting.recipes[net])
    how: dict[str, Any] = {"pair": setting.classes, "channels_last": "resnet" in model}
    network = trained(recipe, images, folder, label, count=setting.counts.get(net), **how)
    norms = [norm] if epsilon else [one for one in setting.trainings if setting.nets[net][one]]
    parts = []
    for one in norms:
        direction = theory[one, epsilon][1]
        settings = (SEED, _effort(setting, x, y, one, direction), fingerprint(network))
        found = kept(folder, f"{label}_{one}", settings, measured, network, x, y, setting, one, direction)
        if epsilon:
            more = examples(images, setting.checked[net], setting.classes)
            subject = (SEED, digest_of(*more), norm, epsilon, setting.steps, fingerprint(network))
            options = network, *more, norm, epsilon, setting.steps
            found = found.merge(kept(folder, f"{label}_check", subject, checked, *options))
        parts.append(_named(found, net, one, epsilon))
    return parts


def _effort(setting: Setting, x: Tensor, y: Tensor, norm: Norm, direction: Array) -> tuple[Any, ...]:
    """Return the settings of a measurement; theory's direction without the digits that another machine rounds."""
    return (
        digest_of(x, y, direction.round(6)),
        setting.of_linearity,
        setting.largest[norm],
        *MEASURED,
        setting.steps,
    )


def _linear(
    norm: Norm, epsilon: float, x: Tensor, y: Tensor, images: Images, folder: Path, theory: tuple[Array, Array],
    setting: Setting,
) -> xr.Dataset:  # fmt: skip
    """Return what was measured of linear classifiers that learn by one-pass SGD on the images.

    Their curve is exact, and on all test images; PGD attacks one of them on some, to see whether it finds the same.
    """
    pair = two_classes(images, *setting.classes)
    rule, train = LearningRule.per_example(setting.eta, pair.N), Samples(pair.X_train, pair.y_train)
    options: dict[str, Any] = {"examples": [setting.images], "weights": True, "runs": setting.runs["linear"]}
    options |= {"test": Samples(pair.X_test, pair.y_test), "test_epsilon": sizes_of(setting, norm)}
    learned = simulate(train, rule, Adversary(epsilon, norm=norm), rng=SEED, **options).isel(examples=0)
    mean = torch.tensor(pair.mean.reshape(pair.shape)).to(x)

    W = learned.w.values[:ATTACKED]

    b = learned.b.values[:ATTACKED]
    settings = (SEED, _effort(setting, x, y, norm, theory[1]), W.tobytes())
    subject = (W, b, mean, x, y, setting, norm, theory[1])
    one = kept(folder, f"linear_{norm}_{epsilon:g}", settings, linear_curves, *subject)
    exact = learned.adversarial_error.values  # on all test images; PGD is checked on some
    one = one.assign_coords(run=range(len(W))).reindex(run=range(len(exact)))
    one = one.assign(measured=(("run", "test"), exact[:, MEASURED]), locally_linear=(("run", "size"), exact))
    return _named(one.assign(theory=("size", theory[0])), "linear", norm, epsilon)


def _named(one: xr.Dataset, net: str, norm: Norm, epsilon: float) -> xr.Dataset:
    """Give what was measured of a net its place: the dim case, by its net and training."""
    return one.drop_attrs(deep=True).assign_coords(
        case=f"{net}, {norm} {epsilon:g}", net=net, norm=norm, epsilon=epsilon
    )
