"""The study of the collapse: what is measured, beside theory, in one Dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from deepcheck.data import Images, two_class_images
from odeflow import GaussianMixture
from odeflow.parameters import LABELS
from odeflow.provenance import provenance
from studies.collapse.claims import claims, table
from studies.collapse.figures import figures
from studies.collapse.measure import (
    END,
    RECALL,
    RECALLS,
    RULES,
    SEED,
    SHOWN_RHO,
    SIZES,
    TEST,
    Convolutional,
    Nets,
    P,
    Pair,
    critical,
    half_distance,
    linear_on_images,
    nets_on_mixture,
    swept,
    trained_start,
    unbalanced,
)
from studies.collapse.plan import Plan, plan_of
from studies.common.images import classes_text, images_of, place
from studies.common.kept import kept, study_folder
from studies.common.nets import kept_training, pair_recipe
from studies.common.parallel import in_processes
from studies.common.subject import OWN, Subject
from studies.registry import Outcome

_UNITS = "half the separation"


def run(name: str, *, quick: bool = False, folder: Path | None = None, subject: Subject = OWN) -> Outcome:
    """Run the study; what was trained and measured is kept in the folder, and not done again."""
    folder = study_folder(folder)
    images, note = images_of(subject, quick=quick)
    plan = plan_of(subject, images.name, quick=quick)
    tasks: list[tuple[Any, ...]] = [(folder, pair, images) for pair in plan.pairs]
    tasks += [(folder, nets, rho) for nets in plan.nets for rho in nets.rho]
    tasks += [
        (folder, one, images, size, seed)
        for one in plan.convolutional
        for size in one.sizes
        for seed in range(one.seeds)
    ]
    parts = in_processes(_task, tasks)
    data = assembled(parts, plan)
    data.attrs |= provenance(
        f"studies.{name}", seed=str(SEED), p=P, recall=RECALL, data=repr(images), plan=asdict(plan)
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    return Outcome(data, figures(data), table(data), tuple(claims(data, quick=quick)))


def assembled(parts: Sequence[xr.Dataset], plan: Plan) -> xr.Dataset:
    """Return what was measured as the data of the study: of mixtures, of linear classifiers and of nets on images.

    What is not in the plan is not there.
    """
    joined = []
    if plan.nets:
        joined += [_theory(), _listed([one for one in parts if "net" in one.coords], "net", "case")]
    if plan.pairs:
        joined.append(_listed([one for one in parts if "image_norm" in one.coords], "image", "pair"))
    joined.append(_of_nets([one for one in parts if "conv" in one.coords]))
    data = xr.merge(joined, join="outer", compat="no_conflicts")
    describe(data)
    one = plan.convolutional[0]
    deep = "convolutional" if one.model == "conv_small" else one.model
    data.attrs = {"deep": deep, "deep_classes": classes_text(one.classes)}
    return data


def _task(folder: Path, what: Nets | Pair | Convolutional, *rest: Any) -> xr.Dataset:
    """Measure one thing, in a process of its own; what is in the folder is not measured again."""
    if isinstance(what, Convolutional):
        images, size, seed = rest
        return net_on_images(what, images, size, seed, folder)
    settings = SEED, P, TEST, RULES, what
    if isinstance(what, Nets):
        (rho,) = rest
        name = re.sub(r"\W+", "_", what.name)
        return kept(folder, f"{name}_rho_{rho:g}", (*settings, rho), nets_on_mixture, what, rho)
    (images,) = rest
    name = f"linear_{what.positive}_{what.negative}_{what.norm}"
    return kept(folder, name, (*settings, images.name), linear_on_images, what, images)


def net_on_images(one: Convolutional, images: Images, size: float, seed: int, folder: Path) -> xr.Dataset:
    """Train a net on two classes, and return its recall of the minority and its error."""
    pair = unbalanced(two_class_images(images, *one.classes), P, one.images)
    means = [pair.train_images[pair.train_labels == label].mean(0).ravel() / 255 for label in (1, 0)]
    unit = half_distance(means[0], means[1], one.norm)
    changes: dict[str, Any] = {"epochs": one.epochs, "seed": seed, "model": one.model, **dict(one.recipe)}
    recipe = pair_recipe(images.name, one.norm, size * unit, ramp=one.ramp, **changes)
    name = f"conv_{one.norm}_ramp_{one.ramp:g}_size_{size:g}_seed_{seed}"
    network = kept_training(
        recipe, pair, folder, name, device=str(place()), channels_last="resnet" in one.model
    ).network
    x = torch.tensor(pair.test_images).to(place()).float() / 255
    with torch.no_grad():
        predicted = torch.cat([network(part).argmax(1) for part in x.split(500)]).cpu().numpy()
    wrong = predicted != pair.test_labels
    minority = pair.test_labels == 0
    weighted = P * wrong[~minority].mean() + (1 - P) * wrong[minority].mean()
    return xr.Dataset(
        {"conv_recall": 1 - wrong[minority].mean(), "conv_error": weighted},
        {"conv": one.kind, "conv_size": size, "run": seed, "conv_unit": unit},
    )


def _theory() -> xr.Dataset:
    """Return theory's recall, b and E over epsilon, and its critical epsilon over rho and over alpha."""
    sizes = SIZES
    rhos = np.linspace(0.8, 3.2, 13)
    alphas = np.geomspace(20, 1000, 30)
    shown = GaussianMixture(p=P, rho=SHOWN_RHO)
    parts = []
    for rule in RULES.values():
        lines = swept(shown, rule, {"epsilon": sizes * SHOWN_RHO / 2}, [END]).isel(alpha=0)
        trained = swept(shown, rule, {"epsilon": sizes * SHOWN_RHO / 2}, [END], trained_start(shown, rule))
        over_rho = []
        for rho in rhos:
            mixture = GaussianMixture(p=P, rho=rho)
            one = swept(mixture, rule, {"epsilon": sizes * rho / 2}, [END])
            over_rho.append([critical(sizes, one.recall.values[:, 0], share) for share in RECALLS])
        over_alpha = swept(shown, rule, {"epsilon": sizes * SHOWN_RHO / 2}, alphas).recall.values.T
        parts.append(
            xr.Dataset(
                {
                    "theory_recall": ("size", lines.recall.values),
                    "theory_b": ("size", (lines.b / np.sqrt(lines.Q) if "Q" in lines else lines.b).values),
                    "theory_error": ("size", lines.error.values),
                    "theory_trained_recall": ("size", trained.recall.values[:, 0]),
                    "theory_critical": (("line_rho", "share"), np.array(over_rho)),
                    "theory_critical_in_time": (
                        ("line_alpha", "share"),
                        np.stack([critical(sizes, over_alpha, share) for share in RECALLS], -1),
                    ),
                },
                {"size": sizes, "line_rho": rhos, "line_alpha": alphas, "share": list(RECALLS)},
            )
        )
    return xr.concat(parts, xr.DataArray(list(RULES), dims="rule", name="rule"))


def _listed(parts: Sequence[xr.Dataset], kind: str, along: str) -> xr.Dataset:
    """Return measured parts of a kind as one Dataset along a dim; point and run have names of their own."""
    points = [one.rename(point=f"{kind}_point", run=f"{kind}_run") for one in parts]
    return xr.concat(points, along, join="outer", data_vars="all", coords="all", combine_attrs="drop")


def _of_nets(conv: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return the deep nets on images as one Dataset; a net that is not there is NaN."""
    kinds = list(dict.fromkeys(one.conv.item() for one in conv))
    sizes = [sorted({one.conv_size.item() for one in conv if one.conv == kind}) for kind in kinds]
    seeds = 1 + max(one.run.item() for one in conv)
    shape = len(kinds), max(map(len, sizes)), seeds
    table = {name: np.full(shape, np.nan) for name in ("conv_recall", "conv_error")}
    at, unit = np.full(shape[:2], np.nan), np.full(len(kinds), np.nan)
    for one in conv:
        k = kinds.index(one.conv.item())
        j = sizes[k].index(one.conv_size.item())
        at[k, j], unit[k] = one.conv_size, one.conv_unit
        for name, values in table.items():
            values[k, j, one.run.item()] = one[name]
    dims = "conv", "conv_point", "seed"
    deep = xr.Dataset(
        {name: (dims, values) for name, values in table.items()}, {"conv": kinds, "seed": np.arange(seeds)}
    )
    deep["conv_epsilon"], deep["conv_unit"] = (dims[:2], at), ("conv", unit)
    found = [critical(at[k, : len(size)], table["conv_recall"][k, : len(size)].T) for k, size in enumerate(sizes)]
    return deep.assign(conv_critical=(("conv", "seed"), np.array(found)))


def describe(data: xr.Dataset) -> None:
    """Give each variable its long name and unit."""
    critical = "training epsilon at which the recall of the minority falls below the share"
    theory = "theory's {} at the end of training, over the training epsilon"
    names = {
        "size": "training epsilon",
        "line_rho": LABELS["rho"][0],
        "line_alpha": LABELS["alpha"][0],
        "share": "share of the minority class below which a net has collapsed",
        "rule": "learning rule: |w| = 1 with eta_w = 0.04, or free |w| with eta_w = 0.4",
        "theory_recall": theory.format("recall of the minority class"),
        "theory_b": theory.format("bias in units of |w|"),
        "theory_error": theory.format("classification error"),
        "theory_trained_recall": theory.format("recall of the minority class") + ", started from a trained state",
        "theory_critical": f"theory's critical epsilon over rho: {critical}",
        "theory_critical_in_time": f"theory's critical epsilon over alpha: {critical}",
        "net": "net, trained online on the mixture",
        "rho": LABELS["rho"][0],
        "N": LABELS["N"][0],
        "depth": "layers of weights",
        "start": "first weights: random, or of a training without attack",
        "net_rule": "learning rule of the net",
        "time": "learning time alpha at which the net is measured",
        "net_run": LABELS["run"][0],
        "net_point": "index of the training epsilon",
        "image_point": "index of the training epsilon",
        "net_epsilon": "training epsilon",
        "recall": "recall of the minority class, on clean examples",
        "error": LABELS["error"][0],
        "R": "cosine between the direction of the centres and the gradient of the margin, mean over examples",
        "b": "bias in units of |w|, of linear nets",
        "critical": f"measured {critical}",
        "expected": f"theory's {critical}, for a linear net of the same rule and start, share {RECALL:g}",
        "image_theory": "theory on data in the limit of small learning rates, or with the noise of SGD",
        "image_run": LABELS["run"][0],
        "image_norm": LABELS["norm"][0],
        "image_eta": "learning rate of weights and bias, per example",
        "classes": "majority against minority",
        "unit": "half the distance of the class means in the norm of the attack, in units of a pixel's range",
        "image_epsilon": "training epsilon",
        "image_theory_recall": "theory's recall of the minority class, of the mean weights",
        "image_theory_error": "theory's classification error",
        "image_theory_b": "theory's bias",
        "image_theory_norm": "theory's L2 norm of the weights",
        "image_theory_critical": f"theory's {critical}",
        "image_recall": "recall of the minority class on the test images",
        "image_error": "classification error on the test images",
        "image_b": LABELS["b"][0],
        "image_norm_of_w": LABELS["l2_norm"][0],
        "image_critical": f"measured {critical}",
        "conv": "norm of the attack on the convolutional net, and share of the training over which epsilon grows",
        "seed": "seed of the convolutional net",
        "conv_epsilon": "training epsilon",
        "conv_unit": "half the distance of the class means of its training images, in units of a pixel's range",
        "conv_recall": "recall of the minority class on the test images, convolutional net",
        "conv_error": "classification error on the test images, weighted by the priors, convolutional net",
        "conv_critical": f"measured {critical}, convolutional net",
    }
    lengths = {"size", "theory_critical", "theory_critical_in_time", "net_epsilon", "critical", "expected", "image_epsilon",
               "image_theory_critical", "image_critical", "conv_epsilon", "conv_critical"}  # fmt: skip
    for name in names.keys() & set(data.variables):
        text = names[name]
        data[name].attrs = {"long_name": text, "units": _UNITS if name in lengths else "1"}
