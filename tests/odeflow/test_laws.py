"""Laws of the random perturbation: nodes have the law's moments, and draws have the law."""

import numpy as np
import pytest
from scipy import stats

from odeflow.laws import Continuous, Discrete, Law, Uniform

LAWS: list[tuple[Law, object]] = [
    (Uniform(0.5, 1.5), stats.uniform(0.5, 1.0)),
    (Continuous(stats.gamma(4, scale=0.25)), stats.gamma(4, scale=0.25)),
    (Continuous(stats.halfnorm(scale=1.3)), stats.halfnorm(scale=1.3)),
    (Continuous(stats.beta(3, 2)), stats.beta(3, 2)),
]


@pytest.mark.parametrize(("law", "reference"), LAWS)
@pytest.mark.parametrize("power", [1, 2, 5])
def test_nodes_have_the_moments_of_the_law(law: Law, reference: "stats.rv_frozen", power: int) -> None:
    values, weights = law.nodes()
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert weights @ values**power == pytest.approx(reference.moment(power), rel=1e-9)


@pytest.mark.parametrize(("law", "reference"), LAWS)
def test_the_table_is_the_inverse_of_the_distribution(law: Law, reference: "stats.rv_frozen") -> None:
    levels, factors = law.table()
    u = np.random.default_rng(1).random(20_000)
    draws = np.interp(u, levels, factors)
    np.testing.assert_allclose(reference.cdf(draws), u, atol=2e-8)


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
    for values, probabilities in (((1.0,), (0.5,)), ((1.0, 2.0), (1.0,)), ((1.0, 2.0), (1.5, -0.5))):
        with pytest.raises(ValueError, match="probabilities = "):
            Discrete(values, probabilities)
    for bad in ((), (-1.0,), (np.inf,)):
        with pytest.raises(ValueError, match="values = "):
            Discrete(bad, (1.0,))
    with pytest.raises(TypeError, match="frozen"):
        Continuous(stats.gamma)
    with pytest.raises(ValueError, match="support"):
        Continuous(stats.norm())
