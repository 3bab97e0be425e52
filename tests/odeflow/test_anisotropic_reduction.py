"""The optimum in L2 of a large problem, found in a subspace, is that of the whole problem."""

from __future__ import annotations

import math

import numpy as np
import pytest

from odeflow.anisotropic import Mixture, adversarial_error, optimal, optimal_classifier

N = 120


def images(*, shared: bool = False, seed: int = 0) -> Mixture:
    """Return two classes with a spectrum like that of images, each in axes of its own."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, N + 1) ** -1.5
    bases = [np.linalg.qr(rng.standard_normal((N, N)))[0] for _ in range(2)]
    covariances = np.stack([(Q * spectrum * scale) @ Q.T for Q, scale in zip(bases, (1.0, 1.5), strict=True)])
    covariances = (covariances + covariances.swapaxes(1, 2)) / 2
    if shared:
        covariances[1] = covariances[0]
    mean = 0.05 * rng.standard_normal(N)
    return Mixture(0.45, np.stack([mean, -mean]), covariances)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("strength", [0.1, 0.3, 0.7, 0.95])
def test_the_subspace_gives_what_the_whole_gives(
    strength: float, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = images(shared=shared)
    epsilon = strength * float(np.linalg.norm(mixture.means[0]))
    whole = optimal_classifier(mixture, epsilon)
    monkeypatch.setattr(optimal, "_LARGE", 100)
    monkeypatch.setattr("odeflow.anisotropic.reduction._FIRST", 3)  # so that it has to grow
    monkeypatch.setattr("odeflow.anisotropic.reduction._LATER", 2)
    found = optimal._Problem(mixture, epsilon, "l2", 1e-6).by_subspace()
    assert found is not None or strength == 0.1  # at a small epsilon the subspace is most of the space
    best = optimal_classifier(mixture, epsilon)
    # the margin is known to 1e-6, and S falls as exp(-M^2 / 2)
    assert float(best.adversarial_error) == pytest.approx(float(whole.adversarial_error), rel=3e-5)
    assert float(best.w @ whole.w) == pytest.approx(1, abs=1e-5)
    assert float(best.b) == pytest.approx(float(whole.b), rel=1e-3, abs=1e-5)
    exact = float(adversarial_error(best.w, best.b, mixture, epsilon, "l2"))
    assert float(best.adversarial_error) == pytest.approx(exact, rel=1e-9)
    assert math.isnan(float(best.gap)) == math.isnan(float(whole.gap))
    if not math.isnan(float(best.gap)):
        assert 0 <= float(best.gap) <= 1e-6


@pytest.mark.slow
def test_a_large_problem_has_a_certificate() -> None:
    rng, size = np.random.default_rng(1), 1200
    spectrum = np.arange(1, size + 1) ** -1.5
    Q = np.linalg.qr(rng.standard_normal((size, size)))[0]
    C = (Q * spectrum) @ Q.T
    C = (C + C.T) / 2
    mean = 0.05 * rng.standard_normal(size)
    mixture = Mixture(0.5, np.stack([mean, -mean]), np.stack([C, 1.2 * C]) * 100)
    epsilon = 0.3 * float(np.linalg.norm(mean))
    best = optimal_classifier(mixture, epsilon)
    assert 0 <= float(best.gap) <= 1e-6
    # no classifier of the family that the optimum belongs to has a smaller error
    for kappa in np.geomspace(1e-3, 1, 7):
        w = np.linalg.solve(C + kappa * np.eye(size), mean)
        w /= np.linalg.norm(w)
        biases = float(best.b) + np.linspace(-0.3, 0.3, 61)
        S = adversarial_error(np.broadcast_to(w, (61, size)), biases, mixture, epsilon, "l2")
        assert S.min() > float(best.adversarial_error) * (1 - 1e-9)
