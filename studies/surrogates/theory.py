"""Errors of all learners in theory, and of runs at finite N."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow import Adversary, LearningRule, adversarial_error, integrate, simulate
from studies.surrogates.plan import ALPHA, EPSILON, LEARNERS, MIXTURE, RULES, SEED, TESTS, Plan

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["decay_of_pairing", "errors", "ranked_by_theory", "times_of"]

Array = npt.NDArray[np.float64]

_Q0 = 0.01  # free weights begin short, as those of nets


def times_of(plan: Plan) -> Array:
    """Return the times of the lines, of which the last is that of the ranking."""
    return np.geomspace(1.0, ALPHA, plan.times)


def errors(state: xr.Dataset, sizes: Array) -> Array:
    """Return the adversarial errors at sizes of the attack, along the last axis: those of the classifier, whatever its length."""
    length = np.sqrt(state.Q.values) if "Q" in state else np.ones_like(state.R.values)
    R, b = state.R.values / length, state.b.values / length
    return np.asarray(adversarial_error(np.clip(R, -1, 1)[..., None], b[..., None], MIXTURE, sizes), np.float64)


def _start(rule: LearningRule) -> dict[str, Any]:
    return {} if rule.normalised else {"Q0": _Q0}


def _line(parts: tuple[LearningRule, Adversary], alpha: Array) -> xr.Dataset:
    return integrate(MIXTURE, *parts, alpha=alpha, **_start(parts[0]))


def ranked_by_theory(plan: Plan) -> dict[str, Any]:
    """Return the variables of the theory: errors over time, those without what is each learner's own, and errors of runs."""
    alpha, sizes = times_of(plan), np.array([0.0, *TESTS]) * EPSILON
    shape = (len(RULES), len(LEARNERS))
    S, plain = np.empty((*shape, alpha.size, sizes.size)), np.empty((*shape, sizes.size))
    runs = np.empty((*shape, sizes.size, plan.runs))
    state, plain_state = np.ones((*shape, 3)), np.ones((*shape, 3))  # of normalised weights Q = 1
    run_state = np.ones((*shape, 3, plan.runs))
    for i, rule in enumerate(RULES):
        for j, learner in enumerate(LEARNERS.values()):
            parts = learner.parts(rule)
            line, without = _line(parts, alpha), _line(learner.without(rule), alpha[-1:])
            S[i, j], plain[i, j] = errors(line, sizes), errors(without, sizes)[0]
            seed = np.random.SeedSequence([SEED, i, j])
            sample = simulate(MIXTURE, *parts, N=plan.N, alpha=alpha[-1:], runs=plan.runs, rng=seed, **_start(parts[0]))
            runs[i, j] = errors(sample.transpose("run", "alpha"), sizes)[:, 0].T
            for k, name in enumerate(("R", "b", "Q")):
                if name in line:
                    state[i, j, k], plain_state[i, j, k] = line[name].values[-1], without[name].values[-1]
                    run_state[i, j, k] = sample[name].transpose("run", "alpha").values[:, 0]
    return {
        "line": (("rule", "learner", "alpha", "size"), S),
        "theory": (("rule", "learner", "size"), S[:, :, -1]),
        "without": (("rule", "learner", "size"), plain),
        "runs": (("rule", "learner", "size", "run"), runs),
        "state": (("rule", "learner", "variable"), state),
        "state_without": (("rule", "learner", "variable"), plain_state),
        "run_state": (("rule", "learner", "variable", "run"), run_state),
    }


def decay_of_pairing() -> dict[str, Any]:
    """Return the errors of logit pairing of a linear unit, and of the same training with the decay that it is, and without."""
    pairing = LEARNERS["logit pairing"]
    rule, adversary = pairing.parts("logistic")
    sizes, alpha = np.array([0.0, *TESTS]) * EPSILON, np.array([ALPHA])
    decay = rule.beta * EPSILON**2
    found = [
        errors(_line((learned, adversary), alpha), sizes)[0]
        for learned in (
            rule,
            LearningRule(**RULES["logistic"], decay_w=decay),
            LearningRule(**RULES["logistic"]),
        )
    ]
    return {"pairing": (("as_what", "size"), np.stack(found))}
