r"""Simulation of the two-layer network, of any number of units, clusters or teachers: sections 5.1 and 5.6 of the theory.

All that is said of the data is coordinates in an orthonormal basis of the n0-dimensional space of the centres, or of the
teachers' weights; the other N - n0 directions of the input are alike. `direct` keeps the weights in R^N. `reduced` keeps
their coordinates in that space and in a frame of the K directions that they span beside it, and draws of an example its
coordinates there and the length of the rest, :math:`\sqrt{v_a \chi^2_{N - n_0 - K}}`. A step moves the weights along that rest
too; then the frame is turned, which the law of the examples does not see. Both have the same law at any N >= n0 + K + 1, and
are one loop: the first has N coordinates, the second n0 + K + 1, of which the last is the length of all others.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called, is_set, kept
from odeflow.numerics.course import CONSTANT, Course, course_at, piece_at
from odeflow.numerics.random_streams import from_table
from odeflow.order_parameters.committee.attacks import attack, attack_scratch
from odeflow.order_parameters.committee.quadrature.sums import Attack
from odeflow.order_parameters.committee.units import ERF, slope, unit

__all__ = ["Examples", "Learning", "State", "basis", "simulate_runs"]

Array = npt.NDArray[np.float64]


class Examples(NamedTuple):
    """Law of the examples, in coordinates of an orthonormal basis of n0 directions."""

    p: Array
    """Weights of the C clusters, which sum to 1."""
    v: Array
    """Variances, shape (C,)."""
    tau: Array
    """Labels, shape (C,); with a teacher, 0."""
    centres: Array
    """Shape (C, n0)."""
    teacher_c: Array
    """Output weights of the teacher, shape (M,); M = 0 without a teacher. Its output on the clean example is the label."""
    teacher: Array
    """Weights of the teacher, shape (M, n0)."""
    teacher_kind: int
    """Unit of the teacher, of `odeflow.order_parameters.committee.units`."""

    @classmethod
    def clusters(cls, p: npt.ArrayLike, v: npt.ArrayLike, tau: npt.ArrayLike, centres: npt.ArrayLike) -> Examples:
        """Return the law of C clusters with centres of shape (C, n0), see `basis`."""
        weights, variances, labels = (np.array(entry, np.float64, ndmin=1) for entry in (p, v, tau))
        points = np.array(centres, np.float64, ndmin=2)
        return cls(weights, variances, labels, points, np.empty(0), np.empty((0, points.shape[1])), ERF)

    @classmethod
    def of_teacher(cls, c: npt.ArrayLike, teacher: npt.ArrayLike, kind: int) -> Examples:
        """Return the law of examples N(0, I) with the label sum_n c_n g(w*_n.xi); teacher of shape (M, n0), see `basis`."""
        units, weights = np.array(teacher, np.float64, ndmin=2), np.array(c, np.float64, ndmin=1)
        return cls(np.ones(1), np.ones(1), np.zeros(1), np.zeros((1, units.shape[1])), weights, units, kind)


class Learning(NamedTuple):
    """What learns from the examples, and what attacks them."""

    kind: int
    """Unit, of `odeflow.order_parameters.committee.units`."""
    eta_w: float
    eta_c: float
    eta_theta: float
    eta_b: float
    epsilon: float
    fraction: float
    """Fraction of the examples that are attacked."""
    attack: Attack
    levels: Array
    """Levels of the law of a factor of epsilon, see `odeflow.laws`; none: the factor is 1."""
    factors: Array
    """Its values there."""
    course: Course = CONSTANT
    """What of epsilon, eta_w and eta_b changes with learning time."""
    gain_squared: float = 1.0
    """By which eta_w of the course is multiplied, for the kernels' units."""


class State(NamedTuple):
    """Order parameters of K units whose weights' overlaps with S directions of the basis are known."""

    M: Array
    """Overlaps, shape (..., K, S)."""
    Q: Array
    """Shape (..., K, K)."""
    c: Array
    """Shape (..., K)."""
    theta: Array
    """Shape (..., K)."""
    b: Array
    """Shape (...)."""


def basis(gram: Array) -> Array:
    """Return vectors with these scalar products, shape (C, n0), in coordinates of an orthonormal basis; n0 is the rank, >= 1."""
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    kept = values > 1e-13 * max(values[-1], 1e-300)
    kept[-1] = True
    return np.ascontiguousarray(vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0)))


def simulate_runs(
    data: Examples,
    learning: Learning,
    directions: Array,
    start: State,
    *,
    N: int,
    examples: npt.NDArray[np.int64],
    runs: int,
    method: str,
    seed: np.random.SeedSequence,
    progress: bool,
) -> Array:
    """Return the order parameters of each run after so many examples.

    Parameters
    ----------
    data, learning
        What is learned, by whom.
    directions
        Vectors whose overlaps with the weights are M, shape (S, n0), of any rank.
    start
        Order parameters at the beginning, of all runs, or with a leading axis of one a run. The weights have these overlaps,
        and the least length that they allow within the basis. Q - M (directions directions^T)^-1 M^T must be positive
        semidefinite; what is below 0 is taken as 0.
    N
        Dimension, >= n0 + K + 1 (reduced) or n0 + K (direct).
    examples
        Numbers of examples seen at the outputs, which do not fall.
    runs
        Number of runs. Each has the stream of random numbers that its index spawns from `seed`.
    method
        "reduced" or "direct".
    seed
        Is not changed.
    progress
        Whether a bar is shown on a terminal.

    Returns
    -------
    Array
        Shape (runs, outputs, K S + K K + 2 K + 1): M, Q, c, theta and b, flat.

    Raises
    ------
    ValueError
        If N is too small.
    """
    from odeflow.numerics.threads import Flag, map_blocks

    K, S = start.M.shape[-2:]
    directions = _own(directions).reshape(S, -1)
    n0 = directions.shape[1]
    least = n0 + K + (method == "reduced")
    if least > N:
        raise ValueError(
            f"N = {N} is too small for {K} hidden units: allowed with method = {method!r} is N >= {least}, for the "
            f"weights in {n0} directions of the data and {K} others" + (", and one more" if method == "reduced" else "")
        )
    P = np.asarray(start.M) @ np.linalg.pinv(directions).T
    X = _lower_factor(np.asarray(start.Q) - P @ np.swapaxes(P, -1, -2))
    initial = [
        _own(np.broadcast_to(entry, (runs, *shape)))
        for entry, shape in zip((P, X, start.c, start.theta, start.b), ((K, n0), (K, K), (K,), (K,), ()), strict=True)
    ]
    law = Examples(
        _own(np.cumsum(data.p)), _own(np.sqrt(data.v)), _own(data.tau), _own(data.centres),
        _own(data.teacher_c), _own(data.teacher), int(data.teacher_kind),
    )  # fmt: skip
    kind, *rates = learning[:7]
    how = Attack(int(learning.attack.kind), int(learning.attack.steps), float(learning.attack.step))
    learner = (int(kind), *map(float, rates), how, _own(learning.levels), _own(learning.factors))
    course = (learning.course, float(learning.gain_squared))
    out = np.empty((runs, examples.size, K * S + K * K + 2 * K + 1))

    def simulate(run: int, examples: npt.NDArray[np.int64], stop: Flag) -> None:
        child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, run), pool_size=seed.pool_size)
        rng = np.random.Generator(np.random.SFC64(child))
        one = (entry[run] for entry in initial)
        _simulate(rng, N, method == "reduced", law, learner, course, directions, *one, examples, stop, out[run])

    def block(first: int, last: int, stop: Flag) -> None:
        if first == last:
            simulate(0, examples[:0], stop)  # compiles
        for run in range(first, last):
            if stop[0]:
                return
            simulate(run, examples, stop)

    map_blocks(block, runs, least=1, progress=" runs" if progress else None)
    return out


def _own(entry: npt.ArrayLike) -> Array:
    """Return a copy whose type is always the same, so that the loop is compiled once: C order, and not read-only."""
    return np.array(entry, np.float64, order="C")


def _lower_factor(matrix: Array) -> Array:
    """Return lower triangular X with X X^T = matrix, of positive semidefinite matrices (..., K, K); what is below 0 is 0."""
    values, vectors = np.linalg.eigh((matrix + np.swapaxes(matrix, -1, -2)) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    return np.swapaxes(np.linalg.qr(np.swapaxes(root, -1, -2)).R, -1, -2)


@called
def _dot(x, y, first, last):
    """Return sum_i x_i y_i over first <= i < last; four sums at a time, that the processor need not wait for each addition."""
    one, two, three, four = 0.0, 0.0, 0.0, 0.0
    i = first
    while i + 4 <= last:
        one += x[i] * y[i]
        two += x[i + 1] * y[i + 1]
        three += x[i + 2] * y[i + 2]
        four += x[i + 3] * y[i + 3]
        i += 4
    while i < last:
        one += x[i] * y[i]
        i += 1
    return (one + two) + (three + four)


@called
def _embed(rng, X, n0, w):
    """Set the coordinates from n0 on of the weights to X in a random orthonormal frame."""
    K, D = w.shape
    for k in range(K):
        for i in range(n0, D):
            w[k, i] = rng.standard_normal()
        for l in range(k):
            along = _dot(w[k], w[l], n0, D)
            for i in range(n0, D):
                w[k, i] -= along * w[l, i]
        scale = 1.0 / math.sqrt(_dot(w[k], w[k], n0, D))
        for i in range(n0, D):
            w[k, i] *= scale
    for k in range(K - 1, -1, -1):
        for i in range(n0, D):
            w[k, i] *= X[k, k]
            for l in range(k):
                w[k, i] += X[k, l] * w[l, i]


@called
def _turn(w, n0, products):
    """Turn the frame of the weights' last K + 1 coordinates so that the rows are lower triangular there (Gram-Schmidt)."""
    K, D = w.shape
    for k in range(K):
        for l in range(k):
            # row l is a direction of the new frame by now, products[l] its old length
            along = 0.0
            for i in range(n0, D):
                along += w[k, i] * w[l, i]
            products[k, l] = along
            for i in range(n0, D):
                w[k, i] -= along * w[l, i]
        square = 0.0
        for i in range(n0, D):
            square += w[k, i] * w[k, i]
        length = math.sqrt(square)
        products[k, k] = length
        scale = 1.0 / length if length > 0.0 else 0.0
        for i in range(n0, D):
            w[k, i] *= scale
    for k in range(K):
        for l in range(K):
            w[k, n0 + l] = products[k, l] if l <= k else 0.0
        w[k, D - 1] = 0.0


@kept
def _simulate(rng, N, is_reduced, law, learning, scheduled, directions, P, X, c, theta, b, examples, stop, out):
    # of `law`, p is cumulated and v the standard deviations; c and theta are changed in place
    kind, eta_w, eta_c, eta_theta, eta_b, epsilon, fraction, how, levels, factors = learning
    course, gain_squared = scheduled
    eta_w, eta_c, eta_theta, eta_b = eta_w / N, eta_c / N, eta_theta / N, eta_b / N
    K, n0 = P.shape
    S = directions.shape[0]
    drawn = n0 + K if is_reduced else N  # coordinates of an example that are drawn one by one
    D = drawn + 1 if is_reduced else N
    freedom = float(N - drawn)
    w, xi, frame = np.zeros((K, D)), np.zeros(D), np.zeros((K, K))
    Q, x, d, s, e_g = np.zeros((K, K)), np.zeros(K), np.zeros(K), np.zeros(K), np.zeros(K)
    work = np.zeros(attack_scratch(K))
    for k in range(K):
        for i in range(n0):
            w[k, i] = P[k, i]
    if is_reduced:
        for k in range(K):
            for l in range(k + 1):
                w[k, n0 + l] = X[k, l]
    else:
        _embed(rng, X, n0, w)
    done, piece = 0, 0
    for output in range(examples.size):
        for example in range(done, examples[output]):
            if is_set(stop):
                return
            if course.edges.size > 0:
                piece = piece_at(course, piece, example / N)
                epsilon, eta_w, eta_b = course_at(course, piece, example / N)
                eta_w, eta_b = gain_squared * eta_w / N, eta_b / N
            # an example and its label
            cluster, u = 0, rng.random()
            while cluster + 1 < law.p.size and u >= law.p[cluster]:
                cluster += 1
            sd, tau = law.v[cluster], law.tau[cluster]
            for i in range(drawn):
                xi[i] = sd * rng.standard_normal()
            if is_reduced:
                xi[drawn] = sd * math.sqrt(rng.chisquare(freedom))
            for i in range(n0):
                xi[i] += law.centres[cluster, i]
            for n in range(law.teacher_c.size):
                tau += law.teacher_c[n] * unit(law.teacher_kind, _dot(law.teacher[n], xi, 0, n0))
            # the attack
            for k in range(K):
                x[k] = _dot(w[k], xi, 0, drawn) - theta[k]
                for l in range(k + 1):
                    Q[k, l] = Q[l, k] = _dot(w[k], w[l], 0, drawn)
            size = epsilon
            if levels.size > 0:
                size *= from_table(1.0 - rng.random(), levels, factors)
            if fraction < 1.0 and rng.random() >= fraction:
                size = 0.0
            attack(kind, x, Q, c, b, tau, size, how, work, d)
            # the step, all of it from the old values
            e = b - tau
            for k in range(K):
                for l in range(K):
                    x[k] += Q[k, l] * d[l]
                g = unit(kind, x[k])
                e_g[k] = g
                e += c[k] * g
            for i in range(D):
                for l in range(K):
                    xi[i] += d[l] * w[l, i]
            for k in range(K):
                s[k] = -e * c[k] * slope(kind, x[k])
                for i in range(D):
                    w[k, i] += eta_w * s[k] * xi[i]
            for k in range(K):
                c[k] -= eta_c * e * e_g[k]
                theta[k] -= eta_theta * s[k]
            b -= eta_b * e
            if is_reduced:
                _turn(w, n0, frame)
        done = examples[output]
        for k in range(K):
            for j in range(S):
                out[output, k * S + j] = _dot(w[k], directions[j], 0, n0)
            for l in range(K):
                out[output, K * S + k * K + l] = _dot(w[max(k, l)], w[min(k, l)], 0, D)
            out[output, K * S + K * K + k] = c[k]
            out[output, K * S + K * K + K + k] = theta[k]
        out[output, K * S + K * K + 2 * K] = b
