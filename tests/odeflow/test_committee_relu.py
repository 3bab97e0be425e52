"""The averages over the fields of ReLU units, against closed forms, pointwise quadrature, and their symmetries."""

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad, quad_vec
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal, qmc

from odeflow.numerics.compilation import kept
from odeflow.order_parameters.committee.quadrature import relu
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD, WORST, Attack, layout, width

Array = npt.NDArray[np.float64]
ATTACKS = pytest.mark.parametrize("kind", [FGSM, MARGIN])
UNITS = pytest.mark.parametrize("K", [1, 2, 3, 4])


class Cluster(NamedTuple):
    m: Array
    v: float
    Q: Array
    c: Array
    b: float
    tau: float


@kept
def _add(m, v, L, Q, c, b, tau, epsilon, how, share, rule, sums):  # type: ignore[no-untyped-def]
    work = np.full(relu.scratch(m.size, rule), np.nan)
    relu.add_averages_relu(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums)


def averages(
    at: Cluster, epsilon: float, kind: int = FGSM, *, steps: int = 1, step: float = 1.0, tolerance: float = 1e-9
) -> Array:
    K = at.m.size
    sums = np.zeros(width(K, K))
    how = Attack(kind, steps, step)
    L = np.linalg.cholesky(at.Q)
    _add(at.m, at.v, L, at.Q, at.c, at.b, at.tau, epsilon, how, 1.0, relu.rule(K, tolerance), sums)
    return sums


def split(sums: Array, K: int) -> tuple[Any, ...]:
    """Return <s>, <s y>, <s d>, <s s>, <e g>, <e>, <e e>."""
    s, s_y, s_d, s_s, e_g, e, e_e = np.split(sums, layout(K, K))
    square = (K, K)
    return s, s_y.reshape(square), s_d.reshape(square), s_s.reshape(square), e_g, float(e[0]), float(e_e[0])


def drawn(K: int, seed: int, spread: float = 1.0) -> Cluster:
    rng = np.random.default_rng([K, seed])
    W = rng.standard_normal((K, K + 2)) / math.sqrt(K + 2)
    return Cluster(
        0.6 * rng.standard_normal(K), spread * rng.uniform(0.2, 1.2), W @ W.T, rng.standard_normal(K),
        0.3 * rng.standard_normal(), rng.choice([-1.0, 1.0]),
    )  # fmt: skip


def pointwise(at: Cluster, epsilon: float, kind: int, y: Array, steps: int = 1, step: float = 1.0) -> Array:
    """Return the integrand at y, shape (points, K), as section 5.1 has it: nothing here knows of cells."""
    x = at.m + math.sqrt(at.v) * y @ np.linalg.cholesky(at.Q).T
    d = np.zeros_like(x)
    for _ in range(steps):
        moved = x + d @ at.Q
        e = at.b + np.maximum(moved, 0) @ at.c - at.tau if kind != MARGIN else np.full(len(y), -at.tau)
        u = at.c * (moved > 0)
        length = np.sqrt(np.einsum("nk,kl,nl->n", u, at.Q, u))
        turn = np.where(length > 0, step * epsilon * np.sign(e) / np.where(length > 0, length, 1), 0)
        d = d + turn[:, None] * u
        length = np.sqrt(np.einsum("nk,kl,nl->n", d, at.Q, d))
        d *= np.minimum(1, epsilon / np.maximum(length, 1e-300))[:, None]
    moved = x + d @ at.Q
    e = (at.b + np.maximum(moved, 0) @ at.c - at.tau)[:, None]
    s = -e * at.c * (moved > 0)

    def pairs(other: Array) -> Array:
        return (s[:, :, None] * other[:, None, :]).reshape(len(y), -1)

    return np.concatenate([s, pairs(y), pairs(d), pairs(s), e * np.maximum(moved, 0), e, e * e], axis=1)


def test_the_rates_of_an_xor_network_are_the_check_values() -> None:
    M = np.array([[0.6, -0.6, 0.1, -0.1], [-0.2, 0.2, 0.5, -0.5]])
    Q, c, b, v, eta = np.array([[1.2, 0.3], [0.3, 0.8]]), np.array([1.0, -1.0]), 0.1, 0.2, 0.5
    L = np.linalg.cholesky(Q)
    T = np.array([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1.0]])
    dM, dQ, db = np.zeros((2, 4)), np.zeros((2, 2)), 0.0
    for a, tau in enumerate([1.0, 1.0, -1.0, -1.0]):
        found = averages(Cluster(M[:, a].copy(), v, Q, c, b, tau), 0.3)
        s, s_y, s_d, s_s, _, e, _ = split(found, 2)
        V = math.sqrt(v) * s_y @ np.linalg.inv(L) + s_d
        B = np.outer(s, M[:, a]) + V @ Q
        dM += eta / 4 * (np.outer(s, T[a]) + V @ M)
        dQ += eta / 4 * (B + B.T) + eta**2 / 4 * v * s_s
        db -= eta / 4 * e
    np.testing.assert_allclose(dM[:, [0, 2]], [[-0.083662917, 0.018005540], [0.178971612, 0.031081451]], atol=1e-9)
    np.testing.assert_allclose(dQ[np.triu_indices(2)], [-0.248232090, 0.109129931, -0.082782336], atol=1e-9)
    assert db == pytest.approx(-0.080252887, abs=1e-9)


def positive_moments(m: Array, C: Array, j: int, k: int) -> tuple[float, float, float]:
    """Return P(x_j, x_k > 0), <x_j^+ [x_k > 0]> and <x_j^+ x_k^+>, by one adaptive quadrature each."""
    if j == k:
        sd = math.sqrt(C[j, j])
        z = m[j] / sd
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        first = m[j] * ndtr(z) + sd * density
        return float(ndtr(z)), float(first), float(m[j] * first + C[j, j] * ndtr(z))
    sd, rest = math.sqrt(C[j, j]), math.sqrt(C[k, k] - C[j, k] ** 2 / C[j, j])

    def integrand(x: float, power: int, both: bool) -> float:
        mean = m[k] + C[j, k] / C[j, j] * (x - m[j])
        z = mean / rest
        inner = ndtr(z)
        if both:
            inner = mean * inner + rest * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return float(x**power * inner * math.exp(-((x - m[j]) ** 2) / 2 / C[j, j]) / sd / math.sqrt(2 * math.pi))

    top = max(0.0, m[j]) + 12 * sd
    found = [
        quad(integrand, 0, top, (power, both), epsabs=1e-13, limit=200)[0] for power, both in ((0, 0), (1, 0), (1, 1))
    ]
    return found[0], found[1], found[2]


@UNITS
@pytest.mark.parametrize("seed", range(3))
def test_without_attack_the_means_are_those_of_bivariate_normals(K: int, seed: int) -> None:
    at = drawn(K, seed)
    C, t = at.v * at.Q, at.tau - at.b
    moments = np.array([[positive_moments(at.m, C, j, k) for k in range(K)] for j in range(K)])
    single = np.array([positive_moments(at.m, C, k, k) for k in range(K)])
    S = at.c * (t * single[:, 0] - at.c @ moments[:, :, 1])
    e_g = moments[:, :, 2] @ at.c - t * single[:, 1]
    e = at.c @ single[:, 1] - t
    found = split(averages(at, 0.0), K)
    np.testing.assert_allclose(found[0], S, atol=1e-8)
    np.testing.assert_allclose(found[4], e_g, atol=1e-8)
    assert found[5] == pytest.approx(e, abs=1e-8)
    assert found[6] == pytest.approx(at.c @ e_g - t * e, abs=1e-8)
    np.testing.assert_array_equal(found[2], 0)


@pytest.mark.parametrize("K", [2, 3, 4])
def test_without_attack_the_averages_with_y_are_derivatives_by_the_means(K: int) -> None:
    at = drawn(K, 7)
    s_y = split(averages(at, 0.0), K)[1]
    V = math.sqrt(at.v) * s_y @ np.linalg.inv(np.linalg.cholesky(at.Q))  # = v dS/dm (Stein)
    step = 1e-4
    for k in range(K):
        up, down = (split(averages(at._replace(m=at.m + sign * step * np.eye(K)[k]), 0.0), K)[0] for sign in (1, -1))
        # central differences: 1e-8 from the step, 1e-9 / step from the quadrature
        np.testing.assert_allclose(V[:, k], at.v * (up - down) / (2 * step), atol=1e-5)


@pytest.mark.parametrize("K", [3, 4])
def test_a_small_network_sees_the_orthants_of_its_fields(K: int) -> None:
    """Where c is small, e = -t, and <s_k s_l> is c_k c_l t^2 times the probability that both are active."""
    at = drawn(K, 3)._replace(m=np.zeros(K), c=np.full(K, 1e-7), b=0.0)
    s_s = split(averages(at, 0.0), K)[3] / 1e-14
    angle = np.arcsin(np.clip(at.Q / np.sqrt(np.outer(np.diag(at.Q), np.diag(at.Q))), -1, 1))
    np.testing.assert_allclose(s_s, 0.25 + angle / (2 * math.pi), atol=1e-6)


def test_two_units_are_active_together_while_the_third_makes_the_error() -> None:
    """<s_1 s_2> is c_1 c_2 times the average of (1 + x_3^+)^2 over the quadrant, where c_1 and c_2 are small."""
    Q, m = np.array([[1.0, 0.4, -0.3], [0.4, 1.2, 0.2], [-0.3, 0.2, 0.8]]), np.array([0.2, -0.1, 0.3])
    s_s = split(averages(Cluster(m, 1.0, Q, np.array([1e-8, 1e-8, 1.0]), 1.0, 0.0), 0.0), 3)[3]
    C = Q[:2, :2] - np.outer(Q[:2, 2], Q[:2, 2]) / Q[2, 2]

    def integrand(x: float) -> float:
        mean = m[:2] + Q[:2, 2] / Q[2, 2] * (x - m[2])
        inside = float(multivariate_normal(mean, C).cdf([50, 50], lower_limit=[0, 0]))
        return (
            (1 + max(x, 0)) ** 2
            * inside
            * math.exp(-((x - m[2]) ** 2) / 2 / Q[2, 2])
            / math.sqrt(2 * math.pi * Q[2, 2])
        )

    expected = sum(quad(integrand, low, high, epsabs=1e-8)[0] for low, high in ((-8, 0), (0, 8)))
    assert s_s[0, 1] * 1e16 == pytest.approx(expected, abs=1e-6)


@ATTACKS
@pytest.mark.parametrize("seed", range(4))
def test_the_averages_of_one_or_two_units_are_those_of_adaptive_quadrature(kind: int, seed: int) -> None:
    """y_2 in Gauss-Legendre panels between all places where anything could change, y_1 adaptively."""
    epsilon = 0.5
    nodes, weights = np.polynomial.legendre.leggauss(24)
    for K in (1, 2):
        at = drawn(K, seed)
        L, last = math.sqrt(at.v) * np.linalg.cholesky(at.Q), K - 1
        shifts = {0.0}
        for active in product([0, 1], repeat=K):
            u = at.c * active
            if any(active):
                shifts |= {sign * epsilon * float((at.Q @ u)[last] / math.sqrt(u @ at.Q @ u)) for sign in (-1, 1)}

        def line(y: float, at: Cluster = at, K: int = K, L: Any = L, shifts: set[float] = shifts) -> Any:
            outer, mean = np.array([y][: K - 1]), float(at.m[-1] + (L[-1, 0] * y if K == 2 else 0))
            first = max(float(at.m[0] + L[0, 0] * y), 0.0) if K == 2 else 0.0
            meets = {(at.tau - at.b - active * at.c[0] * first) / at.c[-1] for active in (0, 1)}
            edges = sorted({-9.0, 9.0} | {z for x in shifts | meets if abs(z := (x - mean) / L[-1, -1]) < 9})
            ends = np.unique(np.concatenate([np.linspace(-9, 9, 7), edges]))
            half = np.diff(ends)[:, None] / 2
            z = (ends[:-1, None] + half * (1 + nodes)).ravel()
            weight = (half * weights).ravel() * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
            points = np.column_stack([np.broadcast_to(outer, (z.size, K - 1)), z])
            values = weight @ pointwise(at, epsilon, kind, points)
            return values * math.exp(-y * y / 2) / math.sqrt(2 * math.pi) if K == 2 else values

        expected = line(0.0) if K == 1 else quad_vec(line, -8, 8, epsabs=1e-9, norm="max", limit=2000)[0]
        np.testing.assert_allclose(averages(at, epsilon, kind), expected, atol=2e-8)


def scrambled(K: int, log_points: int, scrambles: int) -> list[Array]:
    """Return normal points, a set of Sobol' points for each scramble."""
    sets = []
    for seed in range(scrambles):
        points = qmc.Sobol(K, rng=np.random.default_rng([K, seed])).random_base2(log_points)
        sets.append(np.asarray(ndtri(np.clip(points, 1e-12, 1 - 1e-12))))
    return sets


@ATTACKS
@pytest.mark.parametrize("K", [3, 4])
def test_the_averages_of_more_units_are_those_of_many_points(kind: int, K: int) -> None:
    """Over 30 scrambles z is Student's t with 29 degrees of freedom: beyond 6 once in 600,000."""
    for seed, spread in ((0, 1.0), (1, 0.1), (2, 5.0)):
        at = drawn(K, seed, spread)
        found = averages(at, 0.5, kind, tolerance=1e-6)
        means = np.array([pointwise(at, 0.5, kind, y).mean(axis=0) for y in scrambled(K, 12, 30)])
        error = means.std(axis=0, ddof=1) / math.sqrt(len(means))
        assert np.max(error) < 1e-2 * np.max(np.abs(found))
        assert np.all(np.abs(means.mean(axis=0) - found) < 6 * error + 1e-6 * np.max(np.abs(found)))


@ATTACKS
@pytest.mark.parametrize(("K", "tolerance"), [(2, 1e-8), (3, 1e-8), (4, 1e-5)])
def test_the_order_of_the_units_does_not_matter(kind: int, K: int, tolerance: float) -> None:
    """The levels of the quadrature are then others, and so are all panels."""
    for seed in range(2):
        at = drawn(K, 10 + seed)
        order = np.random.default_rng(seed).permutation(K)[::-1] if seed else np.arange(K)[::-1]
        turned = at._replace(m=at.m[order].copy(), c=at.c[order].copy(), Q=at.Q[np.ix_(order, order)].copy())
        one, other = (split(averages(state, 0.5, kind, tolerance=tolerance), K) for state in (at, turned))
        V, V_turned = (
            found[1] @ np.linalg.inv(np.linalg.cholesky(state.Q)) for found, state in ((one, at), (other, turned))
        )
        scale = tolerance * max(np.max(np.abs(averages(at, 0.5, kind, tolerance=1e-4))), 1.0)
        condition = np.linalg.cond(np.linalg.cholesky(at.Q))
        np.testing.assert_allclose(V_turned, V[np.ix_(order, order)], atol=4 * condition * scale)
        for k in (0, 4):
            np.testing.assert_allclose(other[k], one[k][order], atol=2 * scale)
        for k in (2, 3):
            np.testing.assert_allclose(other[k], one[k][np.ix_(order, order)], atol=2 * scale)
        np.testing.assert_allclose(other[5:], one[5:], atol=2 * scale)


@ATTACKS
@pytest.mark.parametrize("K", [3, 4])
def test_units_without_output_weight_change_nothing(kind: int, K: int) -> None:
    at = drawn(K, 5)
    kept = [0, K - 1]
    at = at._replace(c=np.where(np.isin(np.arange(K), kept), at.c, 0.0))
    two = Cluster(at.m[kept].copy(), at.v, at.Q[np.ix_(kept, kept)].copy(), at.c[kept].copy(), at.b, at.tau)
    all_units, few = (split(averages(state, 0.5, kind, tolerance=1e-6), state.m.size) for state in (at, two))
    scale = 2e-6 * np.max(np.abs(averages(two, 0.5, kind)))
    np.testing.assert_allclose(all_units[0][kept], few[0], atol=scale)
    np.testing.assert_allclose(all_units[3][np.ix_(kept, kept)], few[3], atol=scale)
    np.testing.assert_allclose(all_units[4][kept], few[4], atol=scale)
    np.testing.assert_allclose(all_units[5:], few[5:], atol=scale)
    silent = [k for k in range(K) if k not in kept]
    np.testing.assert_array_equal(all_units[0][silent], 0)


@pytest.mark.parametrize("distance", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("K", [2, 3, 4])
def test_units_with_the_same_weights_are_one(K: int, distance: float) -> None:
    """Q is nearly singular; what K units of a common w share is what one unit has, to the order of the distance."""
    one = drawn(1, 2)
    rng = np.random.default_rng(K)
    W = np.concatenate([np.full((K, 1), math.sqrt(one.Q[0, 0])), distance * rng.standard_normal((K, K))], axis=1)
    c = np.array([0.5, 0.7, -0.3, 0.4])[:K]
    c *= one.c / c.sum()
    many = Cluster(np.full(K, one.m[0]), one.v, W @ W.T, c, one.b, one.tau)
    expected, found = split(averages(one, 0.5), 1), split(averages(many, 0.5, tolerance=1e-6), K)
    scale = 1e-6 + 30 * distance  # c / c.sum() reaches 0.7 / 0.5
    np.testing.assert_allclose(found[0], expected[0] * c / one.c, atol=scale)
    np.testing.assert_allclose(found[3], expected[3] * np.outer(c, c) / one.c**2, atol=scale)
    np.testing.assert_allclose(found[5:], expected[5:], atol=scale)


@ATTACKS
@pytest.mark.parametrize("K", [2, 3, 4])
def test_fields_of_one_random_number_are_integrated_along_it(kind: int, K: int) -> None:
    """All but a millionth of the fields is a_k y: each passes its planes at a place of its own, and within a short range."""
    rng = np.random.default_rng(K)
    a = rng.uniform(0.5, 1.5, K) * np.array([1, -1, 1, 1])[:K]
    W = np.concatenate([a[:, None], 1e-6 * rng.standard_normal((K, K))], axis=1)
    at = Cluster(rng.standard_normal(K), 1.0, W @ W.T, rng.standard_normal(K), 0.1, 1.0)
    points = (np.arange(400_000) + 0.5) / 400_000 * 16 - 8
    y = np.zeros((points.size, K))
    y[:, 0] = points
    density = np.exp(-points * points / 2) / math.sqrt(2 * math.pi) * (points[1] - points[0])
    expected = sum(
        part_weight @ pointwise(at, 0.5, kind, part)
        for part, part_weight in zip(np.split(y, 20), np.split(density, 20), strict=True)
    )
    # a jump is met to the distance of two points, 4e-5
    np.testing.assert_allclose(averages(at, 0.5, kind, tolerance=1e-6), expected, atol=1e-4 * np.max(np.abs(expected)))


@UNITS
def test_where_all_units_are_active_the_network_is_linear(K: int) -> None:
    """Far from all planes: phi is normal, and FGSM moves it by epsilon |sum c_k w_k|, away from the label."""
    at = drawn(K, 1, 0.01)._replace(m=np.full(K, 20.0), tau=1.0)
    at = at._replace(c=np.abs(at.c))
    length, mean = math.sqrt(at.c @ at.Q @ at.c), at.b + at.c @ at.m - 1
    s, _, s_d, s_s, _, e, e_e = split(averages(at, 0.5), K)
    moved = mean + 0.5 * length
    assert e == pytest.approx(moved, rel=1e-9)
    assert e_e == pytest.approx(moved**2 + at.v * length**2, rel=1e-9)
    np.testing.assert_allclose(s, -at.c * moved, rtol=1e-9)
    np.testing.assert_allclose(s_d, -np.outer(at.c, at.c) * 0.5 / length * moved, rtol=1e-8)
    np.testing.assert_allclose(s_s, np.outer(at.c, at.c) * e_e, rtol=1e-9)
    off = split(averages(at._replace(m=np.full(K, -20.0)), 0.5), K)  # and where none is, nothing can be attacked
    np.testing.assert_array_equal(off[0], 0)
    np.testing.assert_allclose(off[5:], [at.b - 1, (at.b - 1) ** 2], rtol=1e-9)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("spread", [1e-4, 1.0, 30.0])
def test_the_error_is_below_the_tolerance(K: int, spread: float) -> None:
    for seed in range(3):
        at = drawn(K, 20 + seed, spread)
        exact = averages(at, 0.5, tolerance=1e-11)
        for tolerance in (1e-3, 1e-5, 1e-7):
            found = averages(at, 0.5, tolerance=tolerance)
            assert np.max(np.abs(found - exact)) < tolerance * np.max(np.abs(exact))


@UNITS
def test_pgd_of_one_whole_step_is_fgsm(K: int) -> None:
    at = drawn(K, 4)
    np.testing.assert_allclose(
        averages(at, 0.5, PGD, tolerance=1e-4), averages(at, 0.5, FGSM, tolerance=1e-4), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("K", [2, 3, 4])
def test_the_averages_under_pgd_are_those_of_many_points(K: int) -> None:
    """Both are sums over points, the one over 2^13, whose error is below 2e-3: less than PGD differs from FGSM."""
    at = drawn(K, 6)
    found = averages(at, 0.8, PGD, steps=4, step=0.4, tolerance=1e-4)
    sets = scrambled(K, 12, 30)
    means = np.array([pointwise(at, 0.8, FGSM, y, 4, 0.4).mean(axis=0) for y in sets])
    error = means.std(axis=0, ddof=1) / math.sqrt(len(means))
    assert np.all(np.abs(means.mean(axis=0) - found) < 6 * error + 2e-3 * np.max(np.abs(found)))
    fgsm = averages(at, 0.8, FGSM, tolerance=1e-4)
    assert np.max(np.abs(fgsm - found)) > 2e-3 * np.max(np.abs(found))


@UNITS
def test_the_worst_case_is_the_worst(K: int) -> None:
    for seed in range(3):
        at = drawn(K, 30 + seed)
        losses = [averages(at, 0.8, kind, steps=5, step=0.5, tolerance=1e-4)[-1] for kind in (WORST, PGD, FGSM)]
        assert losses[0] >= losses[1] - 1e-3 * losses[0]
        assert losses[0] >= losses[2]


def test_shares_add_up_and_a_state_that_is_not_finite_is_told() -> None:
    at = drawn(3, 0)
    L, how, rule = np.linalg.cholesky(at.Q), Attack(FGSM, 1, 1.0), relu.rule(3, 1e-5)
    sums = np.zeros(width(3, 3))
    for share in (0.3, 0.7):
        _add(at.m, at.v, L, at.Q, at.c, at.b, at.tau, 0.5, how, share, rule, sums)
    np.testing.assert_allclose(sums, averages(at, 0.5, tolerance=1e-5), rtol=1e-12)
    _add(at.m * np.nan, at.v, L, at.Q, at.c, at.b, at.tau, 0.5, how, 1.0, rule, sums)
    assert np.all(np.isnan(sums))


def test_too_many_units_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden = 7 with activation = 'relu': allowed are 1 to 6"):
        relu.rule(7, 1e-4)
