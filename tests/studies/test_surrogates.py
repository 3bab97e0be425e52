"""The study surrogates: orders and their null, what all nets share, and noise that is there in learning alone."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from deepcheck.models import build
from deepcheck.training.methods import METHODS
from odeflow import Adversary, LearningRule, save
from odeflow import load as load_result
from studies import STUDIES
from studies.surrogates.nets import recipe_of, without_noise
from studies.surrogates.plan import LEARNERS, PLANS, RULES, TESTS, Nets
from studies.surrogates.rankings import agreement, by_chance
from tests.odeflow.figure_checks import outside, small

PLAN = PLANS[True]


def test_agreement_is_that_of_the_orders_alone() -> None:
    errors = np.random.default_rng(0).random((8, 3))
    np.testing.assert_allclose(agreement(errors, errors**3 + 1), 1)
    np.testing.assert_allclose(agreement(errors, -errors), -1)
    one_pair = errors.copy()
    order = np.argsort(errors[:, 0])
    one_pair[order[:2], 0] = errors[order[1::-1], 0]  # the two best exchanged: one of 28 pairs
    assert agreement(errors, one_pair)[0] == pytest.approx(1 - 2 / 28)
    assert agreement(errors, np.zeros_like(errors)).tolist() == [0, 0, 0]


def test_chance_is_the_quantile_over_all_orders() -> None:
    errors = np.random.default_rng(1).random((5, 2))
    means = [agreement(np.array(order)[:, None] * np.ones(2), errors).mean() for order in permutations(range(5))]
    within = np.quantile(means, [0.93, 0.97])
    assert within[0] <= by_chance(errors, 0) <= within[1]
    assert by_chance(errors[:, :1], 0) >= by_chance(errors, 0)  # two sizes at once are harder to meet by chance


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("kind", PLAN.nets)
def test_nets_differ_in_their_method_alone(name: str, kind: str) -> None:
    if LEARNERS[name].method not in METHODS:
        pytest.skip(f"there is no method {LEARNERS[name].method}")
    one, standard = (recipe_of(PLAN, PLAN.nets[kind], learner, 0) for learner in (name, "standard"))
    assert replace(one, method=standard.method) == standard
    assert one.method.name == LEARNERS[name].method
    if LEARNERS[name].attacked:
        assert one.threat == ("l2", PLAN.epsilon)
        assert vars(one.method)["norm"] == "l2"
        assert vars(one.method)["epsilon"] == PLAN.epsilon


@pytest.mark.parametrize("rule", RULES)
def test_theory_and_nets_have_the_same_strengths(rule: str) -> None:
    for learner in LEARNERS.values():
        learned, adversary = learner.parts(rule)
        assert bool(adversary.epsilon) == learner.attacked
        if learner.method == "trades":
            assert learned.beta == learner.fields["beta"]
        plain = learner.without(rule)
        assert plain[0] == LearningRule(**RULES[rule])
        assert plain[1] in (Adversary(), Adversary(adversary.epsilon))


def test_noise_is_taken_off_at_test() -> None:
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = build("conv_small", 2, (1, 8, 8), generator=torch.Generator().manual_seed(1)).eval()
    assert without_noise(plain) is plain
    if "noise_layers" not in METHODS:
        pytest.skip("there are no noise layers")
    noisy = build("conv_small", 2, (1, 8, 8), generator=torch.Generator().manual_seed(1), noise=[0.3, 0.0]).eval()
    assert not torch.equal(noisy(x), noisy(x))
    assert torch.equal(without_noise(noisy)(x), plain(x))


@pytest.mark.slow
def test_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nets that have hardly learned: what belongs to the theory holds all the same, and every net is measured."""
    nets = {"linear": Nets("linear", 2, 1, 0.05), "convolutional": Nets("conv_small", 1, 1, 0.02)}
    short = replace(PLAN, count=80, attacked=20, attack_steps=2, test_steps=3, nets=nets, N=100, runs=20, times=3)
    monkeypatch.setitem(PLANS, True, short)
    outcome = STUDIES["surrogates"].run(quick=True, folder=tmp_path / "surrogates_quick")
    data = load_result(save(outcome.data, tmp_path / "surrogates.nc"))
    assert data.net.shape == (2, len(LEARNERS), 1 + len(TESTS), 2)
    assert data.net.isnull().sel(seed=1).all(("learner", "size")).values.tolist() == [False, True]
    assert not data.net.sel(seed=0).isnull().any()
    of_theory = [
        one for one in outcome.claims if "logit pairing of a linear" in one.statement or "runs at N" in one.statement
    ]
    assert [one.holds for one in of_theory] == [True, True]
    assert "Not MNIST" in outcome.table
    assert all(name in outcome.table for name in LEARNERS)
    assert isinstance(outcome.figure, Figure)
    assert small(outcome.figure) == {}
    assert outside(outcome.figure) == []
