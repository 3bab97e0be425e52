"""The study of confidence: its formulas against the theory's errors and against samples, and claims that can fail."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import erf

from deepcheck.evaluation import roc_auc
from deepcheck.models import build
from odeflow import GaussianMixture, adversarial_error, classification_error
from odeflow.errors import separation
from studies.confidence import measure, plan, study
from studies.confidence.claims import claims
from studies.confidence.margins import Gaussians, accepted, auc_at, seed_margins, share, symmetric_auc
from studies.confidence.measure import LEVELS, Setting, attacked_margins, linear_margins

SETTING = Setting(50, (1.0, 3.0), 6, 200, 2, 1, 400, 0.1, (0.0, 0.1, 0.15))


def test_the_share_is_the_adversarial_error_at_another_epsilon() -> None:
    mixture = GaussianMixture(p=0.7, rho=3.0, v1=0.5, v2=2.0)
    R, b, Q, delta, t = 0.4, -0.3, 0.36, 0.7, np.array([0.0, 0.1, 0.42])
    expected = adversarial_error(R / 0.6, b / 0.6, mixture, delta - t / 0.6)
    np.testing.assert_allclose(seed_margins(R, b, Q, mixture, delta).below(-t), expected, rtol=1e-12)
    np.testing.assert_allclose(separation(R, b, mixture, (1 + erf(t)) / 2, delta, Q=Q), expected, rtol=1e-12)
    assert expected[-1] == pytest.approx(classification_error(R / 0.6, b / 0.6, mixture))  # for t = delta |w|


def test_the_auc_is_that_of_a_sample_and_does_not_depend_on_the_scale() -> None:
    law = Gaussians(np.array([0.7, 0.3]), np.array([1.5, 0.2]), np.array([1.0, 0.6]))
    rng = np.random.default_rng(1)
    k = (rng.random(400_000) > 0.7).astype(int)
    margin = law.mean[k] + law.sd[k] * rng.standard_normal(k.size)
    assert law.auc() == pytest.approx(auc_at(margin), abs=0.003)
    assert replace(law, mean=0.1 * law.mean, sd=0.1 * law.sd).auc() == pytest.approx(law.auc(), abs=1e-6)
    assert seed_margins(0.5, 0.0, 1.0, GaussianMixture(), 0.5).auc() == pytest.approx(0.5, abs=1e-6)  # where S = 1/2
    law = seed_margins(0.8, 0.0, 0.3, GaussianMixture(rho=3.0), 0.4)
    assert symmetric_auc(law.below(0.0)) == pytest.approx(law.auc(), abs=1e-6)


def test_shares_and_what_is_accepted() -> None:
    attacked = np.array([-3.0, -2.0, -1.0, 0.0, *np.arange(1.0, 17.0)])
    np.testing.assert_array_equal(share(attacked, np.array([0.0, 1.0, 2.5])), [0.2, 0.15, 0.05])
    clean = np.array([-1.0, 1.5, 2.0, 2.5, 4.0])
    assert accepted(clean, attacked, 0.05) == (2.0, 0.4)  # one of 20 is wrong with more than 2
    assert accepted(clean, attacked, 0.3) == (0.0, 0.8)
    assert roc_auc([1.0], [1.0]) == 0.5


def test_the_locally_linear_prediction_is_exact_for_linear_nets_in_the_box() -> None:
    generator = torch.Generator().manual_seed(0)
    network = build("linear", 2, (1, 8, 8), generator=generator)
    x = torch.rand(20, 1, 8, 8, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)  # many pixels at the bounds
    y = torch.randint(2, (20,), generator=generator)
    sizes = (0.0, 0.1, 0.3)
    predicted = linear_margins(network, x, y, sizes)
    np.testing.assert_allclose(attacked_margins(network, x, y, sizes, 20, 2, generator), predicted, atol=1e-5)
    w = (network.head.weight[1] - network.head.weight[0]).detach()
    tau = 2.0 * y - 1
    z = ((network(x)[:, 1] - network(x)[:, 0]) * tau).detach()
    np.testing.assert_allclose(predicted[0], z, atol=1e-6)
    assert (predicted[1] > (z - 0.1 * w.abs().sum()).numpy() + 1e-3).all()  # the box helps


def _margins(seed: int, mean: float, curvature: float) -> xr.Dataset:
    """Return margins of examples that an attack lowers by more than their linear approximation says."""
    rng = np.random.default_rng(seed)
    clean = mean + 2 * rng.standard_normal(400)
    linear = np.stack([clean - 20 * size for size in SETTING.sizes])
    margin = linear - curvature * np.array(SETTING.sizes)[:, None]
    names = {"margin": margin, "linear_margin": linear}
    return xr.Dataset(
        {name: (("net_delta", "example"), values) for name, values in names.items()}
        | {"longer_margin": ("few", margin[1, :50]), "label": ("example", np.where(np.arange(400) % 2, 1, -1))}
    )


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    models = [(p, rule, training) for p in measure.PRIORS for rule in measure.RULES for training in measure.ADVERSARIES]
    simulated = [measure.simulate(*one, SETTING, seed) for seed, one in enumerate(models)]
    nets = [(net, seed) for net in plan.NETS for seed in range(SETTING.seeds)]
    laws = {"conv, standard": (4.0, 15.0), "conv, AT": (6.5, 0.0)}
    measured = [_margins(seed, *laws.get(net, (4.0, 0.0))) for net, seed in nets]
    summaries = {one: study.summary(margins, SETTING) for one, margins in zip(nets, measured, strict=True)}
    data = study._of_models(models, simulated, SETTING).merge(study.of_nets(summaries, SETTING))
    return data.assign_attrs(data_set="synthetic", deep="conv")


def test_the_claims_hold(data: xr.Dataset) -> None:
    found = list(claims(data))
    # of few nets whose margins are not those of equal priors the curve and the line cannot be told apart
    assert [claim.statement[:10] for claim in found if not claim.holds] == ["and nearer"]
    assert len(found) == 10
    assert all(claim.rival_measured for claim in found)
    error = data.net_share.isel(measured_level=0)
    for auc, holds in ((data.symmetric_auc, True), (1 - error, False)):
        (nearer,) = (claim for claim in claims(data.assign(net_auc=auc)) if claim.statement.startswith("and nearer"))
        assert nearer.holds is holds
    one = data.sel(p=0.7, rule="free", training="at", delta=0.5)
    five = one.sel(bound=0.05)
    end = one.share.isel(alpha=-1)
    assert float(np.interp(five.least_level, LEVELS, end)) == pytest.approx(0.05, abs=2e-3)
    assert float(np.interp(five.least_level, LEVELS, one.clean_share)) == pytest.approx(float(five.accepted), abs=1e-2)


def test_a_broken_result_fails_its_claim(data: xr.Dataset) -> None:
    broken = {
        0: data.assign(share=data.share + 0.1),
        1: data.assign(share=data.share.isel(rule=[1, 0]).assign_coords(rule=data.rule)),
        2: data.assign(accepted=data.accepted.where(data.training != "at", 0.9)),
        3: data.assign(net_share=data.net_share + 0.02),
        4: data.assign(linear_share=data.linear_share.where(data.net != "conv, AT", 1.0)),
        5: data.assign(net_share=data.net_share.where(data.net != "conv, AT", 0.9)),
        6: data.assign(net_auc=data.net_auc.where(data.net != "conv, AT", 0.3)),
        7: data.assign(symmetric_auc=1 - data.symmetric_auc),
        8: data.assign(net_auc=1 - data.net_share.isel(measured_level=0)),
        9: data.assign(net_accepted=data.net_accepted.where(data.net != "conv, AT", 0.1)),
    }
    for index, one in broken.items():
        holds = [claim.holds for claim in claims(one)]
        assert not holds[index], index
