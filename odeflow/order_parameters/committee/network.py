"""The two-layer network as a network with order parameters: M, Q, c, theta and b."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.laws import quadratures
from odeflow.model import Adversary, GaussianMixture, LearningRule, check_parts
from odeflow.order_parameters.base import Array, Network, OrderParameter, Points, System
from odeflow.order_parameters.perceptron.network import error_probability
from odeflow.parameters import Range, checked, checked_count, choice, described, number, thing

__all__ = ["Committee"]

# Over which epsilon times a random factor changes the averages, and up to which: g varies over 1, x moves by sqrt(Q) < 5
_WIDTH, _REACH = 0.2, 10.0


@described
@dataclass(frozen=True)
class Committee(Network):
    r"""A network of two layers, phi = b + sum_k c_k g(w_k.xi - theta_k), with free weights, on the squared loss.

    Its order parameters are the overlaps M_k = w_k.mu_+ with the centre of the class +1, those of the weights, Q_kl =
    w_k.w_l, the output weights c, the thresholds theta and the output bias b, which learns at the rule's eta_b. The
    adversary is FGSM: it moves an example by epsilon along the gradient of the loss. Exact as N grows.

    So far for one hidden unit, g(x) = erf(x / sqrt(2)), and the squared loss on all examples. Where the output can just
    reach the label (``|c| = |tau - b|``) and v Q > 1, FGSM turns round on a share of the examples that grows with an infinite
    slope: such a trajectory can be stiff, and ends with the status 1 if it takes more than 20,000 steps.

    Raises
    ------
    TypeError, ValueError
        If a field is not allowed.

    Examples
    --------
    >>> from odeflow import Adversary, GaussianMixture, LearningRule, integrate
    >>> final = integrate(GaussianMixture(), LearningRule(0.5), Adversary(0.5), network=Committee(), alpha=[20.0])
    >>> final.M.dims, round(float(final.error[0]), 4)
    (('alpha', 'unit'), 0.181)
    """

    hidden: int = thing(1, "number of hidden units", "So far 1.")
    activation: Literal["erf"] = choice("erf", "hidden unit g", ("erf",))
    eta_c: float = number(0.0, "learning rate of the output weights", r"\eta_c", least=0)
    eta_theta: float = number(0.0, "learning rate of the thresholds", r"\eta_\theta", least=0)

    def __post_init__(self) -> None:
        checked(self)
        if checked_count("hidden", self.hidden, 1) != 1:
            raise ValueError(f"hidden = {self.hidden!r} is out of range: allowed is 1, more units are not known yet")

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "committee"

    @property
    def max_steps(self) -> int:
        """Most steps of the solver: each takes longer than one of the perceptron."""
        return 20_000

    def variables(self, rule: LearningRule) -> tuple[OrderParameter, ...]:
        """Return M, Q, c, theta and b."""
        K = self.hidden
        unit, pair = (("unit",), (K,)), (("unit", "other_unit"), (K, K))
        return (
            OrderParameter(
                "M", "overlap of a unit's weights with the centre of the class +1", "M", Range(), 0.0, *unit
            ),
            OrderParameter("Q", "overlap of two units' weights", "Q", Range(above=0), 1.0, *pair),
            OrderParameter("c", "output weight of a unit", "c", Range(), 1.0, *unit),
            OrderParameter("theta", "threshold of a unit", r"\theta", Range(), 0.0, *unit),
            OrderParameter("b", "output bias", "b"),
        )

    def check(self, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> None:
        """Raise a ValueError for a rule that this network's learning is not known for."""
        check_parts(mixture=mixture, rule=rule, adversary=adversary)
        for name, allowed in (("loss", "squared"), ("activation", "erf"), ("update", "all")):
            if getattr(rule, name) != allowed:
                raise ValueError(
                    f"{name} = {getattr(rule, name)!r}: allowed for the committee is {allowed!r}; the others are the "
                    "perceptron's"
                )

    def check_start(self, rule: LearningRule, start: Points) -> None:
        """Do nothing: that |M| <= (rho/2) sqrt(Q) needs the mixture, and is checked where the points are known."""

    def systems(self, rule: LearningRule, adversary: Adversary, points: Points, start: Array) -> Sequence[System]:
        """Return all points with the one kernel."""
        from odeflow.order_parameters.committee import kernel

        _check_overlap(start, points["rho"])
        table = np.concatenate([np.stack([points[name] for name in kernel.PARAMETERS], axis=1), start], axis=1)
        with np.errstate(divide="ignore"):
            scales = _WIDTH / points["epsilon"], _REACH / points["epsilon"]
        return [
            System(rows, kernel.CommitteeModel(table[rows], nodes, weights), kernel.CONSTANTS)
            for rows, nodes, weights in quadratures(adversary.law, *scales)
        ]

    def error(self, state: Mapping[str, Any], points: Points, epsilon: Any) -> Any:
        r"""Return the probability that sign(phi) is wrong after the worst perturbation of length epsilon (exact).

        One unit's output has the sign of c (w.xi - t), t = theta + g^-1(-b/c): a perceptron with the overlap
        2 sgn(c) M / (rho sqrt Q) and the bias sgn(c) t / sqrt Q, infinite where |b| >= |c|.
        """
        from scipy.special import erfinv

        M, c, theta, b = state["M"][..., 0], state["c"][..., 0], state["theta"][..., 0], state["b"]
        length, sign = np.sqrt(state["Q"][..., 0, 0]), np.sign(c)
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = sign * (theta + math.sqrt(2) * erfinv(-b / c)) / length
        bias = np.where(np.abs(b) < np.abs(c), bias, -np.copysign(np.inf, b))
        constant = ~np.isfinite(bias)
        margin = np.where(constant, 0.0, sign * M / length)
        # rho R / 2 = sgn(c) M / sqrt Q, so rho = 2 and R = that
        values = (points["p"], 2.0, points["v1"], points["v2"])
        return error_probability(margin, bias, epsilon, *values)

    def rates(
        self, state: Mapping[str, Any], mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
    ) -> dict[str, Any]:
        """Return the derivatives of M, Q, c, theta and b by alpha: the formulas of section 5.2 for K = 1."""
        from odeflow.order_parameters.committee.averages import averages

        self.check(mixture, rule, adversary)
        entries = (state["M"][..., 0], state["Q"][..., 0, 0], state["c"][..., 0], state["theta"][..., 0], state["b"])
        M, Q, c, theta, b = np.broadcast_arrays(*(np.asarray(entry, np.float64) for entry in entries))
        scales = (np.array([scale / max(adversary.epsilon, 1e-300)]) for scale in (_WIDTH, _REACH))
        [(_, factors, weights)] = quadratures(adversary.law, *scales)
        sizes = [*zip(adversary.fraction * weights, adversary.epsilon * factors, strict=True)]
        sizes.append((1 - adversary.fraction, 0.0))
        dM, dQ, dc, dtheta, db = (np.zeros(M.shape) for _ in range(5))
        for prior, tau, v in ((mixture.p, 1.0, mixture.v1), (1 - mixture.p, -1.0, mixture.v2)):
            for part, epsilon in sizes:
                share = prior * part
                if share == 0:
                    continue
                s, s_y, s_d, s_s, e_g, e = averages(tau * M, v, Q, c, theta, b, tau, epsilon)
                V = np.sqrt(v / Q) * s_y + s_d
                B = s * tau * M + V * Q
                dM += share * rule.eta_w * (s * tau * mixture.rho**2 / 4 + V * M)
                dQ += share * (2 * rule.eta_w * B + rule.second_order * rule.eta_w**2 * v * s_s)
                dc -= share * self.eta_c * e_g
                dtheta -= share * self.eta_theta * s
                db -= share * rule.eta_b * e
        return {
            "M": dM[..., None],
            "Q": dQ[..., None, None],
            "c": dc[..., None],
            "theta": dtheta[..., None],
            "b": db,
        }

    def guesses(self, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> Array:
        """Return a grid of cosines, lengths, thresholds and output biases; output weights are 1, or near it if they learn."""
        weights = [1.0] if self.eta_c == 0 else [0.6, 1.0, 1.5]
        thresholds = [0.0] if self.eta_theta == 0 else [-1.0, 0.0, 1.0]
        grid = np.meshgrid([0.3, 0.9], [0.3, 1.0, 3.0], weights, thresholds, [-0.5, 0.01, 0.5], indexing="ij")
        cosine, length, c, theta, b = (values.ravel() for values in grid)
        return np.stack([mixture.rho / 2 * cosine * length, length**2, c, theta * length, b], axis=1)

    def simulate(
        self,
        mixture: GaussianMixture,
        rule: LearningRule,
        adversary: Adversary,
        *,
        N: int,
        examples: npt.NDArray[np.int64],
        runs: int,
        method: str,
        seed: np.random.SeedSequence,
        start: Array,
        progress: bool,
    ) -> Array:
        """Return the state of each run, by the simulation of section 5.6, or in R^N."""
        from odeflow.order_parameters.committee.monte_carlo import Examples, Learning, State, simulate_runs
        from odeflow.order_parameters.committee.quadrature.sums import FGSM, Attack
        from odeflow.order_parameters.committee.units import ACTIVATIONS

        _check_overlap(start[None], np.array([mixture.rho]))
        p, mu = mixture.p, mixture.rho / 2
        law = Examples.clusters([p, 1 - p], [mixture.v1, mixture.v2], [1, -1], [[mu], [-mu]])
        levels, factors = (np.empty(0), np.empty(0)) if adversary.law is None else adversary.law.table()
        learning = Learning(
            ACTIVATIONS[self.activation], rule.eta_w, self.eta_c, self.eta_theta, rule.eta_b,
            adversary.epsilon, adversary.fraction, Attack(FGSM, 1, 1.0), levels, factors,
        )  # fmt: skip
        M, Q, c, theta, b = start
        begin = State(np.array([[M]]), np.array([[Q]]), np.array([c]), np.array([theta]), np.array(b))
        return simulate_runs(
            law, learning, np.array([[mu]]), begin,
            N=N, examples=examples, runs=runs, method=method, seed=seed, progress=progress,
        )  # fmt: skip


def _check_overlap(start: Array, rho: Array) -> None:
    """Raise a ValueError if an initial M is longer than the weights: |M| <= (rho/2) sqrt(Q)."""
    M, Q = start[:, 0], start[:, 1]
    good = np.abs(M) <= rho / 2 * np.sqrt(Q) * (1 + 1e-12)
    if not np.all(good):
        raise ValueError(f"M0 = {float(M[~good][0])!r} is out of range: allowed is |M0| <= (rho/2) sqrt(Q0)")
