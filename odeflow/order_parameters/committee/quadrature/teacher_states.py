"""Averages and losses of many states of a student and its teacher, from Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.numerics.compilation import sources_digest
from odeflow.order_parameters.committee.batch import factor
from odeflow.order_parameters.committee.quadrature.sums import FGSM, Attack, width
from odeflow.order_parameters.committee.quadrature.teacher import add_averages_teacher, rule, scratch
from odeflow.order_parameters.committee.units import ERF

__all__ = ["averages", "losses"]

Array = npt.NDArray[np.float64]


def _compile(sources: str) -> Any:
    """Return the compiled function. `sources` stands in its closure to make it part of the key of numba's cache."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def evaluate(kind, R, Q, T, theta, c, b, teacher_kind, teacher_c, epsilon, how, rule, out):
        sources  # noqa: B018
        K, M = R.shape[1:]
        C, L, work = np.zeros((K + M, K + M)), np.zeros((K + M, K + M)), np.empty(scratch(K, M, rule))
        for i in range(R.shape[0]):
            C[:K, :K] = Q[i]
            C[:K, K:] = R[i]
            C[K:, :K] = R[i].T
            C[K:, K:] = T
            factor(C, L)
            out[i] = 0.0
            add_averages_teacher(
                kind, R[i], T, L, Q[i], theta[i], c[i], b[i], teacher_kind, teacher_c, epsilon[i], how, 1.0, rule, work,
                out[i],
            )  # fmt: skip

    return evaluate


_evaluate = _compile(sources_digest())


def averages(
    R: npt.ArrayLike,
    Q: npt.ArrayLike,
    T: npt.ArrayLike,
    c: npt.ArrayLike,
    teacher_c: npt.ArrayLike,
    *,
    theta: npt.ArrayLike = 0.0,
    b: npt.ArrayLike = 0.0,
    epsilon: npt.ArrayLike = 0.0,
    kind: int = ERF,
    teacher_kind: int = ERF,
    how: Attack | None = None,
    tolerance: float = 1e-6,
) -> Array:
    """Return the averages of each state, shape (..., number of averages), in the order of `sums`.

    Parameters
    ----------
    R, Q
        Products of the student's weights with the teacher's and with each other, shape (..., K, M) and (..., K, K).
    T, teacher_c
        Products of the teacher's weights, (M, M), and its output weights, (M,).
    c, theta, b
        The student's output weights and thresholds, (..., K), and output bias, (...).
    epsilon
        Size of the attack, (...).
    kind, teacher_kind
        Units of student and teacher, ERF or RELU of `odeflow.order_parameters.committee.units`.
    how
        The attack: FGSM if None.
    tolerance
        See `odeflow.order_parameters.committee.quadrature.teacher.rule`.
    """
    R, T = np.asarray(R, np.float64), np.array(T, np.float64, order="C")
    K, M = R.shape[-2:]
    vectors, numbers = (
        [np.asarray(x, np.float64) for x in (c, theta)],
        [np.asarray(x, np.float64) for x in (b, epsilon)],
    )
    Q = np.asarray(Q, np.float64)
    shape = np.broadcast_shapes(
        R.shape[:-2], Q.shape[:-2], *(x.shape[:-1] for x in vectors), *(x.shape for x in numbers)
    )
    R, Q = (_rows(x, shape, (K, n)) for x, n in ((R, M), (Q, K)))
    c, theta = (_rows(x, shape, (K,)) for x in vectors)
    b, epsilon = (_rows(x, shape, ()) for x in numbers)
    out = np.empty((len(R), width(K, K + M)))
    how = Attack(FGSM, 1, 1.0) if how is None else how
    teacher_c = np.array(teacher_c, np.float64)
    _evaluate(kind, R, Q, T, theta, c, b, teacher_kind, teacher_c, epsilon, how, rule(K, M, tolerance), out)
    return out.reshape(*shape, -1)


def _rows(values: Array, shape: tuple[int, ...], of: tuple[int, ...]) -> Array:
    # a copy, so that the kernel always sees arrays of one type
    return np.array(np.broadcast_to(values, shape + of), order="C").reshape(-1, *of)


def losses(
    R: npt.ArrayLike,
    Q: npt.ArrayLike,
    T: npt.ArrayLike,
    c: npt.ArrayLike,
    teacher_c: npt.ArrayLike,
    *,
    epsilon: npt.ArrayLike,
    **options: Any,
) -> tuple[Array, Array]:
    r"""Return the clean and the attacked loss, :math:`\frac12\langle(\phi - \tau)^2\rangle` of each state, shape (...).

    The clean one is the generalisation error. Both by quadrature, which for the clean loss of erf units agrees with the closed
    form of D. Saad and S. A. Solla (`odeflow.order_parameters.committee.saad_solla`). Arguments are those of `averages`.

    Examples
    --------
    >>> import numpy as np
    >>> R, Q = np.array([[0.6, 0.2], [0.1, 0.5]]), np.array([[0.7, 0.2], [0.2, 0.5]])
    >>> clean, attacked = losses(R, Q, np.eye(2), np.ones(2), np.ones(2), epsilon=0.3)
    >>> print(f"{clean:.4f} {attacked:.4f}")
    0.1532 0.2879
    """
    clean = averages(R, Q, T, c, teacher_c, epsilon=0.0, **options)[..., -1] / 2
    attacked = averages(R, Q, T, c, teacher_c, epsilon=epsilon, **options)[..., -1] / 2
    shape = np.broadcast_shapes(clean.shape, attacked.shape)
    return np.broadcast_to(clean, shape).copy(), np.broadcast_to(attacked, shape).copy()
