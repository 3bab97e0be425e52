"""Two-layer nets in R^N beside their theory: what is compared, on a small scale, and claims that can fail."""

import numpy as np
import pytest
import torch
import xarray as xr

from odeflow import integrate
from studies.common.two_layers import sgd
from studies.deep_on_mixture import committees
from studies.deep_on_mixture.committee_claims import committee_claims, committee_table


def test_nets_start_where_the_theory_does() -> None:
    for one in committees.settings(quick=False):
        M, Q = committees._nets(one, one.start).overlaps(np.array([[1.0]]))
        np.testing.assert_allclose(M[..., 0], np.broadcast_to(one.start["M"], M.shape[:2]), atol=1e-14)
        np.testing.assert_allclose(Q, np.broadcast_to(one.start["Q"], Q.shape), atol=1e-14)


def test_entries_are_those_of_the_state() -> None:
    one = committees.Setting(2, "erf", "fgsm", runs=3)
    named = committees._named(committees._state(committees._nets(one, one.start)), {"error": 0.25})
    found = dict(zip(committees.entries(), named[0], strict=True))
    assert found["M2"] == pytest.approx(one.start["M"][1])
    assert found["Q12"] == pytest.approx(one.start["Q"][0, 1])
    assert (found["c2"], found["theta1"], found["b"], found["error"]) == pytest.approx((-0.7, -0.1, 0.0, 0.25))
    assert np.isnan([found["M3"], found["Q13"], found["fgsm_error"]]).all()


def test_means_over_units_of_like_sign() -> None:
    rng = np.random.default_rng(0)
    w, c, sign = rng.normal(size=(4, 7)), np.array([0.5, -0.4, 0.3, -0.2]), np.array([1.0, -1.0, 1.0, -1.0])
    state = {"M": w[:, 0], "Q": w @ w.T, "c": c, "theta": c + 1, "b": np.array(0.1)}
    found = dict(zip(committees._GROUPS, committees._grouped(state, sign), strict=True))
    total = c @ w
    assert found["R_out"] == pytest.approx(total[0] / np.linalg.norm(total))
    assert found["Q++"] == pytest.approx(w[0] @ w[2])
    assert found["Q+-"] == pytest.approx((w[[0, 2]] @ w[[1, 3]].T).mean())
    assert found["Q-"] == pytest.approx((w[1] @ w[1] + w[3] @ w[3]) / 2)
    assert found["theta-"] == pytest.approx(0.7)


def test_nets_with_many_units_have_the_law_of_the_reduced_simulation() -> None:
    found = committees.measure_many(60, 24, 5).isel(committee_alpha=slice(1, None))
    first, second = found.many_measured, found.many_reduced
    error = np.sqrt((first.var("many_run", ddof=1) + second.var("many_run", ddof=1)) / 24)
    assert float((abs(first.mean("many_run") - second.mean("many_run")) / error).max()) < 4
    assert float((abs(first.mean("many_run") - found.many_standard.mean("many_run")) / error).max()) > 6


@pytest.mark.slow
def test_nets_in_R_N_are_on_the_lines_of_the_theory() -> None:
    one = committees.Setting(2, "relu", "pgd", N=200, runs=24)
    times = [0.5, 1.5]
    theory = integrate(committees.MIXTURE, one.rule, one.adversary, network=one.network, alpha=times, start=one.start)
    expected = committees._named({name: theory[name].values for name in committees.STATE}, {})
    nets, generator = committees._nets(one, one.start), torch.Generator().manual_seed(1)
    rates = {"eta": 0.5, "eta_b": 0.5, "eta_c": one.network.eta_c, "eta_theta": one.network.eta_theta}
    counts = [round(alpha * one.N) for alpha in times]
    steps = sgd(nets, committees._data(), one.torch_attack, **rates, examples=counts, generator=generator)
    found = np.stack([committees._named(committees._state(some), {}) for some in steps], axis=1)
    there = np.isfinite(expected)
    gap, error = (found.mean(axis=0) - expected)[there], (found.std(axis=0, ddof=1) / np.sqrt(one.runs))[there]
    assert (np.abs(gap) <= 4 * error + 5 / one.N).all()
    assert (np.abs(gap + 0.1) > 4 * error + 5 / one.N).all()


def made() -> xr.Dataset:
    """Return a result that is as the theory has it, but for its noise."""
    rng = np.random.default_rng(1)
    entries, times, runs = committees.entries(), list(committees.TIMES), 32
    theory = rng.normal(0.5, 0.1, (2, len(times), len(entries)))
    many = rng.normal(0, 0.02, (3, 16, len(times), len(committees._GROUPS)))
    many[2] += 0.1
    return xr.Dataset(
        {
            "committee_theory": (("committee", "committee_alpha", "entry"), theory),
            "committee_measured": (
                ("committee", "committee_run", "committee_alpha", "entry"),
                theory[:, None] + rng.normal(0, 0.02, (2, runs, *theory.shape[1:])),
            ),
            **{
                name: (("many_run", "committee_alpha", "group"), many[i])
                for i, name in enumerate(("many_measured", "many_reduced", "many_standard"))
            },
        },
        {
            "committee": ["2 erf, FGSM", "3 ReLU, PGD"], "committee_N": ("committee", [1000, 1000]),
            "hidden": ("committee", [2, 3]), "committee_alpha": times, "entry": entries, "group": list(committees._GROUPS),
            "many_N": 1000,
        },
    )  # fmt: skip


def test_claims_hold_for_what_is_as_the_theory_has_it() -> None:
    found = list(committee_claims(made()))
    assert [(claim.holds, claim.measured) for claim in found if not claim.holds] == []
    assert len(found) == 3


@pytest.mark.parametrize(
    ("variable", "change", "expected"),
    [
        ("committee_theory", 0.03, "of the two-layer theory"),
        ("committee_theory", 0.01, "root mean square"),
        ("many_reduced", 0.05, "as in the reduced simulation"),
    ],
)
def test_a_result_that_is_off_fails_its_claim(variable: str, change: float, expected: str) -> None:
    data = made()
    failed = [claim for claim in committee_claims(data.assign({variable: data[variable] + change})) if not claim.holds]
    assert any(expected in claim.statement for claim in failed)


def test_the_table_fits_on_a_page() -> None:
    lines = committee_table(made())
    assert len(lines) == 5
    assert max(map(len, lines)) <= 160
