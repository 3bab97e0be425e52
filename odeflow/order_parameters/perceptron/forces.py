r"""The pull of each class on the classifier, in logarithms: no underflow at any bias.

For a class with variance v, let u be the margin of its attacked centre, :math:`u_\tau = \tau m_\tau`. The class pulls
with the force :math:`D_1(u) = \tau\langle\delta\rangle` and adds noise in proportion to :math:`D_2(u) =
\langle\delta^2\rangle` (equations (1.2b) and (1.2f) of the theory page). With

.. math:: k = \frac{1}{\sqrt{(1+2v)(1+4v)}}, \qquad g = \frac{u}{\sqrt{(1+4v)(1+6v)}}, \qquad a = \sqrt{\frac{1+4v}{1+8v}}

they are :math:`D_1 = A_0 e^{-u^2/(1+2v)} \mathrm{erfc}(ku)` and :math:`D_2 = C_0 e^{-2u^2/(1+4v)} W(g)`, and

.. math:: W(g) = \mathrm{erfc}(g)^2 + \frac4\pi \int_a^1 \frac{e^{-g^2(1+x^2)}}{1+x^2}\,dx, \qquad
   W'(g) = -\frac{4}{\sqrt\pi}\, e^{-g^2}\, \mathrm{erfc}(ag).

All functions are exact, broadcast, and are plain NumPy: the compiled solver of fixed points has the same formulas in
`odeflow.fixed_points.balance`, and a test holds the two together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["curvature", "log_force", "noise_ratio", "noise_slope", "peak", "slope"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)


def _k(v: npt.ArrayLike) -> Any:
    v = np.asarray(v, np.float64)
    return 1 / np.sqrt((1 + 2 * v) * (1 + 4 * v))


def _hazard(x: Any) -> Any:
    r"""Return :math:`-(\ln\mathrm{erfc})'(x) = (2/\sqrt\pi) e^{-x^2}/\mathrm{erfc}(x)`."""
    from scipy.special import erfcx

    return 2 / np.sqrt(np.pi) / erfcx(np.maximum(x, -26.0))


def log_force(u: npt.ArrayLike, v: npt.ArrayLike) -> Any:
    r"""Return :math:`\psi(u) = \ln D_1(u)`, which is strictly concave (exact).

    Parameters
    ----------
    u
        Margin, any real number.
    v
        Variance, > 0.

    Returns
    -------
    float or ndarray

    Examples
    --------
    >>> round(float(np.exp(log_force(0.3, 1.0))), 12)
    0.577068342285
    """
    from scipy.special import log_ndtr

    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    A0 = 2 / np.sqrt(np.pi * (1 + 2 * v))
    return np.log(2 * A0) - u * u / (1 + 2 * v) + log_ndtr(-np.sqrt(2) * _k(v) * u)


def slope(u: npt.ArrayLike, v: npt.ArrayLike) -> Any:
    r"""Return :math:`\varphi(u) = \psi'(u)`, which falls strictly from +inf to -inf (exact).

    Parameters as for `log_force`.
    """
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    return -2 * u / (1 + 2 * v) - _k(v) * _hazard(_k(v) * u)


def curvature(u: npt.ArrayLike, v: npt.ArrayLike) -> Any:
    r"""Return :math:`\psi''(u)`, which falls strictly from :math:`-2/(1+2v)` to :math:`-4/(1+4v)` (exact).

    Parameters as for `log_force`.
    """
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    x = _k(v) * u
    hazard = _hazard(x)
    return -2 / (1 + 2 * v) - _k(v) ** 2 * hazard * (hazard - 2 * x)


def noise_ratio(u: npt.ArrayLike, v: npt.ArrayLike) -> Any:
    r"""Return :math:`r(u) = v D_2(u)/D_1(u)`, in (0, 1.3776 v); it vanishes for u to +-inf (exact).

    Parameters as for `log_force`.
    """
    from scipy.special import erfc, erfcx

    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    x = _k(v) * u
    scale = np.sqrt((1 + 2 * v) / (1 + 4 * v)) * 2 / np.sqrt(np.pi)
    # exp(-x^2)/erfc(x) is 1/erfcx(x) where that does not overflow
    fall = np.where(
        x >= 0, 1 / erfcx(np.maximum(x, 0.0)), np.exp(-(np.minimum(x, 0.0) ** 2)) / erfc(np.minimum(x, 0.0))
    )
    return v * scale * fall * _W(u, v)[0]


def noise_slope(u: npt.ArrayLike, v: npt.ArrayLike) -> Any:
    r"""Return :math:`(\ln D_2)'(u) = -4u/(1+4v) + W'(g)/W(g) \cdot g/u` (exact).

    Parameters as for `log_force`; for margins so large that :math:`D_2` itself is below 1e-300, the second term is only
    approximate.
    """
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    W, dW = _W(u, v)
    return -4 * u / (1 + 4 * v) + dW / np.maximum(W, 1e-300) / np.sqrt((1 + 4 * v) * (1 + 6 * v))


def _W(u: Any, v: Any) -> tuple[Any, Any]:
    """Return W(g) and its derivative."""
    from scipy.special import erfc

    g = np.asarray(u / np.sqrt((1 + 4 * v) * (1 + 6 * v)))
    a = np.asarray(np.sqrt((1 + 4 * v) / (1 + 8 * v)))
    x = (1 + a[..., None]) / 2 + (1 - a[..., None]) / 2 * _NODES
    integrand = np.exp(-(g[..., None] ** 2) * (1 + x * x)) / (1 + x * x)
    integral = np.sum(_WEIGHTS * integrand, axis=-1) * (1 - a) / 2
    W = erfc(g) ** 2 + 4 / np.pi * integral
    return W[()], (-4 / np.sqrt(np.pi) * np.exp(-g * g) * erfc(a * g))[()]


def peak(v: npt.ArrayLike) -> Any:
    r"""Return the margin :math:`u^*(v)` at which a class pulls hardest: the zero of `slope` (exact, to rounding).

    It is negative, and hardly depends on v: from -0.3578 for v to 0 to :math:`-1/\sqrt{2\pi} = -0.3989` for v to inf.

    Parameters
    ----------
    v
        Variance, > 0.

    Returns
    -------
    float or ndarray

    Examples
    --------
    >>> round(float(peak(1.0)), 6)
    -0.388755
    """
    v = np.asarray(v, np.float64)
    u = np.zeros(v.shape)
    # Newton from the right of the zero of a concave falling function: monotone
    for _ in range(60):
        step = slope(u, v) / curvature(u, v)
        u = u - step
        if np.all(np.abs(step) <= 4e-16):
            break
    return u[()]
