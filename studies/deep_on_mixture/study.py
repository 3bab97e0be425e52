"""The study deep_on_mixture: nets of different depth beside the theory of the linear classifier."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from odeflow import LearningRule, integrate, robustness_curve
from odeflow.parameters import LABELS
from odeflow.provenance import provenance
from studies.common.parallel import in_processes
from studies.common.tables import describe
from studies.deep_on_mixture.claims import claims, table
from studies.deep_on_mixture.committees import MANY, committees
from studies.deep_on_mixture.figures import figures
from studies.deep_on_mixture.measure import measure
from studies.deep_on_mixture.plan import END, LINES, RULE, TEST, TESTS, Setting, settings
from studies.registry import Outcome

SEED = 20261121
STATE = ("R", "b", "error", "adversarial_error")


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    todo = settings(quick=quick)
    seeds = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(SEED).spawn(len(todo))]
    examples = 500 if quick else 1000
    points = in_processes(measure, [(setting, seed, examples) for setting, seed in zip(todo, seeds, strict=True)])
    parts = [one.merge(theories(setting, one)) for setting, one in zip(todo, points, strict=True)]
    data = xr.concat(parts, "setting", coords="all", data_vars="all", join="outer")
    data = described(data.merge(committees(quick=quick, seed=SEED + 1)))
    options: dict[str, Any] = {"settings": [asdict(one) for one in todo], "test_examples": examples, "tests": TESTS}
    data.attrs = provenance(f"studies.{name}", RULE, seed=str(SEED), **options)
    return Outcome(data, figures(data), table(data), tuple(claims(data)))


def theories(setting: Setting, points: xr.Dataset) -> xr.Dataset:
    """Return the seed model with the seed's rates, and the mean over the nets of that with each net's own rates.

    Nets that have learned before start with their R_eff and b_eff; others with R = 0 and, with their own rates, b_eff.
    """
    R, b = points.R_eff.values[0] * setting.warm, points.b_eff.values[0]
    seed = _theory(setting, RULE, float(R.mean()), float(b.mean()) * setting.warm)
    each = [
        _theory(setting, LearningRule(eta_w=float(eta_w), eta_b=float(eta_b)), float(R0), float(b0))
        for eta_w, eta_b, R0, b0 in zip(points.own_eta_w, points.own_eta_b, R, b, strict=True)
    ]
    own = xr.concat(each, "run").mean("run")
    return seed.merge(own.rename({name: f"own_{name}" for name in own.data_vars}))


def _theory(setting: Setting, rule: LearningRule, R0: float, b0: float) -> xr.Dataset:
    """Return R, b, E and S over alpha, and the robustness curve at the end."""
    mixture, _, adversary = setting.model
    state = integrate(mixture, rule, adversary, alpha=LINES, R0=R0, b0=b0, test_epsilon=TEST)
    final = state.sel(alpha=END)
    lines = xr.Dataset({name: ("theory_alpha", state[name].values) for name in STATE})
    lines["size_b"] = abs(lines.b)
    lines["curve"] = "test_epsilon", robustness_curve(float(final.R), float(final.b), mixture, list(TESTS)).values
    return lines.assign_coords(theory_alpha=LINES, test_epsilon=list(TESTS))


def described(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    of = ", theory with the seed's learning rates", ", theory with the nets' own learning rates, mean over nets"
    names = {name: LABELS[name][0] for name in (*STATE, "N", "p", "epsilon", "run", "runs", "alpha", "test_epsilon")}
    names |= {"size_b": "size of the bias", "curve": f"adversarial error at alpha = {END:g}"}
    names |= {f"own_{name}": names[name] + of[1] for name in (*STATE, "size_b", "curve")}
    names |= {name: names[name] + of[0] for name in (*STATE, "size_b", "curve")}
    names |= {
        "measured_error": "classification error on the test examples",
        "measured_adversarial_error": f"adversarial error at test epsilon {TEST:g}; of deep nets measured with PGD",
        "measured_curve": f"measured adversarial error at alpha = {END:g}",
        "R_eff": "mean cosine of the angle between the margin's gradient and the direction of the centres",
        "R_mean_gradient": "cosine of the angle between the mean gradient and the direction of the centres",
        "b_eff": "effective bias",
        "coherence": "length of the mean of the gradients' directions",
        "gradient_norm": "mean length of the margin's gradient",
        "zero_gradients": "share of test examples with a gradient of zero",
        "overlap_prediction": "adversarial error that the theory gives for R_eff and b_eff",
        "gaussian_prediction": "adversarial error that Gaussian margins in units of the gradient's length give",
        "local_prediction": "share of test examples whose margin over the gradient's length is below the test epsilon",
        "exact_R": "overlap of a linear net",
        "exact_b": "bias of a linear net",
        "exact_error": "classification error of a linear net, from its overlap and bias",
        "exact_adversarial_error": f"adversarial error of a linear net at test epsilon {TEST:g}, from overlap and bias",
        "own_eta_w": "learning rate eta_w of the linear nets that move as these nets do at the start",
        "own_eta_b": "learning rate eta_b of the linear nets that move as these nets do at the start",
        "setting": "what learns from what",
        "net": "kind of net",
        "training": "kind of training",
        "theory_alpha": LABELS["alpha"][0],
        "committee_measured": "order parameters of two-layer nets by the theory's rule, and errors at the end",
        "committee_theory": "the two-layer theory",
        "committee": "hidden units, and attack",
        "committee_alpha": LABELS["alpha"][0],
        "committee_run": "run",
        "committee_N": LABELS["N"][0],
        "committee_attack": "attack",
        "entry": "what is compared: an order parameter with its units, or an error",
        "hidden": "number of hidden units",
        "units": "hidden unit",
        "many_measured": f"means over the units of like sign, of nets with {MANY} ReLU units",
        "many_reduced": "the same by reduced simulation",
        "many_standard": "the same by reduced simulation without an attack",
        "many_run": "run",
        "many_N": LABELS["N"][0],
        "group": "what is averaged: an overlap and the signs of the output weights",
    }
    describe(data, {str(name): names[str(name)] for name in data.variables})
    return data
