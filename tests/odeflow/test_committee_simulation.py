"""The simulation of two layers: reduced against direct and against plain NumPy in R^N, and its mean step against the theory."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf
from scipy.stats import ks_2samp

from odeflow import Adversary, Committee, GaussianMixture, LearningRule, integrate, laws, simulate
from odeflow.model import TeacherStudent
from odeflow.model import xor as data_xor
from odeflow.order_parameters.committee.monte_carlo import Examples, Learning, State, basis, simulate_runs
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD, WORST, Attack
from odeflow.order_parameters.committee.units import ERF, RELU

Array = npt.NDArray[np.float64]
PLAIN = Attack(FGSM, 1, 1.0)
NONE = np.empty(0)


@dataclass(frozen=True)
class Scenario:
    """What learns from what, from a start with these overlaps."""

    data: Examples
    learning: Learning
    directions: Array
    start: State

    def simulate(self, seed: int = 0, **arguments: Any) -> Array:
        options = {"method": "reduced", "seed": np.random.SeedSequence(seed), "progress": False, **arguments}
        options["examples"] = np.asarray(options["examples"], np.int64)
        return simulate_runs(self.data, self.learning, self.directions, self.start, **options)

    def attacked_by(self, how: Attack) -> "Scenario":
        return replace(self, learning=self.learning._replace(attack=how))


def learning(kind: int, epsilon: float, how: Attack = PLAIN, fraction: float = 1.0) -> Learning:
    return Learning(kind, 0.5, 0.2, 0.3, 0.4, epsilon, fraction, how, NONE, NONE)


def seed_mixture(how: Attack = PLAIN, kind: int = ERF) -> Scenario:
    """Two clusters, two units, part of the examples attacked, by a random size."""
    data = Examples.clusters([0.7, 0.3], [1.0, 0.8], [1, -1], [[1.0], [-1.0]])
    levels, factors = laws.Discrete((0.5, 1.5), (0.4, 0.6)).table()
    rule = learning(kind, 0.4, how, 0.8)._replace(levels=levels, factors=factors)
    M, Q = np.array([[0.3], [0.1]]), np.array([[0.7, 0.2], [0.2, 0.5]])
    return Scenario(data, rule, np.ones((1, 1)), State(M, Q, np.array([1.0, 0.8]), np.zeros(2), np.array(0.1)))


def xor(how: Attack = PLAIN, kind: int = RELU, K: int = 4) -> Scenario:
    """Four clusters, of whose centres only the Gram matrix is given."""
    means = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    centres = basis(means @ means.T)
    data = Examples.clusters([0.25] * 4, [0.3, 0.2, 0.4, 0.3], [1, 1, -1, -1], centres)
    M = 0.4 * means[[0, 1, 2, 3][:K]] @ means.T + 0.05
    M -= M @ np.full((4, 4), 0.25)  # overlaps with centres that sum to 0
    Q = M @ M.T / 2 + np.eye(K) * 0.2 + 0.05
    c = np.array([1.0, 0.9, -1.0, -1.1])[:K]
    return Scenario(data, learning(kind, 0.3, how), centres, State(M, Q, c, np.full(K, 0.05), np.array(0.0)))


def teacher_student(how: Attack = PLAIN, kind: int = ERF) -> Scenario:
    T = np.array([[1.0, 0.3], [0.3, 0.8]])
    teacher = basis(T)
    data = Examples.of_teacher([1.0, 0.7], teacher, kind)
    R, Q = np.array([[0.5, 0.2], [0.1, 0.4]]), np.array([[0.8, 0.2], [0.2, 0.6]])
    return Scenario(data, learning(kind, 0.3, how), teacher, State(R, Q, np.ones(2), np.zeros(2), np.array(0.0)))


def unit(kind: int, x: Array) -> Array:
    return np.maximum(x, 0.0) if kind == RELU else np.asarray(erf(x / np.sqrt(2)))


def slope(kind: int, x: Array) -> Array:
    return np.where(x > 0, 1.0, 0.0) if kind == RELU else np.sqrt(2 / np.pi) * np.exp(-x * x / 2)


@dataclass
class Plain:
    """The model of section 5.1 in R^N, many runs at once, written down without order parameters."""

    scenario: Scenario
    N: int
    runs: int
    rng: np.random.Generator
    w: Array = field(init=False)

    def __post_init__(self) -> None:
        """Embed the basis in R^N at random, and draw weights with the given overlaps."""
        data, start = self.scenario.data, self.scenario.start
        K, n0 = start.c.size, data.centres.shape[1]
        frames = np.linalg.qr(self.rng.standard_normal((self.runs, self.N, n0 + K))).Q.swapaxes(1, 2)
        self.axes, others = frames[:, :n0], frames[:, n0:]
        P = np.linalg.lstsq(self.scenario.directions, start.M.T, rcond=None)[0].T
        values, vectors = np.linalg.eigh(start.Q - P @ P.T)
        self.w = P @ self.axes + (vectors * np.sqrt(np.maximum(values, 0))) @ others
        self.c, self.theta, self.b = (
            np.tile(entry, (self.runs, *[1] * entry.ndim)) for entry in (start.c, start.theta, start.b)
        )

    def output(self, xi: Array) -> tuple[Array, Array]:
        x = np.einsum("rki,ri->rk", self.w, xi) - self.theta
        return x, self.b + np.sum(self.c * unit(self.scenario.learning.kind, x), axis=1)

    def attack(self, xi: Array, tau: Array, size: Array) -> Array:
        rule = self.scenario.learning
        moved = np.zeros_like(xi)
        for _ in range(rule.attack.steps):
            x, phi = self.output(xi + moved)
            sign = -np.sign(tau) if rule.attack.kind == MARGIN else np.sign(phi - tau)
            gradient = np.einsum("rk,rki->ri", self.c * slope(rule.kind, x), self.w)
            length = np.linalg.norm(gradient, axis=1)
            step = (rule.attack.step if rule.attack.kind == PGD else 1.0) * size * sign
            moved = moved + np.where(length > 0, step / np.where(length > 0, length, 1.0), 0.0)[:, None] * gradient
            moved = moved * np.minimum(1, size / np.maximum(np.linalg.norm(moved, axis=1), 1e-300))[:, None]
        return moved

    def step(self) -> None:
        data, rule, rng = self.scenario.data, self.scenario.learning, self.rng
        a = rng.choice(data.p.size, self.runs, p=data.p)
        xi = np.sqrt(data.v)[a, None] * rng.standard_normal((self.runs, self.N))
        xi += np.einsum("rj,rji->ri", data.centres[a], self.axes)
        tau = data.tau[a]
        if data.teacher_c.size:
            nu = np.einsum("nj,rji,ri->rn", data.teacher, self.axes, xi)
            tau = unit(data.teacher_kind, nu) @ data.teacher_c
        size = np.full(self.runs, rule.epsilon)
        if rule.levels.size:
            size *= np.where(rng.random(self.runs) < rule.levels[1], rule.factors[0], rule.factors[-1])
        size *= rng.random(self.runs) < rule.fraction
        xi = xi + self.attack(xi, tau, size)
        x, phi = self.output(xi)
        e = phi - tau
        s = -e[:, None] * self.c * slope(rule.kind, x)
        self.w = self.w + rule.eta_w / self.N * s[..., None] * xi[:, None]
        self.c = self.c - rule.eta_c / self.N * e[:, None] * unit(rule.kind, x)
        self.theta = self.theta - rule.eta_theta / self.N * s
        self.b = self.b - rule.eta_b / self.N * e

    def state(self) -> Array:
        """Return what `simulate_runs` does for one output."""
        M = np.einsum("rki,rji,sj->rks", self.w, self.axes, self.scenario.directions)
        Q = np.einsum("rki,rli->rkl", self.w, self.w)
        flat = (entry.reshape(self.runs, -1) for entry in (M, Q, self.c, self.theta, self.b))
        return np.concatenate([*flat], axis=1)


def assert_one_law(one: Array, other: Array, least: float) -> None:
    """Two-sample Kolmogorov-Smirnov for every order parameter, and for products of neighbouring ones."""
    centre, scale = one.mean(0), one.std(0)
    assert np.all(scale > 1e-6)  # they all vary
    # rounded: where no unit of ReLU is active nothing moves, and rounding would tell the two apart
    quantities = [np.round((values - centre) / scale, 9) for values in (one, other)]
    quantities = [np.concatenate([z, z * np.roll(z, 1, axis=1)], axis=1) for z in quantities]
    chance = [ks_2samp(*columns).pvalue for columns in zip(*(z.T for z in quantities), strict=True)]
    assert min(chance) > least, np.round(chance, 5)


SCENARIOS = {
    "mixture": seed_mixture(),
    "mixture, margin": seed_mixture(Attack(MARGIN, 1, 1.0)),
    "xor": xor(),
    "xor, pgd": xor(Attack(PGD, 4, 0.4), ERF, K=3),
    "teacher": teacher_student(),
    "teacher, relu": teacher_student(kind=RELU),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_reduced_simulation_has_the_law_of_sgd_in_input_space(name: str) -> None:
    """At the least dimension, n0 + K + 1, where the length of the rest is that of one number, and twice that."""
    least = SCENARIOS[name].directions.shape[1] + SCENARIOS[name].start.c.size + 1
    for N in (least, 2 * least):
        # steps so long that the length of the rest tells
        rule = SCENARIOS[name].learning._replace(eta_w=0.6 * N)
        scenario = replace(SCENARIOS[name], learning=rule)
        plain = Plain(scenario, N, 2000, np.random.default_rng(N))
        found = scenario.simulate(N=N, examples=[0, 3], runs=2000)
        np.testing.assert_allclose(found[:, 0], plain.state(), atol=1e-12)
        for _ in range(3):
            plain.step()
        assert_one_law(plain.state(), found[:, 1], 1e-5)  # of about 60 quantities each


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SCENARIOS, "mixture, worst"])
def test_both_simulations_have_one_law(name: str) -> None:
    scenario = SCENARIOS[name] if name in SCENARIOS else seed_mixture(Attack(WORST, 1, 1.0))
    reduced, direct = (
        scenario.simulate(seed, N=200, examples=[600], runs=300, method=method)[:, 0]
        for seed, method in enumerate(("reduced", "direct"))
    )
    assert_one_law(reduced, direct, 1e-5)


@pytest.mark.parametrize("name", ["mixture", "xor"])
def test_the_mean_step_is_that_of_the_theory(name: str) -> None:
    r"""The rates of section 5.2, their averages over the fields drawn: N E[dM], N E[dQ] to order 1/N, N E[dc] and so on."""
    scenario, N, n = SCENARIOS[name], 1000, 20_000
    data, rule, start = scenario.data, scenario.learning, scenario.start
    M, Q, c, theta, b = start
    K, width = c.size, scenario.directions.shape[0]
    rng = np.random.default_rng(5)
    found = scenario.simulate(N=N, examples=[1], runs=n)[:, 0]
    P = np.linalg.lstsq(scenario.directions, M.T, rcond=None)[0].T
    T = data.centres @ scenario.directions.T
    L = np.linalg.cholesky(Q)
    draws = 200_000
    a = rng.choice(data.p.size, draws, p=data.p)
    y, sd = rng.standard_normal((draws, K)), np.sqrt(data.v)[a]
    overlap = (data.centres @ P.T)[a]
    x = overlap + sd[:, None] * y @ L.T - theta
    tau = data.tau[a]
    size = rule.epsilon * (rng.random(draws) < rule.fraction)
    if rule.levels.size:
        size = size * np.where(rng.random(draws) < rule.levels[1], rule.factors[0], rule.factors[-1])
    u = c * slope(rule.kind, x)
    length = np.sqrt(np.einsum("nk,kl,nl->n", u, Q, u))
    push = size * np.sign(b + unit(rule.kind, x) @ c - tau)
    d = np.where(length > 0, push / np.where(length > 0, length, 1.0), 0.0)[:, None] * u
    x = x + d @ Q
    g = unit(rule.kind, x)
    e = b + g @ c - tau
    s = -e[:, None] * c * slope(rule.kind, x)
    # E[s xi~ | fields] = s (mu_a + sum_l ((sqrt v y L^-1)_l + d_l) w_l)
    along = sd[:, None] * np.linalg.solve(L.T, y.T).T + d
    dM = rule.eta_w * (s[:, :, None] * (T[a] + along @ M)[:, None])
    B = s[:, :, None] * (overlap + along @ Q)[:, None]
    second = np.einsum("nk,nl->nkl", s, s) * data.v[a, None, None]
    dQ = rule.eta_w * (B + B.swapaxes(1, 2)) + rule.eta_w**2 * second
    flat = (dM.reshape(draws, -1), dQ.reshape(draws, -1), -rule.eta_c * e[:, None] * g, -rule.eta_theta * s)
    expected = np.concatenate([*flat, -rule.eta_b * e[:, None]], axis=1)
    start_flat = np.concatenate([entry.ravel() for entry in start])
    steps = N * (found - start_flat)
    error = np.sqrt(steps.var(0) / n + expected.var(0) / draws)
    assert width * K + K * K + 2 * K + 1 == steps.shape[1]
    # n_0 + K of the N squares of xi's length are those of the fields': relative 1/N of the second-order term, and less
    np.testing.assert_array_less(np.abs(steps.mean(0) - expected.mean(0)), 4.5 * error + 10 / N)
    assert np.all(error < 0.03)


def test_runs_may_have_starts_of_their_own_and_each_has_its_stream() -> None:
    scenario = seed_mixture()
    M = np.array([[[0.3], [0.1]], [[0.0], [0.2]], [[0.3], [0.1]]])
    several = replace(scenario, start=scenario.start._replace(M=M)).simulate(N=50, examples=[0, 30], runs=3)
    np.testing.assert_allclose(several[:, 0, :2], M[..., 0], atol=1e-12)
    one = scenario.simulate(N=50, examples=[0, 30], runs=3)
    np.testing.assert_array_equal(several[[0, 2]], one[[0, 2]])
    assert np.all(several[1, 1] != one[1, 1])
    np.testing.assert_array_equal(one[:1], scenario.simulate(N=50, examples=[0, 30], runs=1))
    assert np.all(one[0, 1] != one[2, 1])


@pytest.mark.parametrize("method", ["reduced", "direct"])
def test_weights_that_lie_in_each_other_or_are_zero_are_a_start(method: str) -> None:
    scenario = seed_mixture()
    for M, Q in (([0.3, 0.3], [[0.5, 0.5], [0.5, 0.5]]), ([0.0, 0.1], [[0.0, 0.0], [0.0, 0.4]])):
        start = scenario.start._replace(M=np.array(M)[:, None], Q=np.array(Q), c=np.array([1.0, 0.8]))
        found = replace(scenario, start=start).simulate(N=30, examples=[0, 60], runs=20, method=method)
        np.testing.assert_allclose(found[:, 0, 2:6], np.tile(np.ravel(Q), (20, 1)), atol=1e-12)
        assert np.all(np.isfinite(found))
        assert np.all(np.linalg.eigvalsh(found[:, 1, 2:6].reshape(20, 2, 2)) > 0)


@pytest.mark.parametrize(("method", "least"), [("reduced", 7), ("direct", 6)])
def test_a_dimension_without_room_for_the_weights_is_refused(method: str, least: int) -> None:
    with pytest.raises(ValueError, match=rf"N = {least - 1} is too small .* N >= {least}"):
        xor().simulate(N=least - 1, examples=[1], runs=1, method=method)
    assert xor().simulate(N=least, examples=[1], runs=1, method=method).shape == (1, 1, 41)


def test_the_basis_of_a_gram_matrix_has_its_scalar_products_and_its_rank() -> None:
    means = np.array([[1.0, 0.0, 2.0], [0.5, 0.0, 1.0], [-3.0, 0.0, 1.0]])
    vectors = basis(means @ means.T)
    assert vectors.shape == (3, 2)
    np.testing.assert_allclose(vectors @ vectors.T, means @ means.T, atol=1e-13)
    assert basis(np.zeros((2, 2))).shape == (2, 1)


def deviations(
    parts: tuple[Any, Any, Any],
    network: Committee,
    start: dict[str, Any],
    N: int,
    runs: int,
    alpha: Array,
    sets: int = 1,
) -> Array:
    """Return (mean - theory) / standard error of every order parameter that varies, at all times, of some sets of runs."""
    theory = integrate(*parts, network=network, start=start, alpha=alpha)
    found = []
    for rng in range(sets):
        simulated = simulate(*parts, network=network, start=start, alpha=alpha, N=N, runs=runs, rng=rng)
        for variable in network.variables(parts[1], parts[0]):
            values = simulated[variable.name].transpose("run", ...).values
            dims = [name for name in simulated[variable.name].dims if name != "run"]
            expected = theory[variable.name].transpose(*dims).values
            mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(runs)
            varies = error > 1e-9
            if variable.name == "Q":
                varies &= np.tri(network.hidden, dtype=bool)
            found.append(((mean - expected)[varies] / error[varies]).ravel())
    return np.concatenate(found)


def trajectory(name: str, epsilon: float) -> tuple[tuple[Any, Any, Any], Committee, dict[str, Any]]:
    """Return the data, the rule and the adversary, the network, and the start of a scenario of section 5.8."""
    data, kind = name.split(", ")
    activation: Any = kind
    if data == "mixture":
        network = Committee(2, activation, eta_c=0.2, eta_theta=0.3, errors=())
        start: dict[str, Any] = {"M": [0.2, 0.05], "Q": [[0.5, 0.1], [0.1, 0.3]]}
        return (GaussianMixture(p=0.7), LearningRule(1.0, 0.5), Adversary(epsilon)), network, start
    if data == "teacher":
        network = Committee(2, activation, tolerance=1e-5, errors=())
        start = {"R": [[0.3, 0.1], [0.05, 0.25]], "Q": [[0.4, 0.1], [0.1, 0.3]]}
        return (TeacherStudent(2, activation), LearningRule(1.0, 0.3), Adversary(epsilon)), network, start
    means = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    M = 0.3 * means @ means.T + 0.05 * np.array([1.0, -1.0, 0.5, -0.5])
    Q = M[:, [0, 2]] @ M[:, [0, 2]].T + 0.1 * np.eye(4)
    # output weights that learn vary so little that the mean's deviation of order 1/N shows: see the next test
    network = Committee(4, activation, eta_theta=0.1, tolerance=1e-5, errors=())
    rule = LearningRule(0.5, 0.3)
    return (data_xor(2.0, 0.2), rule, Adversary(epsilon)), network, {"M": M, "Q": Q, "c": [1.0, 1.0, -1.0, -1.0]}


@pytest.mark.slow
def test_the_simulation_is_on_the_line_of_the_theory() -> None:
    z = deviations(*trajectory("mixture, erf", 0.4), N=1000, runs=100, alpha=np.linspace(1, 5, 5))
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6
    assert np.max(np.abs(z)) < 4.5


@pytest.mark.whole
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize(
    "name", ["mixture, erf", "mixture, relu", "xor, erf", "xor, relu", "teacher, erf", "teacher, relu"]
)
def test_the_deviation_from_the_theory_is_the_standard_error(name: str, epsilon: float) -> None:
    """Of four sets of runs: times and entries of one are so correlated that its root mean square is not known to 0.2."""
    size = epsilon + 0.1 * (name.startswith("mixture") and epsilon > 0)
    runs = 100 if name.startswith("xor") else 200
    z = deviations(*trajectory(name, size), 2000, runs, np.arange(1.0, 11), sets=4)
    assert 0.8 < np.sqrt(np.mean(z**2)) < 1.2


@pytest.mark.whole
def test_what_the_mean_output_weights_deviate_falls_as_one_over_the_dimension() -> None:
    """And their noise as one over its root, so that in standard errors it falls as that."""
    parts, network, start = trajectory("xor, erf", 0.3)
    network = replace(network, eta_c=0.2)
    expected = integrate(*parts, network=network, start=start, alpha=[10.0]).c.values[0]
    runs, scaled, errors, z = 100, [], [], []
    for N in (1000, 8000):
        found = simulate(*parts, network=network, start=start, alpha=[10.0], N=N, runs=runs, rng=1)
        c = found.c.transpose("run", "alpha", "unit").values[:, 0]
        scaled.append(N * (np.abs(c).mean() - np.abs(expected).mean()))
        errors.append(N * np.abs(c).mean(1).std() / np.sqrt(runs))
        z.append(np.sqrt(np.mean(((c.mean(0) - expected) / (c.std(0, ddof=1) / np.sqrt(runs))) ** 2)))
    assert scaled[0] < -4 * errors[0]
    assert abs(scaled[0] - scaled[1]) < 4 * np.hypot(*errors)
    assert z[1] < 0.6 * z[0]  # 1 / sqrt(8) of the bias, and 1 of the noise
