"""The theory in the report's explorer, which is JavaScript, against the package."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import erfc

import studies
from odeflow import Adversary, GaussianMixture, LearningRule, integrate, robustness_curve
from odeflow.order_parameters.perceptron.averages import delta, delta_squared

NODE = shutil.which("node")
EXPLORER = Path(studies.__file__).parent / "report" / "explorer.js"
ALPHA = np.linspace(0, 100, 21)

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node to run the explorer's JavaScript")


def _node(expression: str, given: Any) -> Any:
    """Return what a JavaScript expression in `Explorer` and `given` gives; what is not finite comes back as None."""
    script = (
        f"const Explorer = require({json.dumps(str(EXPLORER))});"
        "const given = JSON.parse(require('fs').readFileSync(0));"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    assert NODE is not None
    run = subprocess.run(
        [NODE, "-e", script], input=json.dumps(given), capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def _random_models(count: int) -> list[dict[str, Any]]:
    """Return models from all over the ranges of the sliders."""
    rng = np.random.default_rng(20260701)

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    return [
        {
            "p": rng.uniform(0.01, 0.99),
            "rho": rng.uniform(0, 6),
            "v1": log_uniform(0.05, 10),
            "v2": log_uniform(0.05, 10),
            "epsilon": rng.uniform(0, 4),
            "eta_w": log_uniform(0.001, 5),
            "eta_b": log_uniform(0.001, 5),
            "second_order": bool(rng.random() < 0.8),
            "R0": rng.uniform(-1, 1),
            "b0": rng.uniform(-3, 3),
            "test": rng.uniform(0, 4),
        }
        for _ in range(count)
    ]


def test_trajectories_and_errors_agree_with_the_package() -> None:
    models = _random_models(200)
    found = _node(
        """given.models.map((model) => {
            const { R, b } = Explorer.integrate(model, given.alpha);
            const error = (epsilon) => R.map((_, i) => Explorer.adversarialError(R[i], b[i], model, epsilon));
            return [R, b, error(0), error(model.test)];
        })""",
        {"models": models, "alpha": ALPHA.tolist()},
    )
    for model, ours in zip(models, found, strict=True):
        expected = integrate(
            GaussianMixture(model["p"], model["rho"], model["v1"], model["v2"]),
            LearningRule(model["eta_w"], model["eta_b"], second_order=model["second_order"]),
            Adversary(model["epsilon"]),
            alpha=ALPHA, R0=model["R0"], b0=model["b0"], test_epsilon=model["test"],
        )  # fmt: skip
        for values, name in zip(ours, ("R", "b", "error", "adversarial_error"), strict=True):
            np.testing.assert_allclose(np.float64(values), expected[name], rtol=0, atol=1e-6, err_msg=f"{name} {model}")


def test_the_curves_that_are_drawn_agree_with_the_package() -> None:
    model = {"p": 0.7, "rho": 2.0, "v1": 1.0, "v2": 1.0, "epsilon": 1.0}
    curves = _node("Explorer.curves(given, { end: 100, testEpsilon: 1 })", model)
    mixture = GaussianMixture(p=0.7)
    expected = integrate(mixture, LearningRule(), Adversary(1.0), alpha=curves["alpha"])
    for ours, name in (("R", "R"), ("b", "b"), ("E", "error"), ("S", "adversarial_error")):
        np.testing.assert_allclose(curves[ours], expected[name], rtol=0, atol=1e-7)
    final = expected.isel(alpha=-1)
    curve = robustness_curve(float(final.R), float(final.b), mixture)
    np.testing.assert_allclose(curves["epsilon"], curve.epsilon, rtol=0, atol=1e-14)
    np.testing.assert_allclose(curves["robustness"], curve, rtol=0, atol=1e-7)


def test_erfc_is_double_precision() -> None:
    x = np.concatenate([np.linspace(-6, 6, 1201), np.linspace(6, 26, 101), [-40.0, 40.0, 0.0]])
    found = np.float64(_node("given.map(Explorer.erfc)", x.tolist()))
    expected = erfc(x)
    # a series of 26 terms, summed in double precision; and exp(-x^2) turns the rounding of x^2 into x^2 units more
    np.testing.assert_array_less(abs(found - expected), (10 + x**2) * 2.3e-16 * expected + 1e-300)


def test_the_averages_are_double_precision() -> None:
    m = np.linspace(-5, 5, 101)
    for v in (0.05, 0.5, 1.0, 10.0):
        given = {"v": v, "u": m.tolist()}
        average = "const one = Explorer.averages(given.v); return [given.u.map(one.first), given.u.map(one.second)];"
        first, second = _node(f"(() => {{ {average} }})()", given)
        np.testing.assert_allclose(first, delta(m, v, 1.0), rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(second, delta_squared(m, v, 1.0), rtol=1e-12, atol=1e-16)


def test_equal_classes_stay_symmetric() -> None:
    result = _node("Explorer.integrate(given, [0, 1000])", {"p": 0.5, "epsilon": 1.5})
    assert result["b"] == [0, 0]


def test_what_needs_too_many_steps_ends_with_what_was_reached() -> None:
    result = _node("Explorer.integrate(given, [0, 1, 1e6])", {"p": 0.7, "eta_w": 1000.0, "eta_b": 1000.0})
    assert result["reached"] < 1e6
    assert result["R"][0] == 0
    assert result["R"][-1] is None
    assert result["b"][-1] is None
