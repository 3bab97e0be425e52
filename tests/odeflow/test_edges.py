"""At the ends of what a model may hold: an answer in its range, a status, or one line; no nan, no warning."""

from typing import Any

import numpy as np
import pytest

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    fixed_points,
    integrate,
    integrate_batch,
    jacobian,
    optimal_classifier,
    rates,
    robustness_curve,
)
from odeflow.model import MOST


def random_model(rng: np.random.Generator) -> tuple[GaussianMixture, LearningRule, Adversary]:
    """Return a model with log-uniform parameters, sometimes at the end of a range, with equal variances, or without rho."""

    def size() -> float:
        return float(MOST ** (rng.uniform(-1, 1) if rng.random() < 0.9 else rng.choice([-1.0, 1.0])))

    small = float(10 ** rng.uniform(-9, -0.31))
    v1, v2 = size(), size()
    mixture = GaussianMixture(
        float(rng.choice([0.5, small, 1 - small])),
        size() if rng.random() < 0.95 else 0.0,
        v1,
        v1 if rng.random() < 0.3 else v2,
    )
    rule = LearningRule(size(), size(), second_order=bool(mixture.rho == 0 or rng.random() < 0.7))
    return mixture, rule, Adversary(size() if rng.random() < 0.9 else 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_random_models(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(40):
        model = random_model(rng)
        mixture, _, adversary = model
        points = fixed_points(*model)
        assert np.all(np.abs(points.R) <= 1)
        for name in ("b", "eigenvalues", "error", "adversarial_error"):
            assert np.all(np.isfinite(points[name])), (name, model)
        best = optimal_classifier(mixture, adversary.epsilon)
        assert 0 <= float(best.adversarial_error) <= min(mixture.p, 1 - mixture.p) + 1e-12, model
        curve = robustness_curve(rng.uniform(-1, 1), rng.normal() * 1e3, mixture)
        assert np.all(np.diff(curve) >= -1e-15)
        assert np.all(np.isfinite(rates(0.5, 0.1, *model)))
        assert np.all(np.isfinite(jacobian(0.5, 0.1, *model)))
        run = integrate(*model, alpha=[1.0, 100.0], max_steps=2000, on_failure="return")
        assert int(run.status) != 0 or np.all(np.isfinite(run.b) & (np.abs(run.R) <= 1 + 1e-6)), model


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("v1", (1e-310, 0.0, 1e300, np.inf, np.nan)),
        ("v2", (1e300, -1.0)),
        ("rho", (1e200, -1.0)),
        ("epsilon", (1e200, -1.0)),
        ("eta_w", (1e200, -1.0)),
        ("eta_b", (1e200, -1.0)),
    ],
)
def test_a_model_outside_is_refused_by_range(name: str, values: tuple[float, ...]) -> None:
    parts: dict[str, Any] = {"rho": GaussianMixture, "v1": GaussianMixture, "v2": GaussianMixture, "epsilon": Adversary}
    for value in values:
        with pytest.raises(ValueError, match=f"{name} = .* is out of range: allowed is a finite number"):
            parts.get(name, LearningRule)(**{name: value})
        with pytest.raises(ValueError, match=f"{name} = .* is out of range"):
            integrate_batch(alpha=[1.0], **dict[str, Any]({name: value}))


def test_an_error_at_rest_is_no_dip(monkeypatch: pytest.MonkeyPatch) -> None:
    # the error's last bit goes up and down there, and each of a thousand such dips was searched
    from odeflow.fixed_points import relaxation

    looks = []

    def counted(*model: Any, **options: Any) -> Any:
        looks.append(model)
        return integrate(*model, **options)

    monkeypatch.setattr(relaxation, "integrate", counted)
    mixture = GaussianMixture(0.16826979584266513, 2.353770266508453, 1.3012389454881117, 3.6754682588493313)
    rule = LearningRule(1.0913989360765854, 1.105491831371871, second_order=False)
    assert relaxation.learning_time(mixture, rule, Adversary(22.88), error=0.1, alpha_max=100.0) == np.inf
    assert len(looks) <= 3
