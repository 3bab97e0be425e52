r"""Effective overlap, bias and law of the margin, and the robustness curves that they predict.

In the seed model the margin of an example with label :math:`\tau` is Gaussian with mean :math:`\tau\rho R/2 - b` and
variance :math:`v_\tau`, in units of :math:`\varepsilon`. The same is asked here of :math:`u = z/|\nabla z|_*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepcheck.attacks.base import Model, checked_epsilons
from deepcheck.attacks.norms import NORMS, Norm
from deepcheck.device import memory_advice
from deepcheck.match.margins import attributes, gradients, labelled, local_dataset, text, to_array
from odeflow.model import checked_count
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["match", "predicted_curve"]

LABELS = (1, -1)
"""The classes, in the order in which they stand in every array."""


def match(
    model: Model,
    x: Tensor,
    y: Tensor | npt.ArrayLike,
    *,
    epsilon: float | Sequence[float],
    norm: Norm | str = "linf",
    directions: Mapping[str, npt.ArrayLike] | None = None,
    batch_size: int = 500,
) -> xr.Dataset:
    r"""Return what the theory calls R, b and the margin's mean and variance, for a binary net, and its predictions.

    Exact for a linear net (the curve `gaussian`: if its margins are Gaussian, too); else a description of the net's
    linear approximations at the examples.

    Parameters
    ----------
    model, x, y, norm, batch_size
        See `margins`. Both classes must be there.
    epsilon
        Sizes of the perturbation, >= 0, in units of x, for the predicted curves.
    directions
        Vectors to compare the gradient with, by name, of the shape of an example or flat; say the seed model's B, or
        the w of `odeflow.anisotropic.optimal_classifier`. Their lengths do not matter. Whatever is given, the direction
        "means" from the mean of class -1 to that of class +1 is there.

    Returns
    -------
    Dataset
        The variables of `margins` and of `predicted_curve`, and

        overlap (example, direction)
            Cosine of the angle between gradient and direction, in [-1, 1]; NaN where the gradient is zero.
        R_eff, R_eff_sd (direction)
            Its mean over the examples and its standard deviation.
        R_mean_gradient (direction)
            Cosine of the angle between the mean of the gradients and the direction.
        coherence
            Length of the mean of the gradients after each has been made of length 1, in [0, 1]: 1 for a linear net.
        b_eff
            Minus the mean of the two classes' margin_mean, in units of x: of a linear net with weights of dual norm 1,
            the theory's bias b for data whose two means have their midpoint at the origin. Negative where the net
            favours the label +1.
        mean_gradient (feature)
            Mean of the gradients.

        Examples with a gradient of zero are left out of all means but this last one.

    Raises
    ------
    TypeError, ValueError
        If there is one class only, a direction is zero, named "means" or does not have the shape of an example, or as
        for `margins`.
    MemoryError
        If a batch does not fit into the memory of the GPU.

    Examples
    --------
    >>> x, y = torch.tensor([[1.0, 1.0], [-1.0, 0.0]]), [1, -1]
    >>> result = match(lambda x: 2 * x[:, 0] - 1, x, y, epsilon=[0.5, 1.0], norm="l2", directions={"B": [1.0, 0.0]})
    >>> float(result.R_eff.sel(direction="B")), float(result.b_eff), result.locally_linear.values.tolist()
    (1.0, 0.5, [0.5, 0.5])
    """
    import xarray as xr

    x, label, geometry = labelled(x, y, norm)
    epsilons, _ = checked_epsilons(epsilon)
    batch_size = checked_count("batch_size", batch_size, 1)
    names, B = _directions(x, label, directions)

    z, gradient_norm, overlap = [], [], []
    total = torch.zeros_like(B[0])
    total_unit = torch.zeros_like(B[0])
    with memory_advice(batch_size):
        for values, gradient in gradients(model, x, batch_size):
            z.append(values)
            gradient_norm.append(NORMS[str(geometry.dual)].length(gradient))
            g = gradient.flatten(1).double()
            unit = _unit(g)
            overlap.append(torch.where(g.any(1, keepdim=True), unit @ B.T, torch.nan))
            total += g.sum(0)
            total_unit += unit.sum(0)

    local = local_dataset(to_array(z), to_array(gradient_norm), label)
    curves = predicted_curve(local, epsilons)
    cosines = to_array(overlap)
    seen = ~np.isnan(cosines[:, 0])
    nothing = np.full(len(names), np.nan)
    mean = total / len(x)
    R_mean = (B @ _unit(mean[None])[0]).cpu().numpy() if bool(mean.any()) else nothing
    over = {
        "overlap": (("example", "direction"), cosines, text("cosine between the gradient and a direction")),
        "R_eff": ("direction", cosines[seen].mean(0) if seen.any() else nothing, text("effective overlap")),
        "R_eff_sd": (
            "direction",
            cosines[seen].std(0) if seen.any() else nothing,
            text("standard deviation of the overlap over examples"),
        ),
        "R_mean_gradient": ("direction", R_mean, text("overlap of the mean gradient")),
        "coherence": (
            (),
            float(total_unit.norm()) / seen.sum() if seen.any() else np.nan,
            text("length of the mean of the gradients' directions"),
        ),
        "b_eff": ((), -float(curves.margin_mean.mean(skipna=False)), text("effective bias")),
        "mean_gradient": ("feature", mean.cpu().numpy(), text("mean of the gradients of the margin")),
    }
    coords = {"direction": ("direction", np.array(names, object), text("direction that gradients are compared with"))}
    result = xr.merge([local, curves.drop_attrs(deep=False), xr.Dataset(over, coords)], compat="equals", join="exact")
    options: dict[str, Any] = {
        "norm": geometry.name,
        "epsilon": epsilons,
        "directions": names,
        "batch_size": batch_size,
    }
    return result.assign_attrs(attributes("match", model, x, **options))


def predicted_curve(local: xr.Dataset, epsilon: float | Sequence[float]) -> xr.Dataset:
    r"""Return the adversarial error that the margins of a net predict.

    Two predictions. Locally linear: the share of examples with :math:`y z/|\nabla z|_* \le \varepsilon`; exact for a
    linear net without bounds on the pixels. Gaussian: the theory's

    .. math:: S(\varepsilon) = \sum_\tau p_\tau\,\Phi\!\left(-\frac{\tau\mu_\tau - \varepsilon}{\sqrt{v_\tau}}\right)

    with the classes' shares :math:`p_\tau` and the means :math:`\mu_\tau` and variances :math:`v_\tau` of
    :math:`u = z/|\nabla z|_*`: the adversarial error of `odeflow` at R = 1 for :math:`\rho = \mu_+ - \mu_-` and
    :math:`b = -(\mu_+ + \mu_-)/2`. It is exact, in addition, only if u is Gaussian in each class.

    Parameters
    ----------
    local
        A result of `margins` or of `match`.
    epsilon
        Sizes of the perturbation, >= 0, in units of x.

    Returns
    -------
    Dataset
        locally_linear and gaussian (epsilon), in [0, 1]; p, margin_mean and margin_variance (tau: +1, -1), of u.

        An example with a gradient of zero cannot be turned: in locally_linear it is an error at every epsilon or at
        none, by the sign of y z. It counts in p, not in mean and variance. Where a class that is there has no other
        examples, gaussian is NaN.

    Raises
    ------
    TypeError, ValueError
        If an epsilon is not a finite number >= 0, or `local` is no such result.
    """
    import xarray as xr
    from scipy.special import ndtr

    given: object = sorted(map(str, local.data_vars)) if hasattr(local, "data_vars") else type(local).__name__
    if not isinstance(given, list) or not {"z", "distance", "label"} <= set(given):
        raise TypeError(
            f"local = {given} is of the wrong type: allowed is a result of margins, with z, distance, label"
        )
    sizes = np.array(checked_epsilons(epsilon)[0])
    z, distance, label = (local[name].values for name in ("z", "distance", "label"))

    stuck = np.isnan(distance)
    reach = np.sort(np.where(stuck, np.where(label * z > 0, np.inf, -np.inf), distance))
    linear = np.searchsorted(reach, sizes, side="right") / len(reach)

    p, mean, variance = np.empty(2), np.full(2, np.nan), np.full(2, np.nan)
    gaussian = np.zeros(len(sizes))
    for k, tau in enumerate(LABELS):
        u = label[(label == tau) & ~stuck] * distance[(label == tau) & ~stuck]
        p[k] = (label == tau).mean()
        if len(u):
            mean[k], variance[k] = u.mean(), u.var()
        if p[k]:
            room = tau * mean[k] - sizes
            with np.errstate(divide="ignore", invalid="ignore"):
                # a class that does not vary is right or wrong as a whole, wrong on the boundary
                scaled = np.where(variance[k] == 0, np.where(room > 0, np.inf, -np.inf), room / np.sqrt(variance[k]))
            gaussian += p[k] * ndtr(-scaled)
    return xr.Dataset(
        {
            "locally_linear": ("epsilon", linear, text("adversarial error predicted from the linear approximations")),
            "gaussian": ("epsilon", gaussian, text("adversarial error predicted from Gaussian margins")),
            "p": ("tau", p, text("share of the class")),
            "margin_mean": ("tau", mean, text("mean of the margin over the dual norm of its gradient")),
            "margin_variance": ("tau", variance, text("variance of the margin over the dual norm of its gradient")),
        },
        {
            "epsilon": ("epsilon", sizes, text("size of the perturbation")),
            "tau": ("tau", np.array(LABELS), text("label of the class")),
        },
        provenance("deepcheck.match.predicted_curve", epsilon=sizes),
    )


def _directions(
    x: Tensor, label: npt.NDArray[np.float64], given: Mapping[str, npt.ArrayLike] | None
) -> tuple[list[str], Tensor]:
    """Return names and unit vectors, shape (directions, N): that of the means first."""
    for tau in LABELS:
        if tau not in label:
            raise ValueError(f"y has no label {tau:+d}: allowed are examples of both classes")
    X = x.flatten(1).double()
    plus = torch.as_tensor(label > 0, device=x.device)
    means = X[plus].mean(0) - X[~plus].mean(0)
    vectors: dict[str, Tensor] = {"means": means}
    for name, value in (given or {}).items():
        if name in vectors:
            raise ValueError(f"directions has the name {name!r}, which is taken: allowed is any other")
        vectors[name] = _vector(name, value, x)
    for name, vector in vectors.items():
        if not bool(vector.any()):
            what = "the classes have equal means in x" if name == "means" else f"directions[{name!r}] is zero"
            raise ValueError(f"{what}: allowed are directions that are not zero")
    return list(vectors), _unit(torch.stack(list(vectors.values())))


def _vector(name: str, value: Any, x: Tensor) -> Tensor:
    N = x[0].numel()
    try:
        vector = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value).astype(np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"directions[{name!r}] is of the wrong type: allowed is an array of {N} numbers") from None
    if vector.shape not in {(N,), tuple(x.shape[1:])}:
        raise ValueError(
            f"directions[{name!r}] has the shape {vector.shape}: allowed is {(N,)}, or {tuple(x.shape[1:])} of an "
            "example"
        )
    if not np.isfinite(vector).all():
        raise ValueError(f"directions[{name!r}] is not finite: allowed are finite numbers")
    return torch.as_tensor(vector.ravel(), device=x.device)


def _unit(rows: Tensor) -> Tensor:
    """Return rows of length 1, and 0 where a row is 0."""
    return NORMS["l2"].steepest(rows)
