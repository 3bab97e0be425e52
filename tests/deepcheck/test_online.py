"""Online learning: stacked nets against automatic differentiation, and the linear one against the seed model."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from deepcheck.data import load, mixture_classes, two_class_images, two_classes
from deepcheck.training.online import draw, train_online
from deepcheck.training.stacked import StackedNets
from odeflow import Adversary, GaussianMixture, LearningRule, adversarial_error, integrate
from odeflow.laws import Uniform


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[(), (7,), (7, 5)], ids=str)
def nets(request: pytest.FixtureRequest) -> StackedNets:
    result = StackedNets.random(3, (6, *request.param), seeded(), torch.float64)
    for c in result.biases:
        c += torch.randn(c.shape, generator=seeded(1), dtype=c.dtype) / 3
    return result


def test_margins_and_gradients_are_those_of_autograd(nets: StackedNets) -> None:
    xi = torch.randn(3, 4, 6, generator=seeded(2), dtype=torch.float64)
    x, inputs = nets.forward(xi)
    gradient = nets.gradient(inputs)
    for i in range(3):
        leaf = xi[i].clone().requires_grad_()
        margin = nets.net(i)(leaf)
        margin.sum().backward()
        torch.testing.assert_close(x[i], margin.detach())
        torch.testing.assert_close(gradient[i], leaf.grad)


def test_a_step_goes_along_the_gradient(nets: StackedNets) -> None:
    xi = torch.randn(3, 1, 6, generator=seeded(2), dtype=torch.float64)
    pull = torch.randn(3, 1, 1, generator=seeded(3), dtype=torch.float64)
    modules = [nets.net(i) for i in range(3)]
    nets.step(nets.forward(xi)[1], pull, 0.1, 0.3)
    for i, module in enumerate(modules):
        (pull[i] * module(xi[i])).sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=0.1 if parameter.ndim == 2 else 0.3)
        for expected, got in zip(module.parameters(), nets.net(i).parameters(), strict=True):
            torch.testing.assert_close(got, expected)


def test_scaling_scales_the_margin_and_keeps_the_last_bias(nets: StackedNets) -> None:
    xi = torch.randn(3, 4, 6, generator=seeded(2), dtype=torch.float64)
    last = nets.biases[-1].clone()
    before = nets.forward(xi)[0] - last
    factor = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    nets.scale(factor)
    torch.testing.assert_close(nets.biases[-1], last)
    torch.testing.assert_close(nets.forward(xi)[0] - last, factor[:, None, None] * before)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.5, 0.7])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_linear_net_is_the_seed_model(p: float, normalised: bool) -> None:
    mixture, rule, adversary = GaussianMixture(p=p), LearningRule(normalised=normalised), Adversary(0.5)
    alpha = [0.0, 3.0, 10.0, 30.0]
    theory = integrate(mixture, rule, adversary, alpha=alpha)
    R, b = [], []
    for _, nets in train_online(mixture, rule, adversary, N=100, alpha=alpha, runs=40, generator=seeded(4)):
        w = nets.weights[0][:, 0].double().numpy()
        R.append(w[:, 0])
        b.append(-nets.biases[0][:, 0, 0].double().numpy())
        if normalised:
            np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1, rtol=1e-5)
    for found, expected in ((R, theory.R), (b, theory.b)):
        values = np.array(found)
        np.testing.assert_allclose(values[0], expected[0], atol=1e-6)
        error = values[1:].std(axis=1, ddof=1) / math.sqrt(40)
        assert (abs(values[1:].mean(axis=1) - expected.values[1:]) < 4 * error + 1 / 100).all()


def test_pgd_is_fgsm_for_a_linear_net_and_not_for_a_deep_one() -> None:
    def final(attack: Any, hidden: tuple[int, ...]) -> StackedNets:
        model = GaussianMixture(p=0.7), LearningRule(), Adversary(0.5)
        (found,) = train_online(*model, N=20, alpha=[10], runs=2, generator=seeded(), hidden=hidden, attack=attack)
        return found[1]

    torch.testing.assert_close(final("pgd", ()).weights[0], final("fgsm", ()).weights[0], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(final("pgd", (8,)).weights[0], final("fgsm", (8,)).weights[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_deep_nets_learn_and_keep_the_length_of_their_gradient() -> None:
    mixture = GaussianMixture()
    for _, nets in train_online(
        mixture, LearningRule(eta_w=0.2), Adversary(), N=50, alpha=[0, 200], runs=5, generator=seeded(), hidden=(20,)
    ):
        xi, tau = draw(mixture, (5, 1000), 50, seeded(1))
        x, inputs = nets.forward(xi)
        error = (tau * x < 0).double().mean()
        length = nets.gradient(inputs).norm(dim=2).mean()
    assert error < 0.22  # the best is 0.159
    assert abs(length - 1) < 0.15


def test_learning_goes_on_from_given_nets_and_leaves_them_as_they_are() -> None:
    model = GaussianMixture(p=0.7), LearningRule(), Adversary(0.5)
    options: dict[str, Any] = {"N": 20, "runs": 3, "hidden": (5,)}
    ((_, first),) = train_online(*model, alpha=[64.0], generator=seeded(), **options)
    kept = [W.clone() for W in first.weights + first.biases]
    start, later = (
        [W.clone() for W in nets.weights + nets.biases]
        for _, nets in train_online(*model, alpha=[0.0, 5.0], generator=seeded(1), initial=first, **options)
    )
    for given, now, W, moved in zip(kept, first.weights + first.biases, start, later, strict=True):
        torch.testing.assert_close(now, given, rtol=0, atol=0)
        torch.testing.assert_close(W, given, rtol=0, atol=0)
        assert not torch.equal(moved, given)
    for changes in ({"runs": 2}, {"hidden": (6,)}, {"hidden": ()}, {"N": 21}):
        with pytest.raises(ValueError, match=r"initial has \(runs, N, \*hidden\) = \(3, 20, 5\): allowed is"):
            next(train_online(*model, alpha=[1.0], generator=seeded(), initial=first, **(options | changes)))
    with pytest.raises(TypeError, match="initial"):
        next(train_online(*model, alpha=[1.0], generator=seeded(), initial=[first], **options))  # type: ignore[arg-type]


def test_the_mixture_as_it_should_be() -> None:
    mixture = GaussianMixture(p=0.7, rho=3.0, v1=0.5, v2=2.0)
    pair = mixture_classes(mixture, N=4, train=20_000, test=100, rng=1)
    xi, tau = draw(mixture, (20_000,), 4, seeded())
    for X, y in ((pair.X_train, pair.y_train), (xi.double().numpy(), tau[:, 0].numpy())):
        assert abs((y > 0).mean() - 0.7) < 0.02
        for label, variance in ((1, 0.5), (-1, 2.0)):
            one = X[y == label]
            np.testing.assert_allclose(one.mean(axis=0), [label * 1.5, 0, 0, 0], atol=0.08)
            np.testing.assert_allclose(np.cov(one.T), variance * np.eye(4), atol=0.12)
    assert pair.N == 4
    assert adversarial_error(1.0, 0.0, mixture, 0.5) == pytest.approx(
        (pair.y_train * pair.X_train[:, 0] < 0.5).mean(), abs=0.01
    )


def test_two_classes_as_images() -> None:
    digits = load("digits")
    images, pair = two_class_images(digits, 3, 7), two_classes(digits, 3, 7, centre=False)
    assert images.name == pair.name == "digits 3 vs 7"
    np.testing.assert_allclose(images.test_images.reshape(len(images.test_images), -1) / 255, pair.X_test)
    np.testing.assert_array_equal(2 * images.test_labels - 1, pair.y_test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"N": 1}, "N = 1 is out of range"),
        ({"runs": 0}, "runs = 0"),
        ({"hidden": (0,)}, "hidden = 0"),
        ({"attack": "pdg"}, "did you mean 'pgd'"),
        ({"attack": "pgd", "steps": 0}, "steps = 0"),
        ({"alpha": [2.0, 1.0]}, "alpha"),
        ({"rule": LearningRule(loss="hinge")}, "allowed are the squared loss"),
        ({"rule": LearningRule(label_noise=0.1)}, "label_noise = 0.1: allowed for these nets is 0.0"),
        ({"rule": LearningRule(batch=4)}, "batch = 4.0: allowed for these nets is 1.0"),
        ({"adversary": Adversary(1.0, epsilon_ratio=0.5)}, "epsilon_ratio = 0.5: allowed for these nets"),
        ({"adversary": Adversary(1.0, attack="blind")}, "attack = 'blind'"),
        ({"adversary": Adversary(1.0, fraction=0.5)}, "one epsilon, for all examples"),
        ({"adversary": Adversary(1.0, law=Uniform(0, 1))}, "one epsilon, for all examples"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"mixture": GaussianMixture(), "rule": LearningRule(), "adversary": Adversary()}
    options |= {"N": 10, "alpha": [1.0], "runs": 2, "generator": seeded()}
    with pytest.raises(ValueError, match=message):
        next(train_online(**(options | changes)))
