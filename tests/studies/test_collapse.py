"""The study of the collapse: its definition on known cases, its data, and claims that can fail."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import ndtr, ndtri

from deepcheck.data import load, two_class_images
from deepcheck.training.stacked import StackedNets
from odeflow import Adversary, GaussianMixture, LearningRule, classification_error, integrate
from odeflow.anisotropic import Mixture
from odeflow.anisotropic import integrate as integrate_on_data
from studies import collapse
from studies.collapse import measure, plan, study
from studies.collapse.claims import at_end, claims
from studies.common.attacked import Norm


def test_the_critical_epsilon_of_a_straight_line_is_exact() -> None:
    """The inverse normal distribution function of the recall is interpolated: a Gaussian shift is met exactly."""
    epsilon = np.array([0.0, 0.5, 1.0, 2.0])
    slopes = np.array([1.0, 2.0, 3.0])
    recall = ndtr(1 - slopes[:, None] * epsilon)
    expected = (1 - ndtri(0.1)) / slopes
    np.testing.assert_allclose(collapse.critical(epsilon, recall)[1:], expected[1:], rtol=1e-12)
    assert np.isnan(collapse.critical(epsilon, recall)[0])  # 2.28: beyond what was measured
    assert collapse.critical(epsilon, recall[2], 0.5) == pytest.approx(1 / 3)
    # the first time counts, and one that has collapsed without an attack has the least epsilon
    assert collapse.critical([0.0, 1.0, 2.0, 3.0], [0.5, 0.01, 0.5, 0.01]) < 1
    assert collapse.critical([0.0, 1.0], [0.05, 0.5]) == 0
    assert np.isnan(collapse.critical([0.5, 1.0], [0.05, 0.01]))  # somewhere below 0.5


def test_a_linear_net_is_judged_as_the_theory_judges_it() -> None:
    """By formula for a linear net; and by counting, within the error of counting, for one with a layer of pairs."""
    mixture = GaussianMixture(p=measure.P, rho=2.0)
    w, b = torch.tensor([1.2, 0.9, 0.0]), 0.6
    linear = StackedNets([w.view(1, 1, 3)], [torch.full((1, 1, 1), -b)])
    noise = torch.randn(2, 20_000, 3, generator=torch.Generator().manual_seed(1))
    noise[0, :, 0] += 1
    noise[1, :, 0] -= 1
    recall, error, R, bias = measure.judged(linear, noise, mixture)[:, 0]
    assert (R, bias) == pytest.approx((0.8, 0.4))
    assert recall == pytest.approx(ndtr(0.8 + 0.4))
    assert error == pytest.approx(classification_error(0.8, 0.4, mixture))
    # max(0, w.xi) - max(0, -w.xi) - b is the same function
    deep = StackedNets(
        [torch.stack([w, -w])[None], torch.tensor([[[1.0, -1.0]]])], [torch.zeros(1, 1, 2), torch.full((1, 1, 1), -b)]
    )
    counted = measure.judged(deep, noise, mixture)[:3, 0]
    np.testing.assert_allclose(counted, [recall, error, R], atol=0.012)  # 4 standard errors of 20,000 examples


@pytest.mark.parametrize(("share", "count"), [(0.7, None), (0.9, None), (0.2, 100), (0.7, 100)])
def test_unbalanced_images(share: float, count: int | None) -> None:
    pair = two_class_images(load("digits"), 3, 7)
    chosen = collapse.unbalanced(pair, share, count)
    assert chosen.train_labels.mean() == pytest.approx(share, abs=1 / len(chosen.train_labels))
    if count is None:  # nothing is left out without need
        label = int(chosen.train_labels.sum() == pair.train_labels.sum())
        assert (chosen.train_labels == label).sum() == (pair.train_labels == label).sum()
    else:
        assert len(chosen.train_labels) == count
    # no image twice, and each with its own label
    known = {image.tobytes(): label for image, label in zip(pair.train_images, pair.train_labels, strict=True)}
    found = [image.tobytes() for image in chosen.train_images]
    assert len(set(found)) == len(found)
    assert [known[image] for image in found] == chosen.train_labels.tolist()
    assert len(chosen.test_labels) == len(pair.test_labels)


def test_the_distance_of_the_means_is_in_the_norm_of_the_attack() -> None:
    plus, minus = np.array([3.0, 0.0]), np.array([0.0, -4.0])
    assert collapse.half_distance(plus, minus, "l2") == 2.5
    assert collapse.half_distance(plus, minus, "linf") == 2.0


def test_beyond_half_the_distance_the_constant_classifier_is_stable() -> None:
    """As eta -> 0, whatever covariances and prior: weights at rest grow just below, and shrink just above."""
    mixture = Mixture(0.8, means=np.array([[1.0, 0.5], [-0.5, 0.0]]), covariances=np.array([[0.3, 2.0], [1.0, 0.1]]))
    rule = LearningRule.per_example(0.02, N=2, second_order=False)
    norms: tuple[Norm, ...] = ("l2", "linf")
    for norm in norms:
        unit = collapse.half_distance(mixture.means[0], mixture.means[1], norm)
        b0 = -0.5951160814499948  # erf(-b) = 2p - 1: the bias of the constant classifier at rest
        start = np.array([1.5, 0.5]) if norm == "l2" else np.array([1.5, 0.0])
        lengths = []
        for share in (0.9, 1.1):
            attack = Adversary(share * unit, norm=norm)
            end = integrate_on_data(mixture, rule, attack, examples=[500.0], w0=1e-3 * start, b0=b0)
            lengths.append(end.l2_norm.item() / (1e-3 * np.linalg.norm(start)))
        assert lengths[0] > 1.2
        assert lengths[1] < 0.8


def ideal_nets(
    mixture: GaussianMixture, rule: LearningRule, adversary: Adversary, **options: Any
) -> Iterator[tuple[float, StackedNets]]:
    """Yield nets as theory says, in place of `train_online`; with hidden layers from random weights: as for 2 epsilon."""
    factor = 2.0 if options["hidden"] and options.get("initial") is None else 1.0
    theory = integrate(mixture, rule, Adversary(factor * adversary.epsilon), alpha=options["alpha"])
    for k, time in enumerate(options["alpha"]):
        one = theory.isel(alpha=k)
        R, b = float(one.R), float(one.b)
        w = torch.tensor([R, ((float(one.Q) if "Q" in one else 1.0) - R**2) ** 0.5], dtype=torch.float64)
        biases = torch.full((options["runs"], 1, 1), -b, dtype=torch.float64)
        yield time, StackedNets([w.expand(options["runs"], 1, 2)], [biases])


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Return the data of a short run, with nets on the mixtures that are as theory says."""
    sizes = (0.0, 0.4, 0.6, 0.8, 0.95, 1.1, 1.2)
    short_plan = plan.Plan(
        (
            measure.Nets("linear, N = 100", (), 100, "|w| = 1", (2.0,), sizes, 2),
            measure.Nets("linear, N = 100, free", (), 100, "free |w|", (2.0, 3.0), sizes, 2, times=(30.0, 100.0)),
            measure.Nets("20 ReLU, random start", (20,), 100, "free |w|", (2.0,), sizes, 2),
            measure.Nets("20 ReLU, trained start", (20,), 100, "free |w|", (2.0,), sizes, 2, "trained"),
        ),
        (measure.Pair(3, 7, "l2", (0.0, 1.5), 0.1, 500, 2),),
        (measure.Convolutional("l2", 0.0, (0.0,), 1, 100, 1),),
    )
    folder = tmp_path_factory.mktemp("collapse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "QUICK", short_plan)
        patch.setattr(study, "_theory", cache(study._theory))  # the same for both runs
        patch.setattr(study, "in_processes", lambda function, tasks: [function(*task) for task in tasks])
        patch.setattr(measure, "train_online", ideal_nets)
        first = collapse.run("collapse", quick=True, folder=folder).data
        # what is in the folder is not measured again
        for name in ("nets_on_mixture", "linear_on_images"):
            never = Mock(side_effect=AssertionError, __module__=measure.__name__)
            patch.setattr(study, name, never)
        again = collapse.run("collapse", quick=True, folder=folder).data
    xr.testing.assert_equal(first, again)
    return first


def test_nets_as_theory_says_collapse_where_theory_says(short: xr.Dataset) -> None:
    ratio = at_end(short).mean("net_run") / at_end(short, "expected")
    np.testing.assert_allclose(
        ratio, [1, 1, 1, 1 / 2, 1], rtol=0.06
    )  # the points are up to 0.4 of its critical epsilon apart


def test_every_variable_says_what_it_is(short: xr.Dataset) -> None:
    for name, variable in short.variables.items():
        assert variable.attrs.get("long_name"), name
        assert variable.attrs.get("units"), name


def test_the_claims_can_fail(short: xr.Dataset) -> None:
    short = short.copy(deep=True)

    def held(data: xr.Dataset) -> dict[str, bool]:
        return {claim.statement: claim.holds for claim in claims(data, quick=True)}

    # the nets from a trained start are theory's own here: a little below, as the claim has it
    short["critical"] = (0.8 * short.critical).where(short.start == "trained", short.critical)
    good = held(short)
    assert all(isinstance(one, bool) for one in good.values())
    broken: tuple[tuple[str, str, Any], ...] = (
        ("linear nets, |w| = 1", "critical", lambda x: x * 1.2),
        ("linear nets, |w| = 1", "critical", lambda x: x * np.nan),
        ("every step of epsilon", "theory_b", lambda x: -x),
        ("every step of epsilon", "error", lambda x: x * 0),
        ("from random weights", "critical", lambda x: x * 0 + 1.08),
        ("trained without attack", "critical", lambda x: x * 0 + 0.3),
        ("weights vanish", "image_theory_norm", lambda x: x * 0 + 1),
        ("linear classifiers on images", "image_critical", lambda x: x * 0 + 3),
        ("linear classifiers on images", "image_critical", lambda x: x * np.nan),
    )
    for words, variable, change in broken:
        bad = short.copy(deep=True)
        bad[variable] = change(bad[variable])
        assert not all(holds for statement, holds in held(bad).items() if words in statement), (words, variable)
    for words in ("|w| = 1, N = 100", "every step", "from random weights", "trained without attack", "free |w|"):
        assert good[next(statement for statement in good if words in statement)], words


def test_it_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="folder"):
        collapse.run("collapse", quick=True, folder=None)


def test_nets_of_another_plan_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Mock(return_value=xr.Dataset({"x": 1.0}), __module__=measure.__name__)
    monkeypatch.setattr(study, "linear_on_images", measured)
    pair = plan.QUICK.pairs[0]
    other = replace(pair, examples=pair.examples + 1)
    digits = load("digits")
    for what, images, calls in (
        (pair, digits, 1),
        (pair, digits, 1),
        (pair, replace(digits, name="others"), 2),
        (other, digits, 3),
    ):
        assert study._task(tmp_path, what, images).x == 1
        assert measured.call_count == calls
