"""XOR: the equation of the collapse, the specialised state, what counts as found, and claims that can fail."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from studies.xor import critical_epsilon, measure, plan
from studies.xor.claims import claims, extrapolated, resting_length, table
from studies.xor.figures import figures
from studies.xor.study import described


@pytest.mark.parametrize(("v", "expected"), [(0.05, 0.5814), (0.1, 0.5327), (0.2, 0.4712)])
def test_the_critical_epsilon_solves_its_equation(v: float, expected: float) -> None:
    found = critical_epsilon(v)
    assert found == pytest.approx(expected, abs=5e-5)
    x = 1 + np.sqrt(v) * np.random.default_rng(0).standard_normal(1_000_000)
    shift = found / np.sqrt(2)
    assert np.abs(np.abs(x) - shift).mean() == pytest.approx(np.sqrt(2 * v / np.pi) + shift, abs=2e-3)


def test_clusters_without_a_width_collapse_at_half_the_distance_of_neighbours() -> None:
    assert critical_epsilon(1e-9) == pytest.approx(1 / np.sqrt(2), abs=1e-4)
    with pytest.raises(ValueError, match="v = 0"):
        critical_epsilon(0.0)


def test_the_symmetric_state_is_one_of_weights() -> None:
    state = measure.small_state(np.array([0.5, 0.2]), 0.02, 0.005, -0.003)
    assert state["M"].shape == (2, 4, 4)
    P = np.array([0.5, 0.2])[:, None, None] * plan.CENTRES
    np.testing.assert_allclose(state["M"], P @ plan.CENTRES.T)
    noise = state["Q"] - P @ np.swapaxes(P, 1, 2)
    np.testing.assert_allclose(np.linalg.eigvalsh(noise), [[0.015, 0.015, 0.019, 0.031]] * 2, atol=1e-12)
    r, s, t = measure._products(np.array([1.0, 0.015, 0.019, 0.031]))
    np.testing.assert_allclose([r, s, t], [0.02, 0.005, -0.003], atol=1e-12)


def test_a_cluster_is_found_by_a_unit_of_its_label() -> None:
    full = plan.CENTRES @ plan.CENTRES.T
    missed = plan.CENTRES[[0, 0, 2, 3]] @ plan.CENTRES.T
    crossed = plan.CENTRES[[2, 3, 0, 1]] @ plan.CENTRES.T  # on the clusters of the other label
    found = measure.found(np.array([full, missed, crossed, 0.01 * full]))
    assert found.tolist() == [[True] * 4, [True, False, True, True], [False] * 4, [True] * 4]


def test_states_that_have_missed_a_cluster_have_not_found_all() -> None:
    one = plan.Condition("as it is", (0.0, 0.5), 4)
    short = replace(plan.QUICK, time=0.5)
    found = measure.shares(one, short, seed=3)
    assert found.all_found.shape == (2, 4)
    assert not found.all_found.all()
    missed = measure.shares(replace(one, start="missing", epsilon=(0.0,)), short, seed=3)
    assert not missed.all_found.any()


@pytest.mark.slow
def test_the_branch_of_the_kernel_ends_where_the_equation_says() -> None:
    near, nearer = measure.settled(0.1, (0.1, 0.05))
    assert near < nearer < critical_epsilon(0.1)
    assert 2 * nearer - near == pytest.approx(critical_epsilon(0.1), abs=1e-3)


def made() -> xr.Dataset:
    """Return a result that is as the theory has it, but for its noise."""
    rng = np.random.default_rng(1)
    alpha, line = [0.0, 5.0, 10.0], ["relu, epsilon = 0", "relu, epsilon = 0.3"]
    coords: dict[str, Any] = {"alpha": alpha, "line": line, "line_activation": ("line", ["relu"] * 2)}
    coords |= {"line_epsilon": ("line", [0.0, 0.3]), "line_N": ("line", [1000, 1000]), "run": range(20)}
    data = xr.Dataset(coords=coords)
    sizes = {
        "M": ("unit", "cluster"),
        "Q": ("unit", "other_unit"),
        "theta": ("unit",),
        "b": (),
        "error": (),
        "fgsm_error": (),
    }
    for name, dims in sizes.items():
        theory = np.zeros((2, 3, *[4] * len(dims))) + np.array([0.1, 0.2]).reshape(2, 1, *[1] * len(dims))
        data[name] = ("line", "alpha", *dims), theory
        noise = rng.normal(0, 0.01, (2, 20, 3, *[4] * len(dims)))
        data[f"simulated_{name}"] = ("line", "run", "alpha", *dims), theory[:, None] + noise
    v, lengths = [0.05, 0.1], [0.5, 0.1, 0.05]
    ends = np.array([critical_epsilon(one) for one in v])
    data["resting_epsilon"] = ("v", "length"), ends[:, None] - 0.1 * np.array(lengths)
    data["critical_epsilon"] = ("v",), ends
    data = data.assign_coords(v=v, length=lengths)
    sizes_ = np.array([0.95, 1.0, 1.05, 1.1])
    data = data.assign_coords(size=sizes_, noisy_part=list("qrst"), noisy_v=0.05, noisy_eta=0.1, noisy_critical=ends[0])
    length = np.array([0.6, 0.4, 0.15, 0.05])
    data["noisy"], data["noisy_length"] = (("size", "noisy_part"), np.zeros((4, 4))), (("size",), length)
    data["simulated_length"] = ("simulated_size", "simulated_run"), length[:, None] + rng.normal(0, 0.01, (4, 20))
    data = data.assign_coords(simulated_size=sizes_, simulated_run=range(20), simulated_N=200)
    names = [one.name for one in plan.FULL.conditions]
    share = np.array([[0.45, 0.92]] * len(names))
    share[names.index("one centre is missed before")] = 0.0
    share[names.index("in R^N, an attack for each unit"), 1] = 0.5
    data["share"], data["share_error"] = (
        (("condition", "start_epsilon"), share),
        (("condition", "start_epsilon"), 0 * share + 0.03),
    )
    data = data.assign_coords(condition=names, start_epsilon=[0.0, 0.5])
    data["growth"] = ("rates_epsilon", "turned_to"), np.array([[3.4, 3.7], [0.8, 1.7]])
    return described(data.assign_coords(rates_epsilon=[0.0, 0.5], turned_to=["one centre", "two centres"]))


def test_claims_hold_for_what_is_as_the_theory_has_it() -> None:
    found = list(claims(made()))
    assert len(found) == 12
    assert [claim.statement for claim in found if not claim.holds] == []


@pytest.mark.parametrize(
    ("variable", "change", "expected"),
    [
        ("M", 0.04, "M, Q, theta and b"),
        ("fgsm_error", 0.04, "E and S under FGSM"),
        ("resting_epsilon", 0.005, "epsilon of the equation"),
        ("simulated_length", 0.05, "mean length of the weights"),
        ("share", 0.08, "missed once is not found later"),
        ("growth", 10.0, "like units that turn to one centre"),
    ],
)
def test_a_result_that_is_off_fails_its_claim(variable: str, change: float, expected: str) -> None:
    data = made()
    failed = [claim for claim in claims(data.assign({variable: data[variable] + change})) if not claim.holds]
    assert any(expected in claim.statement for claim in failed), [claim.statement for claim in failed]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("eta = 0.1", "not the noise of SGD"),
        ("attack on the margin", "nor the push the wrong way"),
        ("in R^N, an attack for each unit", "what units share is the attack"),
        ("as it is", "a larger share of random starts"),
    ],
)
def test_a_share_that_depends_on_what_it_should_not_fails_its_claim(condition: str, expected: str) -> None:
    data = made()
    here = (data.condition == condition) & (data.start_epsilon == 0.5)
    other = data.share.where(~here, 0.95 if "each unit" in condition else 0.45)
    failed = [claim for claim in claims(data.assign(share=other)) if not claim.holds]
    assert any(expected in claim.statement for claim in failed), [claim.statement for claim in failed]


def test_the_branch_goes_on_to_the_collapse() -> None:
    data = made()
    np.testing.assert_allclose(extrapolated(data), data.critical_epsilon, atol=1e-12)
    end = float(data.noisy_critical)
    np.testing.assert_allclose(
        resting_length(data, np.array([end - 0.01, end - 0.05, end + 0.1])), [0.1, 0.5, 0.0], atol=1e-9
    )


def test_the_table_fits_on_a_page_and_all_is_drawn() -> None:
    data = made()
    lines = table(data).splitlines()
    assert max(map(len, lines)) <= 120
    assert any("as it is" in text for text in lines)
    assert list(figures(data)) == ["learning", "collapse", "starts"]
