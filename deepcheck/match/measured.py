"""What PGD measures beside the predictions: the robustness curve, and how far the net is from a linear one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepcheck.attacks.base import Bounds, Model, checked_bounds, checked_epsilons, checked_images, evaluating
from deepcheck.attacks.norms import NORMS, Norm, per_example
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import UniformBall, Zero
from deepcheck.device import memory_advice
from deepcheck.match.margins import attributes, gradients, labelled, signed_margin, text, to_array
from odeflow.model import checked_count

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PERTURBATIONS", "linearity", "measured_curve"]

PERTURBATIONS = ("steepest", "random", "pgd")
"""Perturbations with which `linearity` compares a net and its linear approximation."""


def measured_curve(
    model: Model,
    x: Tensor,
    y: Tensor | npt.ArrayLike,
    *,
    epsilon: float | Sequence[float],
    generator: torch.Generator,
    norm: Norm | str = "linf",
    steps: int = 40,
    restarts: int = 1,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 500,
    progress: bool = False,
) -> xr.Dataset:
    """Return the share of examples that PGD turns, or that are misclassified without: a measured robustness curve.

    Approximate: a lower bound on the adversarial error. Exact for a linear net, within rounding, in L-infinity, and in
    L2 and L1 where no pixel meets the bounds.

    Parameters
    ----------
    model, x, y, norm, batch_size
        See `margins`. Pixels must be in `bounds`.
    epsilon
        Sizes of the perturbation, >= 0, in units of x.
    generator
        Source of the random starts.
    steps
        Steps per start, >= 1, each of length 2.5 epsilon / steps, that ascend -y z.
    restarts
        Number of starts, >= 1: the first at the example, the others uniform in the ball. The worst case per example
        counts, over all starts and all smaller epsilons in the list.
    bounds
        Least and largest value of a pixel. The predictions know of none: (-inf, inf) is what they are about.
    progress
        Show a progress bar on a terminal.

    Returns
    -------
    Dataset
        adversarial_error (epsilon), in [0, 1], and least_epsilon (example), the least epsilon of the list at which the
        example was turned; inf if none.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; before any attack.
    MemoryError
        If a batch does not fit into the memory of the GPU.
    """
    import xarray as xr

    x, label, geometry = labelled(x, y, norm)
    bounds, classes = _boxed(x, label, bounds)
    epsilons, _ = checked_epsilons(epsilon)
    steps, restarts = checked_count("steps", steps, 1), checked_count("restarts", restarts, 1)
    batch_size = checked_count("batch_size", batch_size, 1)
    attacks = [_ascent(geometry, steps, bounds)]
    if restarts > 1:
        attacks.append(
            PGD(
                geometry,
                "margin",
                steps=steps,
                relative_step_size=2.5 / steps,
                start=UniformBall(),
                restarts=restarts - 1,
                bounds=bounds,
            )
        )

    turned = np.zeros((len(epsilons), len(x)), bool)
    with evaluating(model), memory_advice(batch_size):
        for attack in attacks:
            found = attack(
                _two_logits(model),
                x,
                classes,
                epsilon=epsilons,
                generator=generator,
                batch_size=batch_size,
                progress=progress,
            )
            turned |= (found.objective >= 0).cpu().numpy()  # on the boundary is an error, as in the theory
    sizes = np.array(epsilons)
    least = np.where(turned, sizes[:, None], np.inf).min(axis=0)
    error = (least <= sizes[:, None]).mean(axis=1)
    options = {"norm": geometry.name, "epsilon": epsilons, "steps": steps, "restarts": restarts, "bounds": bounds}
    return xr.Dataset(
        {
            "adversarial_error": ("epsilon", error, text("adversarial error measured with PGD, a lower bound")),
            "least_epsilon": ("example", least, text("least size at which PGD turned the example")),
        },
        {
            "epsilon": ("epsilon", sizes, text("size of the perturbation")),
            "example": ("example", np.arange(len(x)), text("index of the example")),
        },
        attributes("measured_curve", model, x, generator=generator, batch_size=batch_size, **options),
    )


def linearity(
    model: Model,
    x: Tensor,
    y: Tensor | npt.ArrayLike,
    *,
    epsilon: float | Sequence[float],
    generator: torch.Generator,
    norm: Norm | str = "linf",
    steps: int = 40,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 500,
) -> xr.Dataset:
    r"""Return how far a net is from its linear approximations within balls of size epsilon.

    For an example x and a perturbation :math:`\delta` of it the deviation is

    .. math:: \frac{|z(x+\delta) - z(x) - \langle\nabla z(x),\delta\rangle|}{\varepsilon\,|\nabla z(x)|_*} .

    The denominator is the largest change in the ball that the linear approximation allows: a deviation of 1 is as large
    as the whole effect of the strongest attack. (For the steepest perturbation it is :math:`|\langle\nabla z,
    \delta\rangle|`; for others that may vanish.) It is 0 for a linear net.

    Parameters
    ----------
    model, x, y, norm, batch_size
        See `margins`. Pixels must be in `bounds`.
    epsilon
        Sizes of the perturbation, > 0, in units of x.
    generator
        Source of the random perturbations.
    steps, bounds
        See `measured_curve`. All perturbations keep to the bounds.

    Returns
    -------
    Dataset
        deviation (epsilon, perturbation, example), NaN where the gradient is zero; nonlinearity (epsilon,
        perturbation), its mean over the examples; zero_gradients, the number that is left out. The perturbations:
        steepest, against y along the gradient at x to the ball's surface; random, uniform in the ball; pgd, the best
        point of an ascent of -y z from x, which is where a real attack goes.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; before any attack.
    MemoryError
        If a batch does not fit into the memory of the GPU.
    """
    import xarray as xr

    x, label, geometry = labelled(x, y, norm)
    bounds, classes = _boxed(x, label, bounds)
    epsilons, _ = checked_epsilons(epsilon)
    if min(epsilons) == 0:
        raise ValueError("epsilon = 0 is not allowed: a finite number > 0 is")
    steps = checked_count("steps", steps, 1)
    batch_size = checked_count("batch_size", batch_size, 1)
    attack = _ascent(geometry, steps, bounds, stop=False)
    sign = torch.as_tensor(label, dtype=x.dtype, device=x.device)

    deviation = np.empty((len(epsilons), len(PERTURBATIONS), len(x)))
    with evaluating(model), memory_advice(batch_size):
        for k, size in enumerate(epsilons):
            random = geometry.uniform(x, size, generator)  # for all examples at once, whatever the batch size
            attacked = attack(
                _two_logits(model), x, classes, epsilon=size, generator=generator, batch_size=batch_size
            ).images
            parts = []
            done = 0
            for z, gradient in gradients(model, x, batch_size):
                rows = slice(done, done + len(z))
                done += len(z)
                confine = geometry.confinement(x[rows], size, bounds)
                steepest = -size * per_example(sign[rows], gradient) * geometry.steepest(gradient)
                scale = size * NORMS[str(geometry.dual)].length(gradient)
                points = (confine(x[rows] + steepest), confine(x[rows] + random[rows]), attacked[rows])
                parts.append(torch.stack([_deviation(model, x[rows], z, gradient, at) / scale for at in points], 1))
            deviation[k] = to_array(parts).T
    deviation[~np.isfinite(deviation)] = np.nan
    seen = ~np.isnan(deviation[0, 0])
    mean = deviation[..., seen].mean(axis=2) if seen.any() else np.full(deviation.shape[:2], np.nan)
    options = {"norm": geometry.name, "epsilon": epsilons, "steps": steps, "bounds": bounds, "batch_size": batch_size}
    dims = ("epsilon", "perturbation")
    return xr.Dataset(
        {
            "nonlinearity": (dims, mean, text("mean deviation from the linear approximation")),
            "deviation": ((*dims, "example"), deviation, text("deviation from the linear approximation")),
            "zero_gradients": ((), int((~seen).sum()), text("number of examples with a gradient of zero")),
        },
        {
            "epsilon": ("epsilon", np.array(epsilons), text("size of the perturbation")),
            "perturbation": ("perturbation", np.array(PERTURBATIONS, object), text("kind of the perturbation")),
            "example": ("example", np.arange(len(x)), text("index of the example")),
        },
        attributes("linearity", model, x, generator=generator, **options),
    )


def _deviation(model: Model, x: Tensor, z: Tensor, gradient: Tensor, points: Tensor) -> Tensor:
    """Return |z(points) - z(x) - <gradient, points - x>|, shape (n,)."""
    with torch.no_grad():
        change = signed_margin(model, points) - z
        return (change - (gradient * (points - x)).flatten(1).sum(1)).abs()


def _ascent(geometry: Norm, steps: int, bounds: Bounds, *, stop: bool = True) -> PGD:
    """Return the ascent of -y z from the example itself."""
    return PGD(
        geometry,
        "margin",
        steps=steps,
        relative_step_size=2.5 / steps,
        start=Zero(),
        stop_when_reached=stop,
        bounds=bounds,
    )


def _boxed(x: Tensor, label: npt.NDArray[np.float64], bounds: Bounds) -> tuple[Bounds, Tensor]:
    """Return the bounds, in which the pixels are, and the classes 1 and 0 for an attack."""
    bounds = checked_bounds(bounds)
    classes = torch.as_tensor(label > 0, dtype=torch.int64, device=x.device)
    checked_images(x, classes, bounds)
    return bounds, classes


def _two_logits(model: Model) -> Model:
    """Return the model as a function to two logits whose difference is z, whatever its number of outputs."""

    def logits(x: Tensor) -> Tensor:
        z = signed_margin(model, x, finite=False)  # attacks see to that themselves
        return torch.stack([-z / 2, z / 2], 1)

    return logits
