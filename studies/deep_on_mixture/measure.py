"""What is measured of nets that learn from the mixture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.match import margins, match, measured_curve, predicted_curve
from deepcheck.training.online import draw, train_online
from deepcheck.training.stacked import StackedNets
from odeflow import Adversary, GaussianMixture, LearningRule, adversarial_error
from studies.deep_on_mixture.plan import ALPHA, END, LONGER, NETS, STEPS, TEST, TESTS, WARM, Setting

__all__ = ["curve", "evaluate", "measure", "own_rates"]

Array = npt.NDArray[np.float64]


def measure(setting: Setting, seed: int, examples: int) -> xr.Dataset:
    """Return what is measured in a setting, with `examples` test examples for each net."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"N": setting.N, "runs": setting.runs, "hidden": NETS[setting.net]}
    options |= {"attack": setting.attack, "generator": generator}
    mixture, rule, adversary = setting.model
    xi, tau = draw(mixture, (setting.runs, examples), setting.N, generator)
    if setting.warm:
        ((_, options["initial"]),) = train_online(mixture, rule, Adversary(), alpha=[WARM], **options)

    alpha = ALPHA + LONGER * (setting.longer or setting.warm)
    found: list[dict[str, float]] = []
    for time, nets in train_online(mixture, rule, adversary, alpha=alpha, **options):
        if time == 0:
            rates = own_rates(nets, rule, generator)
        tests = [(nets.net(run), xi[run], tau[run, :, 0]) for run in range(setting.runs)]
        found += [evaluate(*one, mixture, generator) for one in tests]
        if time == END:
            curves = [curve(*one, TESTS, generator) for one in tests]
    shape = len(alpha), setting.runs
    points = xr.Dataset({k: (("alpha", "run"), np.reshape([one[k] for one in found], shape)) for k in found[0]})
    points["measured_curve"] = ("run", "test_epsilon"), curves
    points["own_eta_w"], points["own_eta_b"] = ("run", rates[0]), ("run", rates[1])
    return points.assign_coords(
        alpha=list(alpha), test_epsilon=list(TESTS), run=np.arange(setting.runs), setting=str(setting), N=setting.N, p=setting.p,
        net=setting.net, training=setting.training, epsilon=setting.epsilon, runs=setting.runs,
    )  # fmt: skip


def evaluate(
    net: nn.Sequential, xi: Tensor, tau: Tensor, mixture: GaussianMixture, generator: torch.Generator
) -> dict[str, float]:
    """Return what is measured of a net, and its adversarial error at the test epsilon as three theories predict it."""
    B = torch.eye(1, xi.shape[1])[0]
    found = match(net, xi, tau, epsilon=[0.0, TEST], norm="l2", directions={"B": B}).sel(direction="B")
    error, adversarial = curve(net, xi, tau, (0.0, TEST), generator)
    R, b = float(found.R_eff), float(found.b_eff)
    result = {
        "measured_error": error,
        "measured_adversarial_error": adversarial,
        "R_eff": R,
        "R_mean_gradient": float(found.R_mean_gradient),
        "b_eff": b,
        "coherence": float(found.coherence),
        "gradient_norm": float(found.gradient_norm.mean()),
        "zero_gradients": float(found.zero_gradients) / len(xi),
        "overlap_prediction": float(adversarial_error(R, b, mixture, TEST)),
        "gaussian_prediction": float(found.gaussian[1]),
        "local_prediction": float(found.locally_linear[1]),
    }
    first = net[0]
    assert isinstance(first, nn.Linear)
    exact = (first.weight[0, 0].item(), -first.bias[0].item()) if len(net) == 1 else (np.nan, np.nan)
    result |= dict(zip(("exact_R", "exact_b"), exact, strict=True))
    for key, epsilon in (("exact_error", 0.0), ("exact_adversarial_error", TEST)):
        result[key] = float(adversarial_error(*exact, mixture, epsilon))
    return result


def curve(net: nn.Sequential, xi: Tensor, tau: Tensor, epsilon: tuple[float, ...], generator: torch.Generator) -> Array:
    """Return the adversarial error of a net: exact for a linear one, else measured with PGD."""
    if len(net) == 1:
        exact: Array = predicted_curve(margins(net, xi, tau, norm="l2"), epsilon).locally_linear.values
        return exact
    options: dict[str, Any] = {"norm": "l2", "bounds": (-np.inf, np.inf), "steps": STEPS, "generator": generator}
    found: Array = measured_curve(net, xi, tau, epsilon=epsilon, **options).adversarial_error.values
    return found


def own_rates(nets: StackedNets, rule: LearningRule, generator: torch.Generator, examples: int = 1000) -> Array:
    r"""Return the learning rates (eta_w, eta_b) of the linear nets that move as these nets do, shape (2, nets).

    A linear net that is pulled by delta at standard normal examples changes its margins in the learning time
    d alpha by :math:`\eta_b\langle\delta\rangle + \eta_w\langle\delta\,\xi\rangle\cdot\xi`. So eta_b is the mean
    change for delta = 1, and eta_w the change along :math:`\xi\cdot B` for delta = :math:`\xi\cdot B`. Approximate: from
    random examples, and standard normal ones in the place of the mixture's.
    """
    N, short = nets.weights[0].shape[2], 1e-3
    first, second = (torch.randn(len(nets), examples, N, generator=generator).double() for _ in range(2))
    rates = []
    for pull, seen in ((first[..., :1], second[..., :1]), (torch.ones(()), torch.ones(()))):
        copy = StackedNets([W.double() for W in nets.weights], [c.double() for c in nets.biases])
        before = copy.forward(second)[0]
        delta = (pull.double() / examples).expand_as(before)
        copy.step(copy.forward(first)[1], delta, short * rule.eta_w, short * rule.eta_b)
        change = (copy.forward(second)[0] - before) / short
        rates.append((change * seen).mean((1, 2)).numpy())
    return np.array(rates)
