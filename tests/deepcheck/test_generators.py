"""Generators: the loss of WGAN-GP in closed cases, trainings that resume, files, and the projection."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck import checkpoint
from deepcheck.checks import CheckpointError
from deepcheck.data import Images, load
from deepcheck.generators import (
    Critic,
    Generator,
    GeneratorRecipe,
    critic_loss,
    gradient_penalty,
    load_generator,
    nearest,
    train_generator,
    training,
)
from deepcheck.generators.files import LAST, REPORT
from tests.deepcheck.digits_generator import linear_generator
from tests.deepcheck.digits_net import digits_as_tensors

TINY = GeneratorRecipe(latent=3, width=2, steps=9, batch_size=8, learning_rate=1e-2, every=3, validation=10)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> Images:
    digits = load("digits")
    return replace(digits, train_images=digits.train_images[:120], train_labels=digits.train_labels[:120])


# the loss


def test_the_penalty_of_a_linear_critic_is_that_of_its_weights() -> None:
    """The gradient is w everywhere: (|w| - 1)^2, and by w 2 (|w| - 1) w / |w|."""
    w = torch.randn(12, generator=draw(), dtype=torch.float64).requires_grad_()
    real, made = torch.rand(2, 5, 3, 2, 2, generator=draw(1), dtype=torch.float64)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ w, real, made, torch.rand(5, generator=draw(2)).double())
    size = float(w.detach().norm())
    assert float(penalty.detach()) == pytest.approx((size - 1) ** 2)
    (gradient,) = torch.autograd.grad(penalty, w)
    torch.testing.assert_close(gradient, 2 * (size - 1) * w.detach() / size)


def test_the_penalty_is_taken_between_the_two_images() -> None:
    """Of D(x) = |x|^2 / 2 the gradient is x: (|(1 - t) real + t made| - 1)^2, image by image."""
    real, made = torch.randn(2, 6, 4, generator=draw(), dtype=torch.float64)
    t = torch.linspace(0, 1, 6, dtype=torch.float64)
    found = gradient_penalty(lambda x: x.square().sum(1) / 2, real, made, t)
    between = (1 - t)[:, None] * real + t[:, None] * made
    torch.testing.assert_close(found.detach(), (between.norm(dim=1) - 1).square().mean())


def test_the_loss_of_a_linear_critic() -> None:
    """D = w x: the distance is that of the means along w, and |w| = 1 is best at 1 + distance / (2 penalty)."""
    real, made = torch.randn(2, 50, 1, generator=draw(), dtype=torch.float64)
    real = real + 3
    t, penalty = torch.rand(50, generator=draw(1), dtype=torch.float64), 10.0
    gap = float(real.mean() - made.mean())
    for w in (0.5, 2.0):
        loss, distance = critic_loss(lambda x, w=w: w * x.squeeze(1), real, made, t, penalty)  # type: ignore[misc]
        assert float(distance) == pytest.approx(w * gap)
        assert float(loss.detach()) == pytest.approx(-w * gap + penalty * (w - 1) ** 2)


def test_a_critic_approaches_the_distance_of_two_points() -> None:
    """The Wasserstein distance of two points is how far they are apart; the penalty allows a slope of a little above 1."""
    D = Critic((1, 4, 4), width=8, generator=draw())
    real, made = torch.full((16, 1, 4, 4), 0.8), torch.full((16, 1, 4, 4), 0.3)
    optimiser = torch.optim.Adam(D.parameters(), 5e-3)
    for step in range(200):
        loss, distance = critic_loss(D, real, made, torch.rand(16, generator=draw(step)), 10.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # along the line from one to the other D' = 1 + distance / (2 penalty distance): the slope that is best
    apart = float((real - made)[0].norm())
    assert float(distance) == pytest.approx(apart * (1 + apart / 20), rel=0.05)


# the networks


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 4, 12)])
def test_shapes(shape: tuple[int, int, int]) -> None:
    state = torch.random.get_rng_state()
    G, D = Generator(shape, latent=5, width=3, generator=draw()), Critic(shape, width=3, generator=draw())
    x = G(G.latents(4, draw(1)))
    assert x.shape == (4, *shape)
    assert ((x > 0) & (x < 1)).all()
    assert D(x).shape == (4,)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.testing.assert_close(torch.cat([G(z) for z in G.latents(4, draw(1)).split(1)]), x)
    again = Generator(**G.spec, generator=draw())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(G.parameters(), again.parameters(), strict=True))


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"out_shape = \(1, 10, 8\) is not allowed: .*multiples of 4"):
        Generator((1, 10, 8), generator=draw())
    with pytest.raises(ValueError, match="latent = 0 is out of range"):
        Generator((1, 8, 8), latent=0, generator=draw())
    with pytest.raises(ValueError, match="width = 0 is out of range"):
        Critic((1, 8, 8), width=0, generator=draw())
    with pytest.raises(TypeError, match="generator = 3 is of the wrong type"):
        Generator((1, 8, 8), generator=3)  # type: ignore[arg-type]


# the training


@pytest.fixture(scope="module")
def trained(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gan") / "whole"
    train_generator(TINY, images, out=out, device="cpu")
    return out


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Press Ctrl-C in the step of the generator after so many."""
    plain, steps = training._Run._step_generator, iter(range(after))

    def interrupted(run: Any) -> None:
        if next(steps, None) is None:
            monkeypatch.setattr(training._Run, "_step_generator", plain)
            raise KeyboardInterrupt
        plain(run)

    monkeypatch.setattr(training._Run, "_step_generator", interrupted)


def test_what_a_training_leaves(trained: Path, images: Images) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [LAST, REPORT]
    report = json.loads((trained / REPORT).read_bytes())
    assert GeneratorRecipe(**report["recipe"]) == TINY
    assert (report["dataset"], report["train_images"], report["step"], report["seed"]) == ("digits", 120, 9, "0")
    assert {"torch_version", "git_commit", "device", "created"} <= report.keys()
    assert [row["step"] for row in report["history"]] == [3, 6, 9]
    G = load_generator(trained)
    assert G.spec == {"out_shape": [1, 8, 8], "latent": 3, "width": 2}
    assert not G.training
    last = report["history"][-1]["reconstruction_error"]
    x = torch.tensor(images.train_images[110:]).float() / 255
    starts = torch.randn(10, 30, 3, generator=draw())
    assert float(nearest(G, x, starts)[1].mean()) == pytest.approx(last, rel=0.2)  # by other starts


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_resumed_training_has_the_same_bits(
    average: float, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, state = replace(TINY, average=average), torch.random.get_rng_state()
    whole = train_generator(recipe, images, out=tmp_path / "whole", device="cpu")
    interrupt(monkeypatch, after=5)
    with pytest.raises(KeyboardInterrupt):
        train_generator(recipe, images, out=tmp_path / "parts", device="cpu")
    assert checkpoint.read(tmp_path / "parts" / LAST)[1]["step"] == 3
    parts = train_generator(recipe, images, out=tmp_path / "parts", device="cpu", resume=True)
    (ours, _), (theirs, _) = (checkpoint.read(tmp_path / folder / LAST) for folder in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [{**row, "seconds": 0} for row in parts.history] == [{**row, "seconds": 0} for row in whole.history]
    assert torch.equal(state, torch.random.get_rng_state())
    again = train_generator(recipe, images, out=tmp_path / "parts", device="cpu", resume=True)
    assert again.history == parts.history
    assert repr(again).startswith("TrainedGenerator(9 steps")


def test_it_is_the_average_that_is_the_result(images: Images, tmp_path: Path) -> None:
    recipe = replace(TINY, steps=1, average=0.9, every=1)
    train_generator(recipe, images, out=tmp_path / "one", device="cpu")
    tensors, _ = checkpoint.read(tmp_path / "one" / LAST)
    before = Generator((1, 8, 8), latent=3, width=2, generator=draw())
    for name, first in before.state_dict().items():  # d = min(0.9, 2 / 11) after the first step
        torch.testing.assert_close(
            tensors[f"generator.{name}"], torch.lerp(first, tensors[f"current.{name}"], 1 - 2 / 11)
        )


def test_it_comes_nearer_to_the_images(images: Images, tmp_path: Path) -> None:
    recipe = replace(TINY, latent=8, width=8, steps=100, batch_size=32, learning_rate=5e-3, average=0.9, every=50)
    history = train_generator(recipe, images, out=tmp_path / "more", device="cpu").history
    apart = torch.tensor(images.train_images[-recipe.validation :]).float() / 255
    of_the_mean = float((apart - apart.mean(0)).square().mean())  # of one that makes the mean image alone
    assert history[-1]["reconstruction_error"] < history[0]["reconstruction_error"]
    assert history[-1]["reconstruction_error"] < 0.75 * of_the_mean
    made = load_generator(tmp_path / "more")
    x = made(made.latents(200, draw(7))).detach()
    real = torch.tensor(images.train_images[:110]).float() / 255
    grey = torch.full_like(real[:1], float(real.mean()))
    assert float((x.mean(0) - real.mean(0)).norm()) < 0.5 * float((grey - real.mean(0)).norm())


@pytest.mark.parametrize(
    ("changes", "resume", "message"),
    [
        ({}, False, "holds a training already: allowed is another folder, or resume=True"),
        ({"seed": 1}, True, "cannot be resumed: it has seed = 0 and not 1"),
        ({"latent": 4, "steps": 10}, True, "cannot be resumed: it has latent = 3 and not 4, steps = 9 and not 10"),
    ],
)
def test_what_cannot_be_resumed(
    changes: dict[str, Any], resume: bool, message: str, trained: Path, images: Images
) -> None:
    before = (trained / LAST).read_bytes()
    with pytest.raises((ValueError, CheckpointError), match=re.escape(message)) as caught:
        train_generator(replace(TINY, **changes), images, out=trained, device="cpu", resume=resume)
    assert "\n" not in str(caught.value)
    assert (trained / LAST).read_bytes() == before


def test_a_training_on_other_images_is_not_resumed(trained: Path, images: Images) -> None:
    fewer = replace(images, train_images=images.train_images[:50], train_labels=images.train_labels[:50])
    with pytest.raises(CheckpointError, match="it has train_images = 120 and not 50"):
        train_generator(TINY, fewer, out=trained, device="cpu", resume=True)
    with pytest.raises(ValueError, match="validation = 50 is out of range: digits has 50 training images"):
        train_generator(replace(TINY, validation=50), fewer, out=trained.parent / "none", device="cpu")
    with pytest.raises(FileNotFoundError, match="its folder"):
        train_generator(TINY, images, out=trained / "no" / "folder", device="cpu")


# files


def test_a_generator_that_is_missing_says_how_to_train_it(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        message = f"'{path}' does not exist: train it by `deepcheck generator --dataset mnist --out {path}`"
        with pytest.raises(CheckpointError, match=re.escape(message)):
            load_generator(path)


def changed(trained: Path, to: Path) -> Iterator[tuple[dict[str, Tensor], dict[str, Any], str]]:
    tensors, info = checkpoint.read(trained / LAST)
    name = "generator.layers.0.weight"
    yield {}, info, "holds no generator"
    yield tensors, {**info, "generator": None}, "holds no generator"
    yield tensors, {**info, "generator": {"latent": 3}}, "describes no generator"
    yield tensors, {**info, "generator": {**info["generator"], "out_shape": [1, 9, 8]}}, "describes no generator"
    yield tensors, {**info, "generator": {**info["generator"], "width": 10**9}}, "does not hold the tensors"
    yield {**tensors, name: tensors[name][:-1]}, info, "does not hold the tensors"
    yield {**tensors, name: tensors[name] * torch.nan}, info, "weights that are not finite"


def test_files_that_hold_no_generator_are_refused_in_one_line(trained: Path, tmp_path: Path) -> None:
    for tensors, info, message in changed(trained, tmp_path):
        checkpoint.write(tmp_path / "other.safetensors", tensors, info)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_generator(tmp_path / "other.safetensors")
        assert "\n" not in str(caught.value)
    whole = (trained / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        load_generator(tmp_path)
    with pytest.raises(CheckpointError, match="holds no network"):
        checkpoint.load_model(trained / LAST)


# the projection


def test_it_finds_the_nearest_image_of_a_linear_generator() -> None:
    """That is a projection in closed form."""
    G, x = linear_generator(), digits_as_tensors().test[:50]
    z, error = nearest(G, x, torch.randn(50, 2, G.latent, generator=draw()), steps=100)
    best = G.projected(x)
    torch.testing.assert_close(G(z), best, rtol=0, atol=1e-3)
    torch.testing.assert_close(error, (best - x).square().flatten(1).mean(1), rtol=1e-4, atol=1e-6)


def test_it_finds_what_the_generator_has_made() -> None:
    G = linear_generator()
    made = G(torch.randn(20, G.latent, generator=draw(1)))
    z, error = nearest(G, made, torch.randn(20, 1, G.latent, generator=draw()), steps=200)
    assert float(error.max()) < 1e-8
    torch.testing.assert_close(G(z), made, rtol=0, atol=1e-3)


def test_of_several_starts_the_best_counts() -> None:
    """With one step from each start, the error is the least of those of single starts."""
    G, x = linear_generator(), digits_as_tensors().test[:30]
    starts = torch.randn(30, 5, G.latent, generator=draw())
    z, error = nearest(G, x, starts, steps=1, rate=1.0)
    alone = [nearest(G, x, starts[:, r : r + 1], steps=1, rate=1.0) for r in range(5)]
    least, which = torch.stack([one for _, one in alone]).min(0)
    torch.testing.assert_close(error, least)
    torch.testing.assert_close(z, torch.stack([one for one, _ in alone])[which, torch.arange(30)])
    assert len(which.unique()) > 1


def test_a_descent_that_diverges_keeps_its_best_point() -> None:
    G, x = linear_generator(), digits_as_tensors().test[:10]
    starts = torch.randn(10, 1, G.latent, generator=draw())
    z, error = nearest(G, x, starts, steps=50, rate=1e4)
    first = (G(starts[:, 0]) - x).square().flatten(1).mean(1)
    assert (error <= first).all()
    assert z.isfinite().all()


def test_it_does_not_depend_on_the_size_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    G, x = linear_generator(), digits_as_tensors().test[:23]
    starts = torch.randn(23, 2, G.latent, generator=draw())
    whole = nearest(G, x, starts, steps=20)
    monkeypatch.setattr("deepcheck.generators.projection._ROWS", 10)
    for ours, theirs in zip(nearest(G, x, starts, steps=20), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
