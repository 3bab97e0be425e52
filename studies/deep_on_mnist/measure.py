"""What is measured of a classifier: its curve under PGD, what predicts it, and how linear it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.match import linearity, match
from studies.common.attacked import FREE, Norm, least_sizes
from studies.common.images import batch_at

Array = npt.NDArray[np.float64]

SEED = 20260711
SIZES = 33  # sizes of the attack, from 0 to the largest one, for the lines
MEASURED = np.array([0, 4, 8, 12, 16, 24, 32])
"""Indices of the sizes of the attack at which PGD attacks."""
NEAR = 0.25
"""An image is near if its predicted distance differs by less than this share from the size of the attack."""


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
    steps: int = 40
    """Steps of PGD."""
    of_linearity: int = 60
    """Test images at which the deviation from the linear approximation is measured."""
    within: float = 0.03
    """How far the prediction for AT nets may be from the measured curve, up to the training epsilon."""
    theory_within: float = 0.06
    """How far theory may be from linear classifiers."""
    classes: tuple[str, str] = ("3", "7")
    """Classes of the data set with the labels +1 and -1."""
    models: dict[str, str] = field(default_factory=lambda: {"convolutional": "conv_small", "residual": "resnet_ccat"})
    """Model of each deep net."""


def sizes_of(setting: Setting, norm: Norm) -> Array:
    """Return the sizes of the attack at which there are predictions."""
    return np.linspace(0, setting.largest[norm], SIZES)


def measured(model: Model, x: Tensor, y: Tensor, setting: Setting, norm: Norm, w: Array) -> xr.Dataset:
    """Return the measured and the predicted curves of a classifier, and how linear it is.

    `w` are the weights of the linear classifier that learns with the same epsilon, in theory.
    """
    sizes = sizes_of(setting, norm)
    tests = sizes[MEASURED]
    batch = batch_at(x.device) if isinstance(model, torch.nn.Module) else 500  # of linear ones more is faster
    local = match(model, x, y, epsilon=list(sizes), norm=norm, directions={"linear": w}, batch_size=batch)
    options: dict[str, Any] = {"norm": norm, "batch_size": batch, "steps": setting.steps}
    boxed, least = least_sizes(model, x, y, epsilon=list(tests), seed=SEED, **options)
    turned = least <= tests[:, None]
    some = slice(None, None, max(len(x) // setting.of_linearity, 1))
    deviation = np.full(len(tests), np.nan)
    generator = torch.Generator(x.device).manual_seed(SEED)
    found = linearity(model, x[some], y[some], epsilon=list(tests[1:]), bounds=FREE, generator=generator, **options)
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


def linear_curves(
    W: Array, b: Array, mean: Tensor, x: Tensor, y: Tensor, setting: Setting, norm: Norm, direction: Array
) -> xr.Dataset:
    """Return what PGD and the predictions say of linear classifiers, one after the other."""
    found = []
    for w, bias in zip(W, b, strict=True):
        weights = torch.tensor(w).to(x).view(mean.shape)

        def margin(at: Tensor, weights: Tensor = weights, bias: float = float(bias)) -> Tensor:
            return ((at - mean) * weights).flatten(1).sum(1) - bias

        found.append(measured(margin, x, y, setting, norm, direction))
    return xr.concat(found, "run", coords="minimal", compat="equals")


def checked(model: Model, x: Tensor, y: Tensor, norm: Norm, epsilon: float, steps: int) -> xr.Dataset:
    """Return the measured and the predicted S at one size of the attack."""
    batch = batch_at(x.device)
    predicted = match(model, x, y, epsilon=[epsilon], norm=norm, batch_size=batch).locally_linear.item()
    least = least_sizes(model, x, y, epsilon=[epsilon], norm=norm, seed=SEED, batch_size=batch, steps=steps)[1]
    return xr.Dataset({"checked_measured": np.mean(least <= epsilon), "checked_locally_linear": predicted})
