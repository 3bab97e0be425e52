r"""How a net's confidence separates right from wrong answers near the data, and what its losses say of that.

Wu, Jang, Chen, Chen, Jha, "Reinforcing Adversarial Robustness using Model Confidence Induced by Adversarial Training", ICML
2018: a net F with probabilities :math:`F(x)_k` is (p, q, delta)-separated if

.. math:: \Pr_{(x, y)}[\exists x', |x' - x| \le \delta, \exists y' \ne y: F(x')_{y'} \ge p] \le q.

Their p is the `level` here, because p is a prior in this project, and `share` is the least q. It is measured in two steps:
`wrong_confidences` attacks, and everything else is computed from what was found. An attack gives a lower bound on the share;
the binomial bounds are those of what the attack finds, so that the lower one holds for the net too, and the upper one for these
attacks alone.

At a level of 1/2 or more a confidence of the level is a wrong prediction. Below 1/2 it need not be one: the share of wrong
predictions is then neither above nor below.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.confidences import checked_found, confident_attacks, named, wrong_confidences
from deepcheck.evaluation.schema import origin, text_array
from deepcheck.evaluation.shares import Array, binomial_bounds, chebyshev_bounds
from odeflow.model import checked_number

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "LOSSES",
    "PropositionWarning",
    "binomial_bounds",
    "chebyshev_bounds",
    "composed",
    "confident_attacks",
    "loss_bounds",
    "separation",
    "wrong_confidences",
]

LOSSES = ("cross_entropy", "squared")
FOUND = ("all points", "loss attack")
"""Where the worst loss of each example is taken: at all points that were tried, or at those of the attack on the loss alone."""
_PAGE = "docs/separation.md#proposition-3"
_RELATIVE = 1e-9  # radii that differ by less are the same
LONG_NAMES = {
    "level": "confidence in a wrong class, from which on it counts",
    "delta": "largest norm of the perturbation",
    "share": "share of the examples with a confidence of the level in a wrong class",
    "lower": "exact lower bound on the probability",
    "upper": "exact upper bound on the probability",
    "chebyshev_lower": "Chebyshev's lower bound on the probability",
    "chebyshev_upper": "Chebyshev's upper bound on the probability",
    "bad": "number of examples with a confidence of the level in a wrong class",
    "error": "share of the examples with a wrong prediction",
    "expected_loss": "mean of the worst loss",
    "separation_bound": "bound on the share by the mean of the worst loss",
    "error_bound": "bound on the error by the mean of the worst loss",
    "loss": "loss",
    "worst_of": "points that the worst loss is taken of",
    "composed_level": "level of the composed classifier",
}


class PropositionWarning(UserWarning):
    """A proposition is asked about a case of which it says nothing."""


def separation(found: xr.Dataset, *, level: npt.ArrayLike, confidence: float = 0.9) -> xr.Dataset:
    """Return the share of the examples for which a confidence of the level in a wrong class was found (exact, given that).

    Parameters
    ----------
    found
        What `wrong_confidences` returned.
    level
        One or several, in (1/K, 1] for K classes.
    confidence
        Of each of the bounds, in (0, 1).

    Returns
    -------
    Dataset
        Dims level and delta (of one number as level, delta alone): `share`, its number of examples `bad`, exact one-sided bounds
        `lower` and `upper` (`binomial_bounds`) and `chebyshev_lower`, `chebyshev_upper`. The share does not decrease with delta,
        and does not increase with the level.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or `found` is something else.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> images, labels = torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> draw = torch.Generator().manual_seed(0)
    >>> found = wrong_confidences(net, images, labels, delta=[0.0, 0.5], starts=1, steps=10, generator=draw)
    >>> dict(separation(found, level=[0.4, 0.9]).sizes)
    {'level': 2, 'delta': 2}
    """
    import xarray as xr

    found = checked_found(found)
    levels, single = checked_levels(level, least=1 / found.sizes["target"])
    n = found.sizes["example"]
    bad = _bad(found, levels)
    lower, upper = binomial_bounds(bad, n, confidence)
    below, above = chebyshev_bounds(bad, n, confidence)
    dims = ("level", "delta")
    values = {"share": bad / n, "bad": bad, "lower": lower, "upper": upper}
    values |= {"chebyshev_lower": below, "chebyshev_upper": above}
    result = xr.Dataset(
        {name: (dims, array) for name, array in values.items()},
        coords={"level": levels, "delta": found["delta"].values},
        attrs=origin(found, "separation", level=levels, confidence=confidence, examples=n),
    )
    named(result, LONG_NAMES)
    return result.isel(level=0) if single else result


def loss_bounds(found: xr.Dataset, *, level: npt.ArrayLike) -> xr.Dataset:
    r"""Return what the mean of the worst loss bounds the share, and the error, by: Propositions 1 and 2, beside what was found.

    If the worst loss within delta has the mean e, and the loss is at least :math:`\tau(s)` where :math:`F_y \le s`, then by Markov's
    inequality

    .. math:: q(p) \le e / \tau(1 - p), \qquad \Pr[\text{a wrong prediction within delta}] \le e / \tau(1/2),

    as a confidence p in a wrong class leaves 1 - p for the true one, and a wrong prediction 1/2 at most. The cross-entropy has
    :math:`\tau(s) = -\log s`, and the squared loss :math:`(1 - F_y)^2` has :math:`\tau(s) = (1 - s)^2`: their bounds are
    :math:`e / (-\log(1 - p))` and :math:`e / p^2`, and at 1/2 :math:`e / \log 2` and 4 e.

    Parameters
    ----------
    found
        What `wrong_confidences` returned.
    level
        One or several, in (1/K, 1] for K classes.

    Returns
    -------
    Dataset
        Dims loss ("cross_entropy", "squared"), worst_of, level (not with one number as level) and delta: `expected_loss` (loss, worst_of,
        delta), `separation_bound` (loss, worst_of, level, delta), `error_bound` (loss, worst_of, delta); and what was measured, `share`
        (level, delta) and `error` (delta). A bound may be above 1.

        What the bound is worth depends on worst_of. "all points": the worst loss is that of all points that were found, those that
        the share counts among them. Then the propositions hold for the examples as they are, whatever the attacks missed: a bound
        that is violated would be an error of computation. "loss attack": the loss is what an attack on the loss alone finds. It is below
        the worst loss, the propositions need the worst one, and a share above the bound shows that this attack was too weak.

    Raises
    ------
    ValueError, TypeError
        If a level is out of range, or `found` is something else.

    Notes
    -----
    Wu, Jang, Chen, Chen, Jha, ICML 2018, Propositions 1 and 2; the second is met with equality by a net with :math:`F_y = 1/2` on a share
    of the points and :math:`F_y = 1` on the others.
    """
    import xarray as xr

    found = checked_found(found)
    levels, single = checked_levels(level, least=1 / found.sizes["target"])
    n = found.sizes["example"]
    cross_entropy = np.stack(
        [found[name].values for name in ("worst_loss", "attacked_loss")]
    )  # (worst_of, delta, example)
    # 1 - F_y has its digits where F_y is near 1; both losses are worst at the same point, where F_y is least
    worst = np.stack([cross_entropy, np.expm1(-cross_entropy) ** 2])
    e = worst.mean(-1)
    with np.errstate(divide="ignore"):  # at the level 1 the cross-entropy would be infinite
        tau = np.stack([-np.log1p(-levels), levels**2])
    tau_half = np.array([math.log(2), 0.25])
    each = ("loss", "worst_of")
    result = xr.Dataset(
        {
            "expected_loss": ((*each, "delta"), e),
            "separation_bound": ((*each, "level", "delta"), e[:, :, None] / tau[:, None, :, None]),
            "error_bound": ((*each, "delta"), e / tau_half[:, None, None]),
            "share": (("level", "delta"), _bad(found, levels) / n),
            "error": ("delta", found["wrong"].values.mean(-1)),
        },
        coords={
            "loss": text_array(LOSSES),
            "worst_of": text_array(FOUND),
            "level": levels,
            "delta": found["delta"].values,
        },
        attrs=origin(found, "loss_bounds", level=levels, examples=n),
    )
    named(result, LONG_NAMES)
    return result.isel(level=0) if single else result


def composed(found: xr.Dataset, *, level: npt.ArrayLike, xi: float, eta: float, confidence: float = 0.9) -> xr.Dataset:
    r"""Return the q for which Proposition 3 says that the net behind an embedding is separated, at the level 1 - level.

    The embedding MCN moves a point to the one within xi at which the net is most confident; F(MCN(x)) is the composed
    classifier. Let an example be good if no point within delta has a confidence of the level p in a wrong class. With
    :math:`\xi + \eta \le \delta`, and if within xi of every point within eta of a good example there is one with a confidence of
    p, the composed classifier is (1 - p, q, eta)-separated, where q is the share of the examples that are not good: the point that is
    answered is within delta of x, where a confidence p can be that of the true class alone, which leaves 1 - p.

    Exact, given what was found. **The second condition is not looked at**: examples for which it fails come to q in addition. An
    attack that misses points makes q too small as well.

    Parameters
    ----------
    found
        What `wrong_confidences` returned for the net without the embedding, in the embedding's norm.
    level
        p, one or several, in (1/K, 1] for K classes.
    xi
        Radius of the embedding, >= 0.
    eta
        Radius of the adversary against the composed classifier, >= 0.
    confidence
        Of each of the bounds, in (0, 1).

    Returns
    -------
    Dataset
        `share` (level), its `bad` and bounds as from `separation`, at the least delta that was measured and is not below xi + eta; it is the
        coordinate delta. `composed_level` is 1 - level. Where there is no such delta, the share is NaN.

    Warns
    -----
    PropositionWarning
        If xi + eta is above every delta that was measured: the proposition says nothing.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or `found` is something else.

    Notes
    -----
    Wu, Jang, Chen, Chen, Jha, ICML 2018, Proposition 3.
    """
    found = checked_found(found)
    xi, eta = checked_number("xi", xi, least=0), checked_number("eta", eta, least=0)
    result = separation(found, level=level, confidence=confidence)
    deltas = found["delta"].values
    enough = np.flatnonzero(deltas >= (xi + eta) * (1 - _RELATIVE))
    if len(enough):
        result = result.isel(delta=int(enough[0]))
    else:
        warnings.warn(
            f"eta + xi = {eta + xi:g} is more than every delta that was measured, up to {deltas.max():g}: Proposition 3 says nothing "
            f"of the composed classifier ({_PAGE})",
            PropositionWarning,
            stacklevel=2,
        )
        # of a probability that is not known
        result = result.isel(delta=-1).astype(np.float64).where(False)
    result = result.assign_coords(xi=xi, eta=eta, composed_level=1 - result["level"])
    for name, text in (("xi", "radius of the embedding"), ("eta", "radius of the adversary")):
        result[name].attrs.update(long_name=text, units="1")
    named(result, LONG_NAMES)
    result.attrs |= origin(found, "composed", level=np.asarray(level, float), xi=xi, eta=eta, confidence=confidence)
    return result


def checked_levels(level: npt.ArrayLike, *, least: float) -> tuple[Array, bool]:
    """Return levels, shape (m,), and whether one number was given.

    Raises
    ------
    ValueError, TypeError
        If there is none, or one is not in (least, 1].
    """
    try:
        given: Any = np.asarray(level)
    except ValueError:  # lists of different lengths
        given = np.asarray(None)
    if given.dtype.kind not in "iuf" or given.ndim > 1 or not given.size:
        raise TypeError(f"level = {level!r} is of the wrong type: allowed is a number or a list of them")
    levels = np.atleast_1d(given).astype(np.float64)
    bad = ~((levels > least) & (levels <= 1))
    if bad.any():
        raise ValueError(
            f"level = {float(levels[bad][0])!r} is out of range: allowed is a number > {least:.4g} and <= 1"
            + (f", as one of {round(1 / least)} classes always has 1/{round(1 / least)}" if least else "")
        )
    return levels, given.ndim == 0


def _bad(found: xr.Dataset, levels: Array) -> npt.NDArray[np.int64]:
    """Return the number of examples with a confidence of each level in a wrong class, shape (level, delta)."""
    best = np.nanmax(found["wrong_confidence"].values, axis=1)
    counts: npt.NDArray[np.int64] = (best >= levels[:, None, None]).sum(-1)
    return counts
