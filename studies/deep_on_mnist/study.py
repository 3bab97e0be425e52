"""The study deep_on_mnist: nets are trained and measured, and set beside the theory of linear classifiers."""

from __future__ import annotations

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
from studies.common.images import NEGATIVE, POSITIVE, examples, images_of, place
from studies.common.kept import digest_of, kept, study_folder
from studies.common.nets import fingerprint, pair_recipe, trained
from studies.common.parallel import in_processes
from studies.deep_on_mnist.claims import claims, judged, table
from studies.deep_on_mnist.figures import figures
from studies.deep_on_mnist.measure import MEASURED, SEED, Setting, checked, linear_curves, measured, sizes_of
from studies.deep_on_mnist.plan import SETTINGS
from studies.registry import Outcome

Array = npt.NDArray[np.float64]

ATTACKED = 1  # linear classifiers of each training that PGD attacks
MODELS = {"convolutional": "conv_small", "residual": "resnet_ccat"}


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets and what was measured of them are kept in the folder, and not done again."""
    images, note = images_of(quick=quick)
    setting = SETTINGS[images.name]
    folder = study_folder(folder, instead="" if quick or images.name == "mnist" else images.name)
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


# --- training and measuring ---


def _theory(setting: Setting, images: Images) -> dict[tuple[Norm, float], tuple[Array, Array]]:
    """Return what a linear classifier learns in theory, for each training: its curve S, and its weights."""
    pair = two_classes(images, POSITIVE, NEGATIVE)
    mixture, rule = Mixture.from_samples(pair.X_train, pair.y_train), LearningRule.per_example(setting.eta, pair.N)
    curves = {}
    for norm in setting.trainings:
        for epsilon in (0.0, *setting.trainings[norm]):
            adversary = Adversary(epsilon, norm=norm)
            options: dict[str, Any] = {"examples": [setting.images], "test_epsilon": sizes_of(setting, norm)}
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
    network = trained(recipe, images, folder, label, count=setting.counts.get(net), channels_last=residual)
    norms = [norm] if epsilon else [one for one in setting.trainings if setting.nets[net][one]]
    parts = []
    for one in norms:
        direction = theory[one, epsilon][1]
        settings = (SEED, _effort(setting, x, y, one, direction), fingerprint(network))
        found = kept(folder, f"{label}_{one}", settings, measured, network, x, y, setting, one, direction)
        if epsilon:
            more = examples(images, setting.checked[net])
            subject = (SEED, digest_of(*more), norm, epsilon, fingerprint(network))
            found = found.merge(kept(folder, f"{label}_check", subject, checked, network, *more, norm, epsilon))
        parts.append(_named(found, net, one, epsilon))
    return parts


def _effort(setting: Setting, x: Tensor, y: Tensor, norm: Norm, direction: Array) -> tuple[Any, ...]:
    """Return the settings of a measurement; theory's direction without the digits that another machine rounds."""
    return (
        digest_of(x, y, direction.round(6)),
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
