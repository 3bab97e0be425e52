"""The perceptron as a network: its order parameters R, b and, of free weights, Q."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.laws import Continuous, quadratures
from odeflow.model import Adversary, Data, GaussianMixture, LearningRule, check_parts, numeric_parameters, parameters
from odeflow.order_parameters.base import Array, Network, OrderParameter, Points, System
from odeflow.parameters import Range
from odeflow.schedule import largest

__all__ = ["Perceptron", "error_probability"]

_SEED = GaussianMixture()

_TOLERANCE = 1e-6  # of a trajectory, by which an overlap may be beyond |w|

_R = OrderParameter("R", "overlap of the weights with the direction of the centres", "R")
_b = OrderParameter("b", "bias", "b")
_Q = OrderParameter("Q", "squared length of the weights", "Q", Range(above=0), start=1.0)


@dataclass(frozen=True)
class Perceptron(Network):
    """One linear unit, x = w.xi - b, with the output and the loss of the rule: the seed's model, and its variants.

    Its order parameters are R = w.B and b, and Q = |w|^2 if the rule does not keep |w| = 1. Exact as N grows.
    """

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "perceptron"

    def variables(self, rule: LearningRule, mixture: Data = _SEED) -> tuple[OrderParameter, ...]:
        """Return R and b, and Q where the weights are not normalised."""
        return (_R, _b) if rule.normalised else (_R, _b, _Q)

    def starts(self, rule: LearningRule, mixture: Data = _SEED) -> tuple[OrderParameter, ...]:
        """Return R, b and Q: of normalised weights Q0 may be given, but is 1."""
        return _R, _b, _Q

    def check(self, mixture: Data, rule: LearningRule, adversary: Adversary) -> None:
        """Raise if the adversary's norm is not L2, since the data have no axes, or if an average does not exist."""
        check_parts(mixture=mixture, rule=rule, adversary=adversary, schedules=True)
        if adversary.attack not in ("fgsm", "blind"):
            raise ValueError(
                f"attack = {adversary.attack!r}: allowed for the perceptron is 'fgsm', which for it is the worst attack, or "
                "'blind'; the others are for network=Committee(...)"
            )
        if rule.decay_w and rule.normalised:
            raise ValueError(
                f"decay_w = {rule.decay_w!r}: allowed is 0 with normalised weights, whose length does not decay"
            )
        if rule.surrogate == "trades":
            for name, plain in (("attack", "fgsm"), ("clean_weight", 0.0)):
                if getattr(adversary, name) != plain:
                    raise ValueError(
                        f"{name} = {getattr(adversary, name)!r} with surrogate = 'trades': allowed is {plain!r}, because its attack is "
                        "on the outputs' difference, and the loss on the example as it is has the weight 1"
                    )
        grows = rule.activation == "linear" and (rule.loss == "squared" or rule.surrogate != "none")
        if grows and isinstance(adversary.law, Continuous) and not adversary.law.has_mean_square:
            raise ValueError(
                f"law = {adversary.law!r} has no finite mean square: allowed is one that has, because the update grows with "
                "the size of the attack for activation = 'linear' with loss = 'squared' or a surrogate"
            )

    def check_points(self, rule: LearningRule, adversary: Adversary, points: Points) -> None:
        """Raise a ValueError if numbers do not go together, as the rule itself does: what is swept has not been one."""
        only = {"batch": (points["batch"] == np.floor(points["batch"]), "a whole number")}
        if rule.normalised:
            only["decay_w"] = points["decay_w"] == 0, "0 with normalised weights, whose length does not decay"
        if rule.loss not in ("squared", "logistic") or rule.activation == "sign" or rule.factor is not None:
            kind = ", ".join(f"{name} = {getattr(rule, name)!r}" for name in ("loss", "activation", "factor"))
            only["smoothing"] = points["smoothing"] == 0, f"0 with {kind}"
        if rule.surrogate == "none":
            only["beta"] = points["beta"] == 0, "0 with surrogate = 'none'"
        if rule.surrogate == "trades":
            only["clean_weight"] = points["clean_weight"] == 0, "0 with surrogate = 'trades'"
        for name, (good, allowed) in only.items():
            if not np.all(good):
                raise ValueError(f"{name} = {float(points[name][~good][0])!r}: allowed is {allowed}")

    def check_start(self, rule: LearningRule, start: Points) -> None:
        """Raise a ValueError if |R0| > sqrt(Q0), or if Q0 is not 1 for normalised weights."""
        R0, Q0 = np.asarray(start["R0"]), np.asarray(start["Q0"])
        if rule.normalised and np.any(Q0 != 1):
            bad = float(Q0[Q0 != 1].flat[0])
            raise ValueError(
                f"Q0 = {bad!r} is out of range: allowed is 1, because the rule keeps the weights normalised"
            )
        good = np.abs(R0) <= np.sqrt(Q0) * (1 + _TOLERANCE)
        if not np.all(good):
            bad = float(np.broadcast_to(R0, good.shape)[~good].flat[0])
            allowed = "[-1, 1]" if rule.normalised else "[-sqrt(Q0), sqrt(Q0)]"
            raise ValueError(f"R0 = {bad!r} is out of range: allowed is in {allowed}")

    def systems(
        self, mixture: Data, rule: LearningRule, adversary: Adversary, points: Points, start: Array
    ) -> Sequence[System]:
        """Return the points that are the seed model's, with its fast kernel, and those that are variants."""
        start = _within(start)
        is_seed = np.ones(len(start), np.bool_)
        for part in (rule, adversary):
            for name, plain in parameters(type(part)()).items():
                if name not in ("eta_w", "eta_b", "second_order", "epsilon", "attack_steps", "attack_step"):
                    is_seed &= np.equal(points[name], plain) if name in points else getattr(part, name) == plain
        systems: list[System] = []
        for chosen, system in ((is_seed, self._seed), (~is_seed, self._variant)):
            rows = np.flatnonzero(chosen)
            if rows.size == 0:
                continue
            if rows.size == len(start):
                systems += system(rule, adversary, points, start)
            else:
                there = {name: values[rows] for name, values in points.items()}
                systems += [System(rows[part.rows], *part[1:]) for part in system(rule, adversary, there, start[rows])]
        return systems

    def _seed(self, rule: LearningRule, adversary: Adversary, points: Points, start: Array) -> Iterator[System]:
        from odeflow.order_parameters.perceptron import seed, seed_solver

        model = seed.SeedModel(_table(seed.PARAMETERS, points, start))
        yield System(np.arange(len(start)), model, seed.CONSTANTS, solve=seed_solver.solve)

    def _variant(self, rule: LearningRule, adversary: Adversary, points: Points, start: Array) -> Iterator[System]:
        from odeflow.order_parameters.perceptron import variants
        from odeflow.order_parameters.perceptron.variant_averages import law_scales

        table = _table(variants.PARAMETERS, points, start)
        scales = law_scales(
            rule, *(points[name] for name in ("rho", "v1", "v2", "epsilon", "input_noise", "epsilon_ratio"))
        )
        kind = variants.kind_of(rule, adversary, points)
        for rows, nodes, weights in quadratures(adversary.law, *scales):
            yield System(rows, variants.VariantModel(table[rows], nodes, weights, kind), variants.CONSTANTS)

    def error(self, state: Mapping[str, Any], points: Points, epsilon: Any) -> Any:
        """Return S(R, b, epsilon); of free weights, of the normalised classifier (exact at any N)."""
        R, b = state["R"], state["b"]
        if "Q" in state:  # |R| <= sqrt(Q) up to the tolerance
            length = np.sqrt(state["Q"])
            R, b = (R / length).clip(-1, 1), b / length
        return error_probability(R, b, epsilon, *(points[name] for name in ("p", "rho", "v1", "v2")))

    def measured(self, state: Mapping[str, Any], mixture: Data, points: Points, epsilon: Any) -> dict[str, Any]:
        """Return the error, and the adversarial error at epsilon."""
        return {"error": self.error(state, points, 0.0), "adversarial_error": self.error(state, points, epsilon)}

    def rates(
        self, state: Mapping[str, Any], mixture: Data, rule: LearningRule, adversary: Adversary
    ) -> dict[str, Any]:
        """Return dR/dalpha, db/dalpha (and dQ/dalpha), in plain NumPy: the reference of the kernels."""
        assert isinstance(mixture, GaussianMixture)
        from odeflow.order_parameters.perceptron.reference import unchecked_rates

        found = unchecked_rates(state["R"], state["b"], state.get("Q"), mixture, rule, adversary)
        return dict(zip(("R", "b", "Q"), found, strict=False))

    def jacobian(
        self,
        state: Mapping[str, Any],
        mixture: Data,
        rule: LearningRule,
        adversary: Adversary,
        *,
        along: Array | None = None,
        order: Literal[1, 4] = 4,
    ) -> Array:
        """Return the Jacobian, shape (..., 2, 2) or (..., 3, 3), from the averages' derivatives."""
        assert isinstance(mixture, GaussianMixture)
        from odeflow.order_parameters.perceptron.reference import unchecked_jacobian

        J = unchecked_jacobian(state["R"], state["b"], state.get("Q"), mixture, rule, adversary)
        return J if along is None else J @ along

    def guesses(
        self, mixture: Data, rule: LearningRule, adversary: Adversary, start: Mapping[str, Any] | None = None
    ) -> Array:
        """Return a grid of cosines, of biases in units of the data's spread, and of lengths of free weights."""
        assert isinstance(mixture, GaussianMixture)
        spread = np.sqrt(max(mixture.v1, mixture.v2)) + mixture.rho / 2 + adversary.epsilon
        lengths = [1.0] if rule.normalised else [0.1, 0.4, 1.2, 4.0]
        cosines, biases = [-0.5, 0.3, 0.8, 0.97], np.linspace(-3, 3, 9) * spread
        begin = {variable.name: float((start or {}).get(variable.name, variable.start)) for variable in (_R, _b, _Q)}
        if rule.eta_w == 0:  # frozen
            lengths = [math.sqrt(begin["Q"])]
            cosines = [begin["R"] / lengths[0]]
        cosine, bias, length = (values.ravel() for values in np.meshgrid(cosines, biases, lengths, indexing="ij"))
        columns = [cosine * length, bias * length, length**2]
        if rule.eta_b == 0:
            columns[1] = np.full_like(bias, begin["b"])
        return np.stack(columns[: len(self.variables(rule))], axis=1)

    def expanded(self, *trajectory: Any, **wanted: Any) -> Any:
        """Return a trajectory with its derivatives by parameters and its fluctuations (exact to order 1/N)."""
        from odeflow.order_parameters.perceptron.expansion.results import expand

        return expand(*trajectory, **wanted)

    def simulate(
        self,
        mixture: Data,
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
        """Return R, b (and Q) of each run, by the kernels of section 2 of the theory page."""
        from odeflow.numerics.compilation import LANES
        from odeflow.numerics.course import course_of
        from odeflow.numerics.random_streams import rng_states
        from odeflow.numerics.threads import Flag, map_blocks
        from odeflow.order_parameters.perceptron import monte_carlo
        from odeflow.order_parameters.perceptron.variant_averages import smoothed_share
        from odeflow.order_parameters.perceptron.variants import Constant, kind_of

        assert isinstance(mixture, GaussianMixture)
        out = np.empty((runs, examples.size, 2 if rule.normalised else 3))
        levels, factors = (np.empty(0), np.empty(0)) if adversary.law is None else adversary.law.table()
        noise = rule.input_noise**2
        example = monte_carlo.Example(
            mixture.p, mixture.rho / 2, mixture.v1 + noise, mixture.v2 + noise,
            largest(adversary.epsilon), adversary.epsilon_ratio, adversary.fraction, levels, factors,
            rule.label_noise, float(smoothed_share(rule.loss, rule.smoothing)), adversary.clean_weight, rule.beta,
            kind_of(rule, adversary, parameters(rule, adversary)),
        )  # fmt: skip
        step = monte_carlo.Step(largest(rule.eta_w), largest(rule.eta_b), rule.decay_w, rule.decay_b, int(rule.batch))
        search: Any = Constant()
        if rule.steps != "constant":  # a simulation has its whole noise
            numbers = {**numeric_parameters(mixture, rule, adversary), "second_order": True}
            points = {name: np.array([float(largest(value))]) for name, value in numbers.items()}
            [system] = self._variant(rule, adversary, points, np.ones((1, out.shape[-1])))
            search = system.kernel
        course = course_of(adversary.epsilon, rule.eta_w, rule.eta_b)
        y0 = np.ones((runs, 3))
        y0[:, : start.shape[-1]] = start
        y0 = _within(y0)
        if method == "reduced":
            kernel, states, least = monte_carlo.reduced, rng_states(seed, runs, 1), LANES
        else:
            kernel, states, least = monte_carlo.direct, rng_states(seed, runs, LANES), 1

        def block(first: int, last: int, stop: Flag) -> None:
            kernel(states, first, last, N, example, step, search, course, y0, examples, stop, out)

        map_blocks(block, runs, least=least, progress=" runs" if progress else None)
        return out


def error_probability(R: Any, b: Any, epsilon: Any, p: Any, rho: Any, v1: Any, v2: Any) -> Any:
    r"""Return :math:`p\,\Phi(-(\rho R/2 - b - \varepsilon)/\sqrt{v_1}) + (1-p)\,\Phi(-(\rho R/2 + b -
    \varepsilon)/\sqrt{v_2})`, the error of (R, b) with |w| = 1 under attack (exact). All arguments broadcast.
    """  # noqa: D205 -- a formula
    from scipy.special import ndtr

    margin = rho * R / 2 - epsilon
    return p * ndtr(-(margin - b) / np.sqrt(v1)) + (1 - p) * ndtr(-(margin + b) / np.sqrt(v2))


def _within(start: Array) -> Array:
    """Return states whose overlap is beyond |w| by the tolerance of a trajectory with the largest overlap that there is."""
    most = np.sqrt(start[:, 2]) if start.shape[1] > 2 else 1.0
    within = start.copy()
    within[:, 0] = np.clip(start[:, 0], -most, most)
    return within


def _table(columns: tuple[str, ...], points: Points, start: Array) -> Array:
    """Return a kernel's table: a row a point, columns parameters and initial values by name."""
    values = {**points, **{f"{name}0": start[:, i] for i, name in enumerate(("R", "b", "Q")[: start.shape[1]])}}
    values.setdefault("Q0", np.ones(len(start)))
    return np.stack([values[name] for name in columns], axis=1)
