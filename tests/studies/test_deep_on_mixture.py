"""Deeper nets on the mixture: their own learning rates, what is measured of a net, and claims that can fail."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from deepcheck.training.online import draw
from deepcheck.training.stacked import StackedNets
from odeflow import GaussianMixture, LearningRule, adversarial_error
from studies.deep_on_mixture import measure, plan, study
from studies.deep_on_mixture.claims import EXACT, SAMPLED, claims, table

MIXTURE, RULE = GaussianMixture(p=0.7), LearningRule()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_nets(R: float, b: float, N: int = 20, nets: int = 4) -> StackedNets:
    w = torch.zeros(nets, 1, N)
    w[..., 0], w[..., 1] = R, math.sqrt(1 - R**2)
    return StackedNets([w], [torch.full((nets, 1, 1), -b)])


def test_the_own_rates_of_a_linear_net_are_those_of_the_rule() -> None:
    eta_w, eta_b = measure.own_rates(linear_nets(0.5, 0.3), RULE, seeded(), examples=4000)
    np.testing.assert_allclose(eta_w, RULE.eta_w, rtol=0.1)
    np.testing.assert_allclose(eta_b, RULE.eta_b, rtol=0.1)


def test_the_own_rates_of_a_net_with_a_hidden_layer_are_known() -> None:
    # units that see orthogonal directions but B: half of the examples are on the positive side of each, a quarter on
    # that of two; relu of N(0, s^2) has the mean s / sqrt(2 pi)
    K, N, s, a = 6, 30, 1.3, 0.4
    W = torch.zeros(1, K, N)
    W[0, range(K), range(1, K + 1)] = s
    nets = StackedNets([W, torch.full((1, 1, K), a)], [torch.zeros(1, 1, K), torch.zeros(1, 1, 1)])
    (eta_w,), (eta_b,) = measure.own_rates(nets, RULE, seeded(), examples=20_000)
    assert eta_w == pytest.approx(RULE.eta_w * K * a**2 / 4, rel=0.05)
    constant = RULE.eta_b * (1 + K * a**2 / 4) + RULE.eta_w * K * s**2 / (2 * math.pi)
    # the mean example is not 0 on the positive side: a hidden weight moves along it
    assert eta_b == pytest.approx(constant + RULE.eta_w * K * a**2 / (2 * math.pi), rel=0.02)


def test_a_linear_net_is_measured_as_the_theory_has_it() -> None:
    nets = linear_nets(0.6, -0.4)
    xi, tau = draw(MIXTURE, (20_000,), 20, seeded())
    found = measure.evaluate(nets.net(0), xi, tau[:, 0], MIXTURE, seeded())
    assert found["exact_R"] == pytest.approx(found["R_eff"]) == pytest.approx(0.6)
    assert found["exact_b"] == pytest.approx(-0.4)
    assert found["b_eff"] == pytest.approx(-0.4, abs=0.03)
    for epsilon, name in ((0.0, "error"), (plan.TEST, "adversarial_error")):
        expected = adversarial_error(0.6, -0.4, MIXTURE, epsilon)
        assert found[f"exact_{name}"] == pytest.approx(float(expected))
        assert found[f"measured_{name}"] == pytest.approx(float(expected), abs=0.015)


def test_adversarial_training_can_start_from_nets_that_have_learned() -> None:
    setting = plan.Setting(20, 0.5, "two layers", 0.5, warm=True, runs=2)
    assert str(setting) == "N=20, p=0.5, two layers, epsilon=0.5, FGSM, after standard"
    one = measure.measure(setting, 1, 100)
    assert (one.R_eff.sel(alpha=0) > 0.1).all()
    theory = study.theories(setting, one)
    assert theory.R[0] > 0.1
    assert theory.own_curve[0] <= theory.own_curve[-1]


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    """Return a result that is as the theory has it, but for its noise."""
    rng = np.random.default_rng(1)
    parts = []
    for p in plan.PRIORS:
        for net, epsilon in (("linear", 0.0), ("linear", 1.0), ("two layers", 0.0), ("two layers", 1.0)):
            setting = plan.Setting(1000, p, net, epsilon, runs=20)
            shape = len(plan.ALPHA), setting.runs
            names = "measured_error", "measured_adversarial_error", "R_eff", "R_mean_gradient", "b_eff", *EXACT
            names += "local_prediction", "overlap_prediction", "gaussian_prediction"
            one = xr.Dataset({name: (("alpha", "run"), rng.normal(0, 0.01, shape)) for name in names})
            one["b_eff"] += 0.7
            one = one.assign_coords(alpha=list(plan.ALPHA), run=range(20), setting=str(setting), N=1000, p=p, net=net)
            one = one.assign_coords(training=setting.training, epsilon=epsilon, test_epsilon=list(plan.TESTS))
            shape = setting.runs, len(plan.TESTS)
            one["measured_curve"] = ("run", "test_epsilon"), rng.normal(0, 0.01, shape)
            one["own_eta_w"], one["own_eta_b"] = ("run", np.full(20, 0.01)), ("run", np.full(20, 0.5))
            one = one.merge(study.theories(setting, one))
            if net == "linear":
                later = {"theory_alpha": one.alpha.values[1:]}
                for measured, theory in (EXACT | SAMPLED).items():
                    values = one[theory]
                    if theory != "curve":
                        values = values.sel(later).rename(theory_alpha="alpha").reindex(alpha=one.alpha, fill_value=0)
                    one[measured] = one[measured] + values
            else:
                one["measured_error"] = one.measured_error - 0.2
                one["R_eff"] = one.R_eff + one.own_R.sel(theory_alpha=plan.END)
            parts.append(one)
    return xr.concat(parts, "setting", coords="all", data_vars="all", join="outer")


def test_claims_hold_for_what_is_as_the_theory_has_it(result: xr.Dataset) -> None:
    assert [claim.statement for claim in claims(result) if not claim.holds] == []


@pytest.mark.parametrize(
    ("variable", "change", "expected"),
    [
        ("exact_b", 0.015, "R and b, from which E and S follow"),
        ("measured_curve", 0.02, "robustness curve on test examples"),
        ("exact_R", 0.006, "root mean square"),
        ("R_eff", 0.4, "learn|R_eff"),
        ("local_prediction", 0.1, "locally linear"),
    ],
)
def test_a_result_that_is_off_fails_its_claim(result: xr.Dataset, variable: str, change: float, expected: str) -> None:
    failed = [claim for claim in claims(result.assign({variable: result[variable] + change})) if not claim.holds]
    assert failed
    assert any(expected in claim.statement or expected.split("|")[-1] in claim.statement for claim in failed)
    assert all(type(claim.holds) is bool for claim in failed)


def test_the_table_fits_on_a_page(result: xr.Dataset) -> None:
    lines = table(result).splitlines()
    assert len(lines) > 2 * len(plan.PRIORS)
    assert max(map(len, lines)) <= 120
