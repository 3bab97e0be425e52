"""The study of the trade-off: linear nets have the errors that theory gives their R and b, and its claims can fail."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from odeflow import Adversary, GaussianMixture, integrate
from studies.tradeoff_deep import measure, study
from studies.tradeoff_deep.claims import claims, costs_of, described, table, with_best
from studies.tradeoff_deep.measure import MIXTURE, RULE, TEST, Online
from studies.tradeoff_deep.study import _world


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small nets lose much time where threads wait for each other on busy processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_linear_nets_follow_the_theory_and_are_kept(tmp_path: Path) -> None:
    online = Online(50, 20.0, {"linear": 40, "two layers": 42}, (0.5,))
    errors = study._online_nets("linear", 0.5, online, tmp_path)
    assert errors.shape == (2, 42)
    assert np.isnan(errors[:, 40:]).all()
    theory = integrate(MIXTURE, RULE, Adversary(0.5), alpha=[20.0], test_epsilon=TEST).isel(alpha=0)
    learned = errors[:, :40]
    for values, expected in zip(learned, (theory.error, theory.adversarial_error), strict=True):
        assert values.mean() == pytest.approx(expected.item(), abs=4 * values.std() / 40**0.5 + 0.005)
    np.testing.assert_array_equal(study._online_nets("linear", 0.5, online, tmp_path), errors)


def test_untrained_nets_with_a_hidden_layer_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before learning they are orthogonal to B, and half of their answers are wrong."""
    monkeypatch.setattr(measure, "MIXTURE", GaussianMixture(p=0.5))
    E, S = study._online_nets("two layers", 0.0, Online(50, 0.0, {"two layers": 3}, (0.0,), 300), tmp_path)
    assert E.mean() == pytest.approx(0.5, abs=0.08)
    assert np.all(S > E)


def _found() -> xr.Dataset:
    """Return what might have been measured, of which every claim holds."""
    training, line = np.array([0.0, 0.25, 0.5, 0.75, 1.0]), np.linspace(0, 1.2, 25)
    worlds = []
    for world, nets, best in (
        ("mixture", ["linear", "two layers"], 0.75),
        ("images", ["linear", "convolutional"], 0.5),
    ):
        E, S = 0.1 + (training - 0.2) ** 2 / 10, 0.3 + (training - best) ** 2
        on_line = 0.1 + (line - 0.2) ** 2 / 10, 0.3 + (line - best) ** 2
        noise = 1e-3 * np.array([-1, 0, 1])
        learned = np.broadcast_to(np.stack([E, S], 1)[None, :, :, None] + noise, (2, 5, 2, 3))
        worlds.append(_world(world, line, on_line, training, (E, S), nets, learned.copy()))
    data = xr.merge(worlds, join="outer").assign(test_epsilon=("world", [TEST, 0.5]))
    for key in ("error", "adversarial_error"):
        data[f"images_limit_{key}"] = data[f"images_theory_{key}"] + 0.1
    data["images_bound"], data["images_bound_at_larger"] = ("images_net", [0.0, 0.1]), ("images_net", [0.4, 0.5])
    return data.assign_coords(world=["mixture", "images"])


def test_the_best_training_epsilon_and_what_it_costs() -> None:
    data = described(with_best(_found()))
    assert data.mixture_theory_best.item() == pytest.approx(0.75)
    assert data.images_best.values.tolist() == [0.5, 0.5]
    for world in ("mixture", "images"):
        for name, (rise, noise) in costs_of(data, world, -1).items():
            assert rise == pytest.approx(0.06)
            assert noise == (0 if "theory" in name else pytest.approx(1e-3 * (2 / 3) ** 0.5))
    data.attrs |= {"note": "", "title": "3 against 7", "N": "100", "alpha": "200"}
    assert max(map(len, table(data).splitlines())) <= 120
    assert all(variable.attrs["long_name"] for variable in data.variables.values())


def test_the_claims_can_fail() -> None:
    good = _found()
    for quick in (True, False):
        assert all(claim.holds is True for claim in claims(with_best(good), (0.05, 0.05), quick=quick))
    for name, net, by in (
        ("mixture_error", "linear", 0.02),
        ("mixture_adversarial_error", "linear", 0.02),
        ("images_error", "linear", 0.1),
        ("images_adversarial_error", "linear", 0.1),
    ):
        bad = good.copy(deep=True)
        bad[name].loc[{f"{name.split('_')[0]}_net": net}] += by
        assert [claim.holds for claim in claims(with_best(bad), (0.05, 0.05), quick=False)].count(False) >= 1, name
    for name, where, value in (
        ("images_error", {"images_net": "convolutional"}, 0.0),  # AT costs nothing
        (
            "mixture_line_adversarial_error",
            {"mixture_line": good.mixture_line[8]},
            0.0,
        ),  # the best training epsilon is too small
        ("mixture_adversarial_error", {"mixture_net": "linear", "mixture_training": 0.5}, 0.0),
        ("images_bound", {"images_net": "convolutional"}, 0.31),  # a net is below what no classifier can be
    ):
        bad = good.copy(deep=True)
        bad[name].loc[where] = value
        assert not all(claim.holds for claim in claims(with_best(bad), (0.05, 0.05), quick=False)), name
