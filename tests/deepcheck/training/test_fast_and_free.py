"""Fast and free adversarial training: what they follow, and when the one step is overfitted."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck import checkpoint, models
from deepcheck.attacks.draws import Draws, mixed
from deepcheck.attacks.pgd import PGD, fgsm
from deepcheck.attacks.starts import Zero
from deepcheck.data import Images, load
from deepcheck.training import METHODS, Recipe, recipe, train
from deepcheck.training.methods.fast_at import FastAT
from deepcheck.training.methods.free_at import FreeAT
from deepcheck.training.methods.overfitting import overfitted, seen_overfitting
from deepcheck.training.parallel import Group
from deepcheck.training.step import Learner
from tests.deepcheck.linear_nets import near
from tests.deepcheck.training.cases import BEST, REPORT, same, tiny, weights


def small(seed: int = 0) -> nn.Module:
    """A smooth net, whose gradient is nowhere 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Softplus(), nn.Linear(20, 4))


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 8, 8, generator=source), torch.randint(4, (n,), generator=source)


# --- fast ---


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("starts", ["random", "image"])
def test_fast_training_takes_one_step_of_five_quarters(norm: Any, starts: Any) -> None:
    method = FastAT(norm=norm, epsilon=0.2, starts=starts)
    net, (x, y) = small(), batch()
    loss = method.loss(net, x, y, progress=0.5, generator=torch.Generator().manual_seed(3), state=None)
    key, epsilon = method.drawn(x, progress=0.5, generator=torch.Generator().manual_seed(3))
    assert epsilon == 0.2
    draws = Draws(mixed(mixed(key, 0), 0))
    if starts == "image":
        d = torch.zeros_like(x)
    elif norm == "linf":
        d = 0.2 * draws.symmetric(x)
    else:
        direction = F.normalize(draws.normal(x).flatten(1), dim=1)
        d = (0.2 * direction * draws.uniform(x)[:, None] ** (1 / 64)).view_as(x)
    z = (x + d).clamp(0, 1).requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(net(z), y), z)
    with torch.no_grad():
        if norm == "linf":
            z = torch.minimum(torch.maximum(z + 0.25 * g.sign(), x - 0.2), x + 0.2).clamp(0, 1)
        else:
            far = z - x + 0.25 * F.normalize(g.flatten(1), dim=1).view_as(x)
            low, high = (
                torch.zeros(len(x)),
                torch.ones(len(x)),
            )  # the share s of clip(s far) that is 0.2 long, by bisection
            for _ in range(60):
                s = (low + high) / 2
                length = ((x + s[:, None, None, None] * far).clamp(0, 1) - x).flatten(1).norm(dim=1)
                low, high = torch.where(length <= 0.2, s, low), torch.where(length <= 0.2, high, s)
            z = (x + low[:, None, None, None] * far).clamp(0, 1)
        torch.testing.assert_close(loss, F.cross_entropy(net(z), y), rtol=1e-5, atol=1e-6)


def test_on_a_linear_net_one_step_from_the_image_is_the_worst() -> None:
    """The margin falls by epsilon |w|_1; from a random start a step of 2 epsilon is needed to be sure of that."""
    net, x, y = near(8, edges=False)
    epsilon = 0.02  # no pixel meets the bounds
    f = net(x).diff(dim=1).squeeze(1) * (2 * y - 1)
    worst = F.softplus(epsilon * net.w.abs().sum() - f).mean()
    for options in ({"starts": "image", "relative_step": 1.0}, {"relative_step": 2.0}):
        method = FastAT(epsilon=epsilon, **options)
        loss = method.loss(net, x, y, progress=0.0, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(loss, worst.float(), rtol=1e-5, atol=1e-6)
    loss = FastAT(epsilon=epsilon).loss(net, x, y, progress=0.0, generator=torch.Generator().manual_seed(0))
    assert bool(loss < worst)


@pytest.mark.parametrize("name", ["fast_at", "free_at"])
def test_without_a_radius_it_is_standard_training(name: str, digits: Images, tmp_path: Path) -> None:
    options = {"repeats": 1} if name == "free_at" else {}
    one = Recipe(method=METHODS[name](epsilon=0.0, **options), model="linear", epochs=1, batch_size=32, validation=100)  # type: ignore[call-arg]
    plain = train(tiny(epochs=1, learning_rate=one.learning_rate), digits, out=tmp_path / "plain", device="cpu")
    assert same(weights(train(one, digits, out=tmp_path / "own", device="cpu")), weights(plain))


def test_the_radius_ramps_up() -> None:
    method = FastAT(epsilon=0.3, ramp=0.5)
    assert [method.epsilon_at(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.15, 0.3, 0.3]
    assert FastAT(epsilon=0.3).epsilon_at(0.0) == 0.3


# --- catastrophic overfitting ---

OVERFITTING: dict[str, Any] = {
    "model": "conv_small", "width": 1, "epochs": 30, "batch_size": 32, "learning_rate": 0.1, "validation": 200,
    "epsilon": 0.25, "ramp": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def all_digits() -> Images:
    return load("digits")


@pytest.mark.slow
def test_a_net_that_overfits_its_one_step_is_seen_and_the_training_ends(
    all_digits: Images, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A step of epsilon from the image, at a large radius: PGD finds what the fast gradient method does not.

    The accuracy under PGD has collapsed from what it was, that under the one step has not. The result is the net of the best
    epoch at the full radius, which the ramp has not reached before the ninth.
    """
    caplog.set_level(logging.WARNING)
    one = recipe("digits", "fast_at", **OVERFITTING, relative_step=1.0, starts="image", when_overfitted="stop")
    trained = train(one, all_digits, out=tmp_path, device="cpu")
    *before, last = trained.history
    assert trained.finished
    assert len(trained.history) < 30
    assert [row["overfitted"] for row in trained.history] == [0.0] * len(before) + [1.0]
    assert last["pgd_accuracy"] < 0.5 * last["trained_attack_accuracy"]
    best = max(trained.history, key=lambda row: row["robust_accuracy"])
    assert last["trained_attack_accuracy"] > 0.25  # by chance 0.1, within a standard error of 0.03
    robust = [row for row in before if row["pgd_accuracy"] > 0.8 * row["trained_attack_accuracy"]]
    assert last["pgd_accuracy"] < 0.5 * max(row["pgd_accuracy"] for row in robust)  # it was, and has collapsed
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("catastrophic overfitting: at epsilon = 0.2")
    assert json.loads((tmp_path / REPORT).read_bytes())["history"] == trained.history
    assert trained.checkpoint == tmp_path / BEST
    assert checkpoint.read(trained.checkpoint)[1]["epoch"] == best["epoch"]
    again = train(one, all_digits, out=tmp_path, device="cpu", resume=True)
    assert again.history == trained.history  # it is over


@pytest.mark.slow
def test_a_net_of_many_steps_has_not_overfitted(all_digits: Images, tmp_path: Path) -> None:
    """The same net at the same radius, trained with steps of PGD: the one step finds about what ten steps do."""
    at = recipe("digits", "at", **OVERFITTING | {"epochs": 15}, attack_steps=5, step_size=0.1)
    network = train(at, all_digits, out=tmp_path, device="cpu").network
    x, y = torch.tensor(all_digits.train_images[-200:]).float() / 255, torch.tensor(all_digits.train_labels[-200:])
    source = torch.Generator().manual_seed(0)
    seen = seen_overfitting(network, x, y, fgsm(), epsilon=0.25, share=0.5, generator=source)
    assert seen["overfitted"] == 0.0
    assert seen["pgd_accuracy"] > 0.3  # it has learned to withstand something


class Flat(nn.Module):
    """Three classes by the first pixel: class 0 within 0.02 of 0.5, where there is no slope towards the edges, and then class 1."""

    def forward(self, x: Tensor) -> Tensor:
        v = x.flatten(1)[:, 0]
        wall = 20 * torch.relu((v - 0.5).abs() - 0.02)
        return torch.stack([0.01 * (v - 0.5), wall - 0.1, torch.full_like(v, -9.0)], 1)


def test_the_share_decides_what_is_called_overfitted() -> None:
    """A net that the step of the training does not turn, and PGD from random starts does."""
    net = Flat()
    x, y = torch.full((50, 1, 2, 2), 0.5), torch.zeros(50, dtype=torch.int64)
    attack = PGD("linf", steps=1, relative_step_size=0.01, start=Zero(), keep="last", stop_when_reached=False)
    for share, verdict in ((0.5, 1.0), (0.0, 0.0)):
        seen = seen_overfitting(
            net,
            x,
            y,
            attack,
            epsilon=0.2,
            share=share,
            generator=torch.Generator().manual_seed(0),
        )
        assert seen["trained_attack_accuracy"] == 1.0
        assert seen["pgd_accuracy"] < 0.5
        assert seen["overfitted"] == verdict
        assert overfitted([{}, seen]) is bool(verdict)
    assert not overfitted([{"loss": 1.0}])
    assert not FastAT().ends([{"overfitted": 1.0}])
    assert FastAT(when_overfitted="stop").ends([{"overfitted": 1.0}])
    assert not FastAT(when_overfitted="stop").ends([{"overfitted": 1.0}, {"overfitted": 0.0}])


def test_looking_changes_no_weight(digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe("digits", "fast_at", model="linear", epochs=2, validation=100, augmentation="crop", padding=1)
    looked = train(one, digits, out=tmp_path / "looked", device="cpu")
    monkeypatch.setattr(FastAT, "after_epoch", lambda *_, **__: {})
    assert same(weights(train(one, digits, out=tmp_path / "not", device="cpu")), weights(looked))


# --- free ---


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_free_training_moves_weights_and_images_by_one_gradient(norm: Any) -> None:
    """Two batches, two steps on each, against the same written out; what was found for one batch is kept for the next."""
    epsilon, rate = 0.1, 0.1
    one = recipe(
        "digits", "free_at", model="linear", batch_size=6, learning_rate=rate, momentum=0.0, weight_decay=0.0,
        schedule="constant", norm=norm, epsilon=epsilon, repeats=2,
    )  # fmt: skip
    net = models.build("linear", 4, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    own = models.build("linear", 4, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    learner = Learner(one, net.train(), torch.Generator().manual_seed(0), Group())
    d = torch.zeros(6, 1, 8, 8)
    for shift in (0.0, 0.2):
        x, y = batch()
        x = (x + shift).clamp(0, 1)
        for _ in range(2):
            learner.step(net, x, y, 0.5)
            d = d.detach().requires_grad_()
            parameters = list(own.parameters())
            *by_weights, by_d = torch.autograd.grad(F.cross_entropy(own((x + d).clamp(0, 1)), y), [*parameters, d])
            with torch.no_grad():
                for weight, gradient in zip(parameters, by_weights, strict=True):
                    weight.sub_(gradient, alpha=rate)
                if norm == "linf":
                    d = (d + epsilon * by_d.sign()).clamp(-epsilon, epsilon)
                else:
                    d = d + epsilon * F.normalize(by_d.flatten(1), dim=1, eps=1e-30).view_as(d)
                    d = d * (epsilon / d.flatten(1).norm(dim=1).clamp(min=1e-30)).clamp(max=1.0)[:, None, None, None]
    for ours, theirs in zip(net.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert learner.state is not None
    torch.testing.assert_close(learner.state.get_buffer("delta").detach(), d, rtol=1e-4, atol=1e-6)


def test_a_free_epoch_makes_as_many_steps_as_m_epochs() -> None:
    assert FreeAT().replays() == 8
    assert FreeAT(repeats=3).replays() == 3


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (FastAT, {"epsilon": -0.1}, r"epsilon = -0\.1"),
        (FastAT, {"relative_step": 0.0}, r"relative_step = 0"),
        (FastAT, {"ramp": 1.5}, r"ramp = 1\.5"),
        (FastAT, {"collapse": 2.0}, r"collapse = 2"),
        (FastAT, {"when_overfitted": "halt"}, r"when_overfitted = 'halt' is unknown.*warn, stop"),
        (FastAT, {"starts": "images"}, r"starts = 'images' is unknown \(did you mean 'image'\?\)"),
        (FastAT, {"norm": "l1"}, r"norm = 'l1' is unknown"),
        (FreeAT, {"repeats": 0}, r"repeats = 0"),
        (FreeAT, {"relative_step": -1.0}, r"relative_step = -1"),
        (FreeAT, {"norm": "l0"}, r"norm = 'l0' is unknown"),
    ],
)
def test_what_is_out_of_range_is_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)
