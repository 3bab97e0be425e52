"""The averages over the fields of erf units, against closed forms, dense quadrature, drawn examples, and one unit's own."""

import itertools
import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf, erfinv
from scipy.stats import multivariate_normal

from odeflow.order_parameters.committee.attacks import attack, attack_scratch, worst_output
from odeflow.order_parameters.committee.closed_forms import averages_without_attack, bivariate_normal
from odeflow.order_parameters.committee.quadrature.erf import add_averages_erf, rule, scratch
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD, WORST, Attack, layout, width
from odeflow.order_parameters.committee.units import ERF
from tests.odeflow.one_unit import averages as averages_of_one

Array = npt.NDArray[np.float64]


@numba.njit(error_model="numpy")
def _averages(m, v, L, Q, c, b, tau, epsilon, how, rule):  # type: ignore[no-untyped-def]
    sums = np.zeros(width(c.size, c.size))
    add_averages_erf(m, v, L, Q, c, b, tau, epsilon, how, 1.0, rule, np.empty(scratch(c.size, rule)), sums)
    return sums


def averages(
    m: Any, v: float, Q: Any, c: Any, b: float, tau: float, epsilon: float, kind: int = FGSM, tolerance: float = 1e-8
) -> Array:
    m, Q, c = np.array(m, float), np.array(Q, float), np.array(c, float)
    how = Attack(kind, 1, 1.0)
    found = _averages(m, v, np.linalg.cholesky(Q), Q, c, b, tau, epsilon, how, rule(c.size, tolerance))
    return np.asarray(found)


def parts(sums: Array, K: int) -> list[Array]:
    s_y, s_d, s_s, e_g, e, _ = layout.py_func(K, K)
    matrices = [sums[i : i + K * K].reshape(K, K) for i in (s_y, s_d, s_s)]
    return [sums[:K], *matrices, sums[e_g:e], sums[e:]]


def states(K: int, n: int, correlation: float = 0.8) -> list[tuple[Any, ...]]:
    """Return n random states with v Q_kk between 0.1 and 4: m, v, Q, c, b, tau."""
    rng = np.random.default_rng(K)
    found = []
    for _ in range(n):
        v = rng.uniform(0.3, 2.0)
        W = rng.standard_normal((K, K + 1))
        W /= np.linalg.norm(W, axis=1, keepdims=True)
        size = np.sqrt(np.exp(rng.uniform(math.log(0.1), math.log(4.0), K)) / v)
        Q = (correlation * W @ W.T + (1 - correlation) * np.eye(K)) * np.outer(size, size)
        c = rng.uniform(0.3, 1.5, K) * rng.choice([-1.0, 1.0], K)
        found.append((0.7 * rng.standard_normal(K), v, Q, c, 0.2 * rng.standard_normal(), rng.choice([-1.0, 1.0])))
    return found


def dense(m: Array, v: float, Q: Array, c: Array, b: float, tau: float, epsilon: float, panels: int) -> Array:
    """Return the averages under FGSM by many panels of equal length, the last coordinate's split where phi = tau."""
    K = c.size
    A = math.sqrt(v) * np.linalg.cholesky(Q)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    starts = np.linspace(-7.5, 7.5, panels + 1)
    half = (starts[1] - starts[0]) / 2
    line = (starts[:-1, None] + half * (1 + nodes)).ravel()
    w_line = np.tile(half * weights, panels)
    outer = np.array(list(itertools.product(line, repeat=K - 1)))
    w_outer = np.prod(np.array(list(itertools.product(w_line, repeat=K - 1))), axis=1)
    x = m[: K - 1] + outer @ A[: K - 1, : K - 1].T
    level = (tau - b - erf(x / math.sqrt(2)) @ c[: K - 1]) / c[-1]
    inside = np.abs(level) < 1
    jump = (math.sqrt(2) * erfinv(np.where(inside, level, 0.0)) - m[-1] - outer @ A[-1, : K - 1]) / A[-1, -1]
    jump = np.where(inside, np.clip(jump, -7.5, 7.5), 7.5)
    out = np.zeros(width.py_func(K, K))
    for side in range(2):
        low = np.full(jump.shape, -7.5) if side == 0 else jump
        high = jump if side == 0 else np.full(jump.shape, 7.5)
        for piece in range(4):
            start, length = low + (high - low) * piece / 4, (high - low) / 4
            last = start[:, None] + length[:, None] * (1 + nodes) / 2
            y = np.concatenate([np.broadcast_to(outer[:, None], (*last.shape, K - 1)), last[..., None]], -1)
            weight = (
                w_outer[:, None]
                * length[:, None]
                / 2
                * weights
                * np.exp(-(y**2).sum(-1) / 2)
                / (2 * math.pi) ** (K / 2)
            )
            x = m + y @ A.T
            u = c * np.exp(-(x**2) / 2)
            error = b + erf(x / math.sqrt(2)) @ c - tau
            norm = np.sqrt(np.maximum(np.einsum("...k,kl,...l", u, Q, u), 1e-300))
            d = epsilon * (np.sign(error) / norm)[..., None] * u
            x = x + d @ Q
            g = erf(x / math.sqrt(2))
            e = b + g @ c - tau
            s = -e[..., None] * c * math.sqrt(2 / math.pi) * np.exp(-(x**2) / 2)
            pairs = [np.einsum("ab,abk,abj->kj", weight, s, f).ravel() for f in (y, d, s)]
            moments = [np.einsum("ab,ab,abk->k", weight, e, g), [np.sum(weight * e), np.sum(weight * e * e)]]
            out += np.concatenate([np.einsum("ab,abk->k", weight, s), *pairs, *moments])
    return out


@numba.njit(error_model="numpy")
def dense_worst(m, A, Q, c, b, tau, epsilon, nodes, weights, panels):  # type: ignore[no-untyped-def]
    """Return <s>, <e> and <e e> of two units in the worst case, the last integral split where max phi + min phi = 2 tau."""
    work, d, x, moved, sums = np.empty(attack_scratch(2)), np.empty(2), np.empty(2), np.empty(2), np.zeros(4)
    far, how = 7.0, Attack(WORST, 1, 1.0)
    for outer in range(panels * nodes.size):
        y = far * (2.0 * (outer // nodes.size + nodes[outer % nodes.size]) / panels - 1.0)
        w = weights[outer % nodes.size] * 2.0 * far / panels * math.exp(-0.5 * y * y) / (2.0 * math.pi)
        x[0] = m[0] + A[0, 0] * y
        low, high = -far, far  # both outputs rise with x_2 if c_2 > 0
        for _ in range(45):
            x[1] = m[1] + A[1, 0] * y + A[1, 1] * 0.5 * (low + high)
            most = worst_output(ERF, x, Q, c, b, 1.0, epsilon, work, d)
            least = -worst_output(ERF, x, Q, c, b, -1.0, epsilon, work, d)
            if (most + least < 2.0 * tau) == (c[1] > 0.0):
                low = 0.5 * (low + high)
            else:
                high = 0.5 * (low + high)
        for start, stop in ((-far, low), (low, far)):
            for inner in range(5 * nodes.size):
                z = start + (stop - start) * (inner // nodes.size + nodes[inner % nodes.size]) / 5
                x[1] = m[1] + A[1, 0] * y + A[1, 1] * z
                attack(ERF, x, Q, c, b, tau, epsilon, how, work, d)
                weight = w * weights[inner % nodes.size] * (stop - start) / 5 * math.exp(-0.5 * z * z)
                e = b - tau
                for k in range(2):
                    moved[k] = x[k] + Q[k, 0] * d[0] + Q[k, 1] * d[1]
                    e += c[k] * math.erf(moved[k] / math.sqrt(2.0))
                for k in range(2):
                    sums[k] -= weight * e * c[k] * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * moved[k] ** 2)
                sums[2] += weight * e
                sums[3] += weight * e * e
    return sums


def rates(epsilon: float, kind: int) -> list[Array]:
    """Return dM, dQ, dc, dtheta, db and the attacked loss at a state of the mixture of two clusters."""
    p, v, labels = (0.7, 0.3), (1.0, 0.8), (1.0, -1.0)
    mu, M, Q = np.array([1.0, -1.0]), np.array([0.5, 0.1]), np.array([[1.2, 0.3], [0.3, 0.8]])
    c, theta, b, eta, eta_c = np.array([1.0, 0.8]), np.array([0.1, -0.2]), 0.05, 0.5, 0.2
    inverse = np.linalg.inv(np.linalg.cholesky(Q))
    dM, dQ, dc, dtheta, db, loss = np.zeros(2), np.zeros((2, 2)), np.zeros(2), np.zeros(2), np.zeros(1), np.zeros(1)
    for a in range(2):
        means = M * mu[a]
        sums = averages(means - theta, v[a], Q, c, b, labels[a], epsilon, kind)
        s, s_y, s_d, s_s, e_g, e = parts(sums, 2)
        V = math.sqrt(v[a]) * s_y @ inverse + s_d
        B = np.outer(s, means) + V @ Q
        dM += eta * p[a] * (s * mu[a] + V @ M)
        dQ += p[a] * (eta * (B + B.T) + eta**2 * v[a] * s_s)
        dc -= eta_c * p[a] * e_g
        dtheta -= eta * p[a] * s
        db -= eta * p[a] * e[0]
        loss += p[a] * e[1] / 2
    return [dM, dQ[np.triu_indices(2)], dc, dtheta, db, loss]


@pytest.mark.parametrize(
    ("epsilon", "kind", "expected", "digits"),
    [
        (
            0.3, FGSM,
            [
                [0.162237824, 0.107339195], [-0.078416148, -0.206485203, -0.135870394], [-0.081317106, -0.079549066],
                [-0.066757041, -0.069350683], [0.117436425], [0.764295516],
            ],
            9,
        ),
        (
            0.0, FGSM,
            [
                [0.142255333, 0.099663066], [-0.020086253, -0.119134888, -0.081084304], [-0.046276865, -0.049196448],
                None, [0.093345790], None,
            ],
            9,
        ),
        (0.3, MARGIN, [[0.1736739, 0.1239859], [-0.0558706, -0.1777892, -0.1157113], None, None, None, [0.7430732]], 7),
    ],
)  # fmt: skip
def test_the_rates_of_two_units_are_those_of_an_independent_computation(
    epsilon: float, kind: int, expected: list[Any], digits: int
) -> None:
    for found, known in zip(rates(epsilon, kind), expected, strict=True):
        if known is not None:
            # a unit in the last digit given, and what the quadrature of tolerance 1e-8 may be off
            assert found == pytest.approx(known, abs=0.6 * 10.0**-digits + 5e-9)


@pytest.mark.parametrize(("K", "tolerance", "n"), [(1, 1e-8, 20), (2, 1e-8, 10), (3, 1e-5, 4), (4, 1e-5, 2)])
def test_without_an_attack_they_are_the_closed_forms(K: int, tolerance: float, n: int) -> None:
    for m, v, Q, c, b, tau in states(K, n):
        found = averages(m, v, Q, c, b, tau, 0.0, tolerance=tolerance)
        expected = averages_without_attack(m, v, np.linalg.cholesky(Q), c, b, tau)
        assert found == pytest.approx(expected, abs=tolerance)


def test_the_bivariate_normal_function_is_that_of_scipy_at_zeros_too() -> None:
    for h, k, rho in [
        (0.3, -0.5, 0.7),
        (0, 0.5, 0.3),
        (0, -0.5, 0.3),
        (0, 0, -0.6),
        (-1, -2, 0.9),
        (1, 0, 0.2),
        (-1, 0, 0.2),
    ]:
        expected = multivariate_normal.cdf([h, k], cov=[[1, rho], [rho, 1]])
        assert bivariate_normal(h, k, rho) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("K", "panels", "tolerance"), [(1, 20, 1e-9), (2, 80, 1e-6), (3, 6, 2e-5)])
def test_under_fgsm_they_are_those_of_dense_quadrature(K: int, panels: int, tolerance: float) -> None:
    m, Q = np.array([0.4, -0.3, 0.2])[:K], np.array([[1.1, 0.3, -0.2], [0.3, 0.7, 0.1], [-0.2, 0.1, 0.9]])[:K, :K]
    for c, b in (([1.3, 0.8, 0.7], 0.1), ([1.2, -0.9, 0.6], -0.2)):
        weights = np.array(c)[:K]
        found = averages(m, 0.9, Q, weights, b, 1.0, 0.4, tolerance=tolerance)
        assert found == pytest.approx(dense(m, 0.9, Q, weights, b, 1.0, 0.4, panels), abs=2 * tolerance)


def test_where_the_weights_nearly_cancel_they_are_those_of_dense_quadrature_too() -> None:
    """The attack's direction turns on a scale of sqrt(1 - rho^2) where the two units weigh alike.

    Within three tolerances: this is where most is asked of the panels.
    """
    for m, lengths, rho, c, b, epsilon in [
        ([0.14, 1.16], [0.25, 0.40], -0.9989, [0.69, 0.69], -0.2, 0.34),
        ([1.0, 0.2], [0.43, 0.60], -0.9966, [1.1, 2.4], -0.1, 0.64),
    ]:
        Q = np.array([[1.0, rho], [rho, 1.0]]) * np.outer(lengths, lengths)
        found = averages(m, 1.0, Q, c, b, -1.0, epsilon, tolerance=1e-5)
        assert found == pytest.approx(dense(np.array(m), 1.0, Q, np.array(c), b, -1.0, epsilon, 120), abs=3e-5)


@pytest.mark.parametrize("c", [[1.3, 0.8], [1.2, -0.9]])
def test_in_the_worst_case_they_are_those_of_dense_quadrature(c: list[float]) -> None:
    m, Q, v, b, tau, epsilon = np.array([0.4, -0.3]), np.array([[1.1, 0.3], [0.3, 0.7]]), 0.6, 0.1, 1.0, 0.4
    found = averages(m, v, Q, c, b, tau, epsilon, WORST, 1e-6)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    A = math.sqrt(v) * np.linalg.cholesky(Q)
    expected = dense_worst(m, A, Q, np.array(c), b, tau, epsilon, 0.5 + 0.5 * nodes, 0.5 * weights, 30)
    assert [*found[:2], *found[-2:]] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("c", [1.3, -0.7, 1.0])
@pytest.mark.parametrize(("M", "vQ"), [(0.4, 1.0), (-1.5, 0.05), (2.0, 30.0)])
def test_one_unit_has_the_averages_of_its_own_file(c: float, M: float, vQ: float) -> None:
    v, theta, b, tau, epsilon = 0.8, 0.1, 0.05, 1.0, 0.3
    Q = vQ / v
    expected = averages_of_one(np.array(M), v, np.array(Q), np.array(c), np.array(theta), np.array(b), tau, epsilon)
    found = averages([M - theta], v, [[Q]], [c], b, tau, epsilon, tolerance=1e-11)
    assert found[:6] == pytest.approx(np.array(expected), abs=1e-10)


@pytest.mark.parametrize(("kind", "tolerance"), [(FGSM, 1e-6), (MARGIN, 1e-6)])
def test_the_error_is_within_the_tolerance(kind: int, tolerance: float) -> None:
    """Correlations of the weights are below 0.8 here; nearer to 1 the attack's direction turns on a finer scale."""
    for m, v, Q, c, b, tau in states(2, 20):
        found = averages(m, v, Q, c, b, tau, 0.5, kind, tolerance)
        assert found == pytest.approx(averages(m, v, Q, c, b, tau, 0.5, kind, 1e-3 * tolerance), abs=tolerance)


def test_the_order_of_the_units_does_not_matter() -> None:
    """Another order has another Cholesky factor, other nested integrals and other splits."""
    m, v, c, b, tau, epsilon, K = np.array([0.5, -0.2, 0.3]), 0.8, np.array([1.0, 0.7, -0.6]), 0.1, 1.0, 0.4, 3
    Q = np.array([[1.2, 0.3, 0.1], [0.3, 0.8, -0.2], [0.1, -0.2, 0.6]])
    order = np.array([2, 0, 1])
    one = parts(averages(m, v, Q, c, b, tau, epsilon, tolerance=1e-6), K)
    swapped = Q[np.ix_(order, order)]
    two = parts(averages(m[order], v, swapped, c[order], b, tau, epsilon, tolerance=1e-6), K)
    both = np.ix_(order, order)
    # <s_k (lambda_l - M_l)> = sqrt(v) sum_j <s_k y_j> L_lj
    moments = [s_y @ np.linalg.cholesky(gram).T for s_y, gram in ((one[1], Q), (two[1], swapped))]
    assert two[0] == pytest.approx(one[0][order], abs=4e-6)
    assert moments[1] == pytest.approx(moments[0][both], abs=4e-6)
    for k in (2, 3):
        assert two[k] == pytest.approx(one[k][both], abs=4e-6)
    assert two[5] == pytest.approx(one[5], abs=4e-6)


def test_a_unit_without_output_weight_changes_nothing() -> None:
    one = parts(averages([0.4], 1.0, [[1.1]], [1.2], 0.1, 1.0, 0.4), 1)
    two = parts(averages([0.4, -0.6], 1.0, [[1.1, 0.5], [0.5, 0.9]], [1.2, 0.0], 0.1, 1.0, 0.4), 2)
    first = parts(averages([-0.6, 0.4], 1.0, [[0.9, 0.5], [0.5, 1.1]], [0.0, 1.2], 0.1, 1.0, 0.4), 2)
    for k in (0, 3, 4):
        assert two[k].flat[0] == pytest.approx(one[k].flat[0], abs=2e-8)
        assert first[k].flat[-1] == pytest.approx(one[k].flat[0], abs=2e-8)
    assert two[5] == pytest.approx(one[5], abs=2e-8)
    silent = parts(averages([0.4, -0.6], 1.0, [[1.1, 0.5], [0.5, 0.9]], [0.0, 0.0], 0.1, 1.0, 0.4), 2)
    assert silent[2] == pytest.approx(0.0, abs=0)
    assert silent[5] == pytest.approx([-0.9, 0.81], abs=1e-8)


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_hostile_states_have_finite_averages(epsilon: float) -> None:
    """Large and small v Q, nearly parallel weights, a label that no output reaches, outputs that nearly cancel."""
    nearly = 1.0 - 1e-6
    for Q, c, b in [
        ([[400.0, 60.0], [60.0, 100.0]], [1.0, 0.8], 0.1),
        ([[1e-12, 0.0], [0.0, 1e-12]], [1.0, 0.8], 0.1),
        ([[1.0, nearly], [nearly, 1.0]], [1.0, 0.8], 0.1),
        ([[1.0, -nearly], [-nearly, 1.0]], [1.0, 1.0], 0.0),
        ([[1.0, 0.2], [0.2, 0.7]], [1.0, 0.8], -30.0),
        ([[1.0, 0.2], [0.2, 0.7]], [1e-9, 1e9], 0.0),
    ]:
        found = averages([0.3, -0.2], 1.0, Q, c, b, 1.0, epsilon, tolerance=1e-6)
        assert np.all(np.isfinite(found))
        if epsilon == 0.0:
            expected = averages_without_attack(
                np.array([0.3, -0.2]), 1.0, np.linalg.cholesky(np.array(Q)), np.array(c), b, 1.0
            )
            assert found == pytest.approx(expected, abs=1e-6 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("kind", [FGSM, MARGIN])
def test_they_are_the_means_over_examples_attacked_in_their_own_space(kind: int) -> None:
    rng = np.random.default_rng(5)
    n, N, K, epsilon, b, tau, v = 200_000, 6, 2, 0.5, 0.3, 1.0, 0.9
    W = rng.standard_normal((K, N)) / math.sqrt(N)
    c, mean = np.array([1.1, 0.7]), 0.4 * rng.standard_normal(N)
    examples = mean + math.sqrt(v) * rng.standard_normal((n, N))

    def output(xi: Array) -> Array:
        return np.asarray(b + erf(xi @ W.T / math.sqrt(2)) @ c)

    gradient = (c * np.exp(-((examples @ W.T) ** 2) / 2)) @ W
    side = np.sign(output(examples) - tau) if kind == FGSM else np.full(n, -tau)
    attacked = examples + epsilon * side[:, None] * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    fields = attacked @ W.T
    e = output(attacked) - tau
    s = -e[:, None] * c * math.sqrt(2 / math.pi) * np.exp(-(fields**2) / 2)
    Q = W @ W.T
    found = parts(averages(W @ mean, v, Q, c, b, tau, epsilon, kind), K)
    V = math.sqrt(v) * found[1] @ np.linalg.inv(np.linalg.cholesky(Q)) + found[2]
    drawn = np.concatenate(
        [s, (s[:, :, None] * fields[:, None, :]).reshape(n, -1), e[:, None], e[:, None] ** 2], axis=1
    )
    known = np.concatenate([found[0], (np.outer(found[0], W @ mean) + V @ Q).ravel(), found[5]])
    assert np.all(np.abs(drawn.mean(0) - known) < 4.5 * drawn.std(0) / math.sqrt(n))
    # some outputs are beyond the label, and the other attack would be told from this one
    other = parts(averages(W @ mean, v, Q, c, b, tau, epsilon, MARGIN if kind == FGSM else FGSM), K)
    assert abs(other[0][0] - found[0][0]) > 10 * drawn.std(0)[0] / math.sqrt(n)


def test_a_full_step_of_pgd_is_fgsm_and_the_worst_case_is_worse() -> None:
    state = ([0.4, -0.3], 0.9, [[1.1, 0.3], [0.3, 0.7]], [1.0, 0.8], 0.2, 1.0, 0.5)
    fgsm, step, worst = (averages(*state, kind, 1e-5) for kind in (FGSM, PGD, WORST))
    assert step == pytest.approx(fgsm, abs=1e-12)
    assert worst[-1] > fgsm[-1] + 1e-3
