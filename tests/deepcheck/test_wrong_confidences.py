"""The largest confidence in each wrong class: closed forms, all points of small balls, several attacks, and what is refused."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from deepcheck.attacks import CarliniWagner, bim, confident_pgd, fgsm, pgd
from deepcheck.defences import BitDepth
from deepcheck.evaluation.separation import (
    confident_attacks,
    separation,
    wrong_confidences,
)
from tests.deepcheck.confidence_cases import NOTHING, Small, Stays, generator, small_images
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.linear_nets import near

pytestmark = on_every_device


def test_on_a_linear_net_it_is_the_closed_form() -> None:
    """p = 1 / (1 + exp(f - delta |w|_1)), f the difference of the logits: at every delta, and the loss is -log(1 - p)."""
    net, images, labels = near(16, edges=False)
    deltas = [0.1, 0.0, 0.05]
    found = wrong_confidences(net, images, labels, delta=deltas, starts=1, steps=20, generator=generator())
    assert found.delta.values.tolist() == [0.0, 0.05, 0.1]
    f, size = net(images).diff(dim=1).squeeze(1).abs().detach(), float(net.w.detach().abs().sum())
    n = np.arange(16)
    for k, delta in enumerate([0.0, 0.05, 0.1]):
        p = torch.sigmoid(delta * size - f).cpu().numpy()
        mine = found.wrong_confidence.values[k]
        np.testing.assert_allclose(mine[1 - labels.cpu(), n], p, rtol=1e-6)
        assert np.isnan(mine[labels.cpu(), n]).all()
        np.testing.assert_allclose(found.worst_loss.values[k], -np.log1p(-p), rtol=1e-6)
        np.testing.assert_allclose(found.attacked_loss.values[k], -np.log1p(-p), rtol=1e-6)
        assert np.array_equal(found.wrong.values[k], p > 0.5)
        np.testing.assert_allclose(found.wrong_prediction_confidence.values[k], np.where(p > 0.5, p, np.nan), rtol=1e-6)
        share = separation(found, level=[0.6, 0.9]).share.values[:, k]
        assert share.tolist() == [(p >= 0.6).mean(), (p >= 0.9).mean()]
    np.testing.assert_allclose(found.clean_confidence.values, torch.sigmoid(f).cpu(), rtol=1e-12)
    assert np.array_equal(found.clean_prediction.values, labels.cpu())


def test_every_class_has_what_the_best_of_all_points_has() -> None:
    net, images = Small(pixels=1), small_images(pixels=1)
    labels = net(images).argmax(1)
    with torch.no_grad():
        every = (images + torch.linspace(-0.2, 0.2, 2001, dtype=torch.float64).view(-1, 1, 1, 1, 1)).clamp(0, 1)
        p = net(every.flatten(0, 1)).softmax(1).view(2001, 20, 3)
    found = wrong_confidences(net, images, labels, delta=0.2, starts=4, steps=40, generator=generator())
    best = p.amax(0).T.cpu().numpy()
    mine = found.wrong_confidence.values[0]
    for k in range(3):
        there = labels.cpu().numpy() != k
        np.testing.assert_allclose(mine[k, there], best[k, there], atol=2e-3)
        assert (mine[k, there] >= best[k, there] - 1e-4).all()
    np.testing.assert_allclose(
        found.worst_loss.values[0],
        -p.gather(2, labels.expand(2001, 20)[..., None]).amin(0)[:, 0].log().cpu(),
        atol=0.02,
    )
    wrong = (p.argmax(2) != labels).any(0).cpu().numpy()
    assert np.array_equal(found.wrong.values[0], wrong)
    assert 0 < wrong.sum() < 20


def test_what_is_found_in_a_ball_counts_in_the_larger_ones_and_every_point_counts_for_all_classes() -> None:
    net, images = Small(), small_images()
    labels = (net(images).argmax(1) + 1) % 3
    options: dict[str, Any] = {"attacks": {"stays": Stays()}, "loss_attack": NOTHING, "generator": generator()}
    found = wrong_confidences(net, images, labels, delta=[0.1, 0.2, 0.3], **options)
    with torch.no_grad():
        clean, moved = (net(x).softmax(1) for x in (images, (images + 0.1).clamp(0, 1)))
    best = torch.maximum(clean, moved).scatter(1, labels[:, None], torch.nan).T.cpu().numpy()
    for k in range(3):
        np.testing.assert_allclose(found.wrong_confidence.values[k], best, rtol=1e-12)
        assert found.wrong.values[k].all()  # wrong as it is, or else moved
    at_y = [p.gather(1, labels[:, None]).squeeze(1) for p in (clean, moved)]
    np.testing.assert_allclose(found.worst_loss.values[2], -torch.minimum(*at_y).log().cpu(), rtol=1e-9)
    np.testing.assert_allclose(found.attacked_loss.values[2], -at_y[0].log().cpu(), rtol=1e-9)


def test_several_attacks_are_as_good_as_the_best_of_them_and_the_smallest_part_is_found_alone() -> None:
    net, images = Small(), small_images()
    labels = net(images).argmax(1)
    attacks: dict[str, Any] = {
        "fgsm": fgsm(),
        "odds": replace(confident_pgd(steps=5, restarts=1), targets="given"),
        "carlini_wagner": CarliniWagner("linf", "targeted_margin", steps=20, searches=2, initial_c=0.1),
    }
    common: dict[str, Any] = {"delta": [0.1, 0.2], "loss_attack": NOTHING}

    def of(some: dict[str, Any]) -> xr.Dataset:
        return wrong_confidences(net, images, labels, attacks=some, generator=generator(), **common)

    each = [of({name: one}).wrong_confidence.values for name, one in attacks.items()]
    together = of(attacks)
    best = np.nanmax(np.stack(each), axis=0, where=~np.isnan(np.stack(each)), initial=0)
    mine = together.wrong_confidence.values
    there = ~np.isnan(mine)
    assert np.array_equal(mine[there], best[there])
    assert (np.diff(mine, axis=0)[there[1:]] >= 0).all()
    configuration = json.loads(together.attrs["configuration"])["options"]
    assert configuration["norm"] == "linf"
    assert configuration["effort"]["odds"] == "5 steps, for each of 2 classes"
    assert configuration["effort"]["fgsm"] == "1 step"
    assert list(configuration["attacks"]) == [*attacks, "loss"]
    assert together.attrs["seed"] == "0"
    for variable in together.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == "1"


def test_batches_and_the_global_random_numbers_do_not_matter_and_inputs_stay() -> None:
    net, images = Small(), small_images()
    labels = net(images).argmax(1)
    state, before = torch.get_rng_state(), images.clone()
    options: dict[str, Any] = {"delta": [0.1, 0.2], "starts": 2, "steps": 5}
    whole = wrong_confidences(net, images, labels, generator=generator(), **options)
    parts = wrong_confidences(net, images, labels, generator=generator(), batch_size=3, **options)
    xr.testing.assert_allclose(whole, parts, rtol=1e-9)
    middle = wrong_confidences(
        net, images, labels, generator=generator(), batch_size=25, **options
    )  # a class at a time
    xr.testing.assert_allclose(whole, middle, rtol=1e-9)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    other = wrong_confidences(net, images, labels, generator=generator(1), **options)
    assert not np.array_equal(whole.wrong_confidence.values, other.wrong_confidence.values, equal_nan=True)


def test_a_defence_is_attacked_by_who_knows_of_it_and_is_the_judge() -> None:
    """One bit leaves four images of two pixels: no other confidence can be found."""
    net, images = Small(), small_images(40)
    defence = BitDepth(net, bits=1)
    labels = defence(images).argmax(1)
    found = wrong_confidences(defence, images, labels, delta=0.2, starts=2, steps=10, generator=generator())
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2).view(4, 1, 1, 2)
    p = net(corners).softmax(1).detach().cpu().numpy()
    mine = found.wrong_confidence.values[0]
    assert np.abs(mine[..., None] - p.T[:, None, :]).min(-1)[~np.isnan(mine)].max() < 1e-12
    crosses = ((images.flatten(1) - 0.5).abs() < 0.2).any(1).cpu().numpy()
    clean = defence(images).softmax(1).T.detach().cpu().numpy()
    stays = ~crosses & ~np.isnan(mine)
    np.testing.assert_allclose(mine[stays], clean[stays], rtol=1e-12)
    assert found.wrong.values[0].sum() > 3
    assert "Adaptive" in json.loads(found.attrs["configuration"])["options"]["attacks"]["confident_pgd"]


def test_the_attack_of_carlini_and_wagner_is_there_where_a_level_is_given() -> None:
    assert list(confident_attacks(starts=3, steps=7)) == ["confident_pgd"]
    both = confident_attacks("l2", starts=3, steps=7, level=0.9)
    assert list(both) == ["confident_pgd", "carlini_wagner"]
    assert both["confident_pgd"].restarts == 3  # type: ignore[attr-defined]
    net, images = Small(), small_images(6)
    labels = net(images).argmax(1)
    attacks: Any = {"carlini_wagner": confident_attacks(steps=20, level=0.7)["carlini_wagner"]}
    found = wrong_confidences(
        net, images, labels, delta=0.45, attacks=attacks, loss_attack=NOTHING, generator=generator()
    )
    best = np.nanmax(found.wrong_confidence.values[0], axis=0)
    assert (np.abs(best - 0.7) < 0.02).sum() >= 3  # the nearest of so much confidence, and not more
    assert (best[np.abs(best - 0.7) < 0.02] >= 0.7).all()  # rounding does not undo it


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda x: Small()(x).softmax(1)}, "model has no softmax confidence: its outputs sum to 1"),
        (
            {"model": lambda x: Small()(x)[:, :1]},
            "model returned logits of shape (4, 1) for 4 images: allowed is (n, K) with K",
        ),
        ({"images": small_images(0), "labels": torch.zeros(0, dtype=torch.int64)}, "images are none: allowed is one"),
        ({"labels": torch.full((4,), 3)}, "labels have the value 3, but the model has 3 classes"),
        ({"delta": -0.1}, "delta = -0.1 is not allowed: a finite number >= 0 is"),
        ({"attacks": {}}, "attacks = {} is not allowed: a dict of names to attacks is"),
        (
            {"attacks": {"loss": pgd(steps=1)}},
            "is not allowed: a dict of names to attacks is, one or more, none named 'loss'",
        ),
        (
            {"attacks": {"a": pgd(steps=1), "b": bim("l2")}},
            "attacks in the norms {'a': 'linf', 'b': 'l2', 'loss': 'linf'} are",
        ),
        ({"loss_attack": bim("l2")}, "are not allowed together: those in one norm are"),
        ({"steps": 0}, "steps = 0 is out of range"),
        ({"starts": 0}, "starts = 0 is out of range"),
        ({"batch_size": 0}, "batch_size = 0 is out of range"),
    ],
)
def test_bad_calls(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "images": small_images(4),
        "labels": torch.zeros(4, dtype=torch.int64),
        "model": Small(),
    }
    arguments = arguments | {"delta": 0.1, "generator": generator()} | change
    arguments["labels"] = arguments["labels"].to(arguments["images"].device)
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        wrong_confidences(arguments.pop("model"), arguments.pop("images"), arguments.pop("labels"), **arguments)
