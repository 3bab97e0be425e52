"""Laws of the random perturbation: the theory's averages over them, draws from them, and what a result says of them."""

import json
import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import integrate as quadrature
from scipy import stats

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, integrate_batch, simulate
from odeflow.laws import Continuous, Discrete, Law, Uniform, from_record, record
from odeflow.order_parameters.perceptron.variant_averages import averages

LAWS: list[tuple[Law, Any]] = [
    (Uniform(0.5, 1.5), stats.uniform(0.5, 1.0)),
    (Continuous(stats.gamma(4, scale=0.25)), stats.gamma(4, scale=0.25)),
    (Continuous(stats.halfnorm(scale=1.3)), stats.halfnorm(scale=1.3)),
    (Continuous(stats.beta(3, 2)), stats.beta(3, 2)),
]
HARD = [  # a heavy tail, a pole, both, no finite variance, poles at two ends, a jump, a kink, narrow, wide
    stats.pareto(3, loc=-1),
    stats.gamma(0.2, scale=5),
    stats.lognorm(1.0),
    stats.betaprime(0.3, 2.5),
    stats.lomax(1.3),
    stats.beta(0.5, 0.2),
    stats.trapezoid(0.3, 0.3),
    stats.triang(0.2),
    stats.lognorm(0.01),
    stats.loguniform(1e-4, 10.0),
]

# Every continuous family of scipy, at shapes that are not special.
SHAPES: dict[str, tuple[float, ...]] = {
    "alpha": (3.57,), "argus": (1.0,), "beta": (2.31, 0.627), "betaprime": (5.0, 6.0), "bradford": (0.3,),
    "burr": (10.5, 4.3), "burr12": (10.0, 4.0), "chi": (7.8,), "chi2": (5.5,), "crystalball": (2.0, 3.0),
    "dgamma": (1.1,), "dpareto_lognorm": (3.0, 1.2, 2.5, 2.0), "dweibull": (2.07,), "erlang": (10,),
    "exponnorm": (1.5,), "exponpow": (2.7,), "exponweib": (2.89, 1.95), "f": (29.0, 18.0), "fatiguelife": (1.8,),
    "fisk": (3.1,), "foldcauchy": (4.7,), "foldnorm": (1.95,), "gamma": (1.99,), "gausshyper": (1.8, 2.2, 0.7, 0.4),
    "genexpon": (9.1, 16.2, 3.3), "genextreme": (-0.1,), "gengamma": (4.4, 3.1), "genhalflogistic": (0.77,),
    "genhyperbolic": (0.5, 1.5, -0.5), "geninvgauss": (2.3, 1.5), "genlogistic": (0.4,), "gennorm": (1.3,),
    "genpareto": (0.1,), "gompertz": (0.9,), "halfgennorm": (0.67,), "invgamma": (4.1,), "invgauss": (0.14,),
    "invweibull": (10.6,), "irwinhall": (10,), "jf_skew_t": (8, 4), "johnsonsb": (4.3, 3.2), "johnsonsu": (2.5, 2.2),
    "kappa3": (1.0,), "kappa4": (0.0, 0.0), "ksone": (10,), "kstwo": (10,), "laplace_asymmetric": (2.0,), "levy_stable": (1.8, -0.5),
    "loggamma": (0.4,), "loglaplace": (3.25,), "lognorm": (0.95,), "loguniform": (0.01, 1.25), "lomax": (1.88,),
    "mielke": (10.4, 4.6), "nakagami": (4.97,), "ncf": (27.0, 27.0, 0.4), "nct": (14.0, 0.24), "ncx2": (21.0, 1.06),
    "norminvgauss": (1.25, 0.5), "pareto": (2.62,), "pearson3": (-0.1,), "powerlaw": (1.66,),
    "powerlognorm": (2.14, 0.45), "powernorm": (4.45,), "rdist": (1.6,), "recipinvgauss": (0.63,),
    "reciprocal": (0.01, 1.25), "rel_breitwigner": (36.5,), "rice": (0.77,), "skewcauchy": (0.5,),
    "skewnorm": (4.0,), "studentized_range": (3.0, 10.0), "t": (2.74,), "trapezoid": (0.2, 0.8), "triang": (0.16,),
    "truncexpon": (4.69,), "truncnorm": (0.1, 2.0), "truncpareto": (1.8, 5.3),
    "truncweibull_min": (2.5, 0.25, 1.75), "tukeylambda": (3.1,), "vonmises": (3.99,), "vonmises_line": (3.99,),
    "weibull_max": (2.69,), "weibull_min": (1.79,), "wrapcauchy": (0.031,),
}  # fmt: skip
FAMILIES = sorted(name for name in dir(stats) if isinstance(getattr(stats, name), stats.rv_continuous))


@pytest.mark.parametrize(("law", "reference"), LAWS)
@pytest.mark.parametrize("power", [1, 2, 5])
def test_nodes_have_the_moments_of_the_law(law: Law, reference: Any, power: int) -> None:
    values, weights = law.nodes()
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert weights @ values**power == pytest.approx(reference.moment(power), rel=1e-9)


@pytest.mark.parametrize(("law", "reference"), [*LAWS, *((Continuous(d), d) for d in HARD)], ids=str)
def test_the_table_is_the_inverse_of_the_distribution(law: Law, reference: Any) -> None:
    levels, factors = law.table()
    u = np.random.default_rng(1).random(20_000)
    draws = np.interp(u, levels, factors)
    level, factor = np.abs(reference.cdf(draws) - u), np.abs(draws / reference.ppf(u) - 1)  # 1 - x is coarse at a pole
    assert np.minimum(level, factor).max() < 2e-6
    # also far out, which means of heavy tails need
    far = 10.0 ** -np.arange(4, 15)
    draws = np.interp(1 - far, levels, factors)
    near_end = np.isclose(draws, factors[-1], rtol=1e-3) | (reference.sf(draws) == 0)
    np.testing.assert_allclose(reference.sf(draws)[~near_end], far[~near_end], rtol=0.02)


def by_scipy(distribution: Any, function: Any) -> float:
    """Return the mean of a function over a law, by QUADPACK: over quantiles where poles may be, over log x in a tail."""
    high = distribution.support()[1]
    levels = [0, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 1 - 1e-6, 1]
    if high == math.inf:
        levels.pop()
    options: dict[str, Any] = {"epsabs": 1e-11, "epsrel": 1e-11, "limit": 200}
    total = sum(
        quadrature.quad(lambda q: function(distribution.ppf(q)), first, last, **options)[0]
        for first, last in pairwise(levels)
    )
    if high == math.inf:
        ends = np.log(distribution.isf(1e-6)) + np.array([0, 3, 10, 30, 100, 250])
        total += sum(
            quadrature.quad(
                lambda t: distribution.pdf(math.exp(t)) * math.exp(t) * function(math.exp(t)), first, last, **options
            )[0]
            for first, last in pairwise(ends)
        )
    return float(total)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [*HARD[:6], HARD[8]], ids=lambda d: repr(Continuous(d))[11:-1])
@pytest.mark.parametrize(
    ("rule", "v", "epsilon"),
    [
        (LearningRule(), 1.0, 0.5),
        (LearningRule(), 0.01, 3.0),
        (LearningRule(loss="hinge", activation="linear"), 0.05, 1.0),
    ],
    ids=["erf", "sharp erf", "linear hinge"],
)
def test_averages_of_the_theory(distribution: Any, rule: LearningRule, v: float, epsilon: float) -> None:
    # <D_1>, <D_2> and <epsilon D_1> of the right-hand side, against an integration that knows nothing of nodes
    from odeflow.laws import quadratures
    from odeflow.order_parameters.perceptron.variant_averages import law_scales

    mean = 0.7  # rho R / 2 - b
    [(_, factors, weights)] = quadratures(Continuous(distribution), *law_scales(rule, 2.0, v, v, epsilon))
    D1, D2, _ = averages(mean - epsilon * factors, v, rule)
    for values, function in (
        (D1, lambda x: averages(mean - epsilon * x, v, rule)[0]),
        (D2, lambda x: averages(mean - epsilon * x, v, rule)[1]),
        (epsilon * factors * D1, lambda x: epsilon * x * averages(mean - epsilon * x, v, rule)[0]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", quadrature.IntegrationWarning)
            expected = by_scipy(distribution, lambda x, f=function: float(f(x)))
        assert weights @ values == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.slow
def test_theory_meets_simulation_for_heavy_tails_and_poles() -> None:
    # nodes that knew nothing of tails gave b = -3.555, -0.833 and -1.217
    mixture, rule, N = GaussianMixture(p=0.7), LearningRule(), 400
    ends = []
    for distribution in HARD[:3]:
        adversary = Adversary(0.5, law=Continuous(distribution))
        theory = integrate(mixture, rule, adversary, alpha=[100.0])
        ends.append(float(theory.b[0]))
        runs = simulate(mixture, rule, adversary, N=N, alpha=[100.0], runs=64, rng=1)
        for name in ("R", "b"):
            values = runs[name].values[:, 0]
            error = values.std(ddof=1) / math.sqrt(values.size)
            assert abs(values.mean() - float(theory[name][0])) < 4 * error + 1 / N
    # of a longer simulation, that drew by numpy: -0.5820(4)
    assert ends[0] == pytest.approx(-0.5820, abs=3 * 0.0004)


def test_a_narrow_average_gets_the_nodes_that_it_needs() -> None:
    # small variances and a strong attack: the update of the perceptron loss turns on within sqrt(v)/epsilon = 0.01
    settings: dict[str, Any] = {
        "loss": "perceptron",
        "p": 0.7,
        "v1": 0.01,
        "v2": 0.01,
        "epsilon": 10.0,
        "alpha": [1.0, 20.0],
    }
    uniform = integrate_batch(law=Uniform(0.0, 0.5), **settings).y
    other = integrate_batch(law=Continuous(stats.uniform(0, 0.5)), **settings).y
    many = np.linspace(0, 0.5, 4001)[:-1] + 0.5 / 8000
    midpoints = integrate_batch(law=Discrete(tuple(many), (1 / 4000,) * 4000), **settings).y
    np.testing.assert_allclose(uniform, midpoints, atol=3e-5)
    np.testing.assert_allclose(uniform, other, atol=1e-7)


def test_a_point_has_its_own_quadrature() -> None:
    # what else is in the batch does not change a bit
    law = Continuous(stats.gamma(0.5, scale=2))
    epsilon, v = np.array([0.01, 0.3, 1.0, 4.0, 0.3, 0.0]), np.array([1.0, 0.05, 1.0, 0.3, 2.0, 1.0])
    settings: dict[str, Any] = {"law": law, "loss": "perceptron", "alpha": [3.0], "v2": 0.7}
    together = integrate_batch(epsilon=epsilon, v1=v, **settings).y
    alone = [integrate_batch(epsilon=e, v1=u, **settings).y[0] for e, u in zip(epsilon, v, strict=True)]
    np.testing.assert_array_equal(together, alone)


def test_what_cannot_be_averaged_is_refused() -> None:
    settings: dict[str, Any] = {"alpha": [1.0], "loss": "perceptron", "v1": 1e-6, "epsilon": 100.0}
    for law in (Uniform(), Continuous(stats.expon())):
        with pytest.raises(ValueError, match=r"cannot be averaged .* allowed is a smaller epsilon"):
            integrate_batch(law=law, **settings)
    heavy = Continuous(stats.lomax(1.5))
    assert not heavy.has_mean_square
    with pytest.raises(ValueError, match="no finite mean square"):
        integrate(GaussianMixture(), LearningRule(activation="linear"), Adversary(0.5, law=heavy), alpha=[1.0])

    class Wrong(stats.rv_continuous):  # type: ignore[misc]
        """A density that is not its distribution's."""

        def _cdf(self, x: Any) -> Any:
            return -np.expm1(-x)

        def _pdf(self, x: Any) -> Any:
            return 0.9 * np.exp(-x)

    with pytest.raises(ValueError, match=r"the total 0\.9"):
        Continuous(Wrong(a=0, name="wrong")()).nodes()


def check_family(name: str) -> None:
    """Check one family of scipy: refused for a reason, or averaged and drawn with the right mean and saturation."""
    distribution = getattr(stats, name)(*SHAPES.get(name, ()))
    for wrong, word in (
        (distribution.support()[0] < 0, "support"),
        (not math.isfinite(distribution.mean()), "mean"),
    ):
        if wrong:
            with pytest.raises(ValueError, match=word):
                Continuous(distribution)
            return
    law = Continuous(distribution)
    factors, weights = law.nodes()
    mean = distribution.mean()
    assert np.all(factors >= 0)
    assert np.all(weights >= 0)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights @ factors == pytest.approx(mean, rel=1e-6 if name == "ksone" else 1e-8)  # whose density jumps
    assert law.has_mean_square == math.isfinite(distribution.var())
    if law.has_mean_square:
        assert weights @ factors**2 == pytest.approx(distribution.var() + mean**2, rel=1e-7)
    levels, drawn = law.table()
    for values, at_nodes in (
        (drawn / (drawn + mean), factors / (factors + mean)),
        (np.exp(-((drawn / mean) ** 2)), np.exp(-((factors / mean) ** 2))),
    ):
        assert weights @ at_nodes == pytest.approx(np.diff(levels) @ (values[1:] + values[:-1]) / 2, abs=3e-6)


def test_every_family_of_scipy_is_tried() -> None:
    shapes = {name: getattr(stats, name).numargs for name in FAMILIES}
    assert [name for name, count in shapes.items() if count != len(SHAPES.get(name, ()))] == []


QUICK = (
    "arcsine", "betaprime", "chi", "f", "gompertz", "johnsonsb", "ksone", "levy", "lomax", "norm", "pareto", "truncpareto",
    "weibull_min",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUICK)
def test_some_families(name: str) -> None:
    check_family(name)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in QUICK])
def test_all_families(name: str) -> None:
    check_family(name)


@pytest.mark.parametrize(
    "law", [Uniform(0.5, 1.5), Discrete((0.0, 2.0), (0.25, 0.75)), Continuous(stats.gamma(4, scale=0.25))]
)
def test_a_result_tells_its_law(law: Law) -> None:
    adversary = Adversary(0.5, law=law)
    result = integrate(GaussianMixture(), LearningRule(), adversary, alpha=[1.0])
    configuration = json.loads(result.attrs["configuration"])
    again = Adversary(**configuration["adversary"])
    assert again == adversary
    assert hash(again) == hash(adversary)
    np.testing.assert_array_equal(integrate(GaussianMixture(), LearningRule(), again, alpha=[1.0]).b, result.b)


def test_records_that_are_none() -> None:
    good = record(Uniform())
    for bad in ({}, {"kind": "Normal"}, {**good, "middle": 1.0}, {"kind": "Continuous", "distribution": "gamma"}):
        with pytest.raises(ValueError, match="no record of a law"):
            from_record(bad)
    unknown = {"kind": "Continuous", "distribution": "histogram", "args": [], "kwds": {}}
    with pytest.raises(ValueError, match="histogram"):
        from_record(unknown)


def test_a_discrete_law_is_its_values() -> None:
    law = Discrete((0.0, 1.0, 3.0), (0.5, 0.25, 0.25))
    values, weights = law.nodes()
    assert values.tolist() == [0, 1, 3]
    assert weights.tolist() == [0.5, 0.25, 0.25]
    levels, factors = law.table()
    assert levels.tolist() == [0, 0.5, 0.5, 0.75, 0.75, 1]
    assert factors.tolist() == [0, 0, 1, 1, 3, 3]


def test_bad_laws() -> None:
    for low, high in ((-1, 1), (1, 1), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ValueError, match="0 <= low < high"):
            Uniform(low, high)
    with pytest.raises(TypeError, match="low = '0'"):
        Uniform("0", 1)  # type: ignore[arg-type]
    for values, probabilities in (
        ((1.0,), (0.5,)),
        ((1.0, 2.0), (1.0,)),
        ((1.0, 2.0), (1.5, -0.5)),
        ((1.0, 2.0), (0.5, np.nan)),
    ):
        with pytest.raises(ValueError, match="probabilities = "):
            Discrete(values, probabilities)
    for bad in ((), (-1.0,), (np.inf,)):
        with pytest.raises(ValueError, match="values = "):
            Discrete(bad, (1.0,))
    with pytest.raises(TypeError, match="values = 1"):
        Discrete(1.0, (1.0,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="frozen"):
        Continuous(stats.gamma)
    with pytest.raises(ValueError, match="support"):
        Continuous(stats.norm())
    with pytest.raises(ValueError, match="mean inf"):
        Continuous(stats.halfcauchy())
    with pytest.raises(ValueError, match="arrays for parameters"):
        Continuous(stats.gamma([1.0, 2.0]))
