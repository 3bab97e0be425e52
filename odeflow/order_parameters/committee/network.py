"""The two-layer network as a network with order parameters: M, Q, c, theta and b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from odeflow.laws import quadratures
from odeflow.model import (
    Adversary,
    Data,
    GaussianClusters,
    GaussianMixture,
    LearningRule,
    TeacherStudent,
    check_constant,
    check_known,
    check_parts,
)
from odeflow.model.teacher import UNITS
from odeflow.order_parameters.base import Array, Network, OrderParameter, Points, System, flat, unflat
from odeflow.order_parameters.committee.states import (
    check_lengths,
    check_starts,
    cluster_numbers,
    columns,
    coordinates,
    directions,
    part,
    state_variables,
)
from odeflow.parameters import checked, checked_count, checked_number, choice, described, number, thing

__all__ = ["Committee"]

_SEED = GaussianMixture()
_DATA = (GaussianMixture, GaussianClusters, TeacherStudent)

# Over which epsilon times a random factor changes the averages, and up to which: g varies over 1, x moves by sqrt(Q) < 5
_WIDTH, _REACH = 0.2, 10.0

_FINER = 0.01  # of the tolerance: of the quadrature that tells the error of another
_SHARP = 1e-9  # tolerance where zeros of the rates are looked for

_COARSE = 1e-3  # where many states are tried

_ERRORS = ("error", "fgsm_error", "adversarial_error", "loss", "adversarial_loss")

_LOOKED_AT = 4  # states of a trajectory at which that is told


@described
@dataclass(frozen=True)
class Committee(Network):
    r"""A network of two layers, phi = b + sum_k c_k g(w_k.xi - theta_k), with free weights, on the squared loss.

    Its order parameters are the overlaps M_ka = w_k.mu_a with the centres of the clusters (of the seed's mixture, with
    that of the class +1 alone; with a teacher R_kn = w_k.w*_n), those of the weights, Q_kl = w_k.w_l, the output weights c, the
    thresholds theta and the output bias b, which learns at the rule's eta_b. Every attack in L2 moves an example by a sum of
    the weights, so that the order parameters stay closed: exact as N grows, for FGSM, its form on the margin, PGD and the worst
    case (see `Adversary.attack`).

    Where the output can just reach the label and v Q > 1, FGSM turns round on a share of the examples that grows with an
    infinite slope: such a trajectory can be stiff, and ends with the status 1 if it takes more than 20,000 steps. So does one
    that is held where an output weight that learns crosses 0, and the attack turns round.

    Units of ReLU that are the same at the start, with the same output weights, stay so in any network, but their theory does
    not say so: their difference grows as its root, of which 0 is one solution and not the one that rounding finds. Start
    with one unit instead, or with ones that differ. Where a ReLU stands on its kink its derivative is 0, as in PyTorch.

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

    without: ClassVar[tuple[str, ...]] = ("loss", "activation", "update", "normalised")
    random_starts: ClassVar[bool] = True
    advice: ClassVar[Mapping[int, str]] = {
        1: "of two layers a trajectory is stiff where the output can just reach the label, and stays where an output weight "
        "crosses 0 under attack",
        3: "or whether a unit's weights vanished",
    }

    hidden: int = thing(1, "number of hidden units", "At least 1.")
    activation: Literal["erf", "erf-x", "relu"] = choice(
        "erf", "hidden unit g", UNITS, "erf is erf(x / sqrt(2)), erf-x is erf(x), relu is max(x, 0)."
    )
    eta_c: float = number(0.0, "learning rate of the output weights", r"\eta_c", least=0)
    eta_theta: float = number(0.0, "learning rate of the thresholds", r"\eta_\theta", least=0)
    tolerance: float = thing(
        1e-6,
        "error of the right-hand side that the quadrature aims at",
        "In [1e-10, 0.01]. What it reaches is reported as quadrature_error, but for pgd and worst of ReLU, which have an "
        "error of about 5e-4 of their own.",
    )
    errors: tuple[str, ...] | None = thing(
        None,
        "which errors results have",
        "Some of error, fgsm_error and adversarial_error, with a teacher of loss and adversarial_loss. None: all that are known; "
        "for four units of ReLU each takes up to half a second a state.",
    )

    def __post_init__(self) -> None:
        checked(self)
        object.__setattr__(self, "hidden", checked_count("hidden", self.hidden, 1, most=64))
        given: Any = self.errors
        if given is not None:
            names = (given,) if isinstance(given, str) else tuple(given)
            for name in names:
                if name not in _ERRORS:
                    raise ValueError(f"errors has {name!r}: allowed are {', '.join(_ERRORS)}")
            object.__setattr__(self, "errors", names)
        object.__setattr__(self, "tolerance", checked_number("tolerance", self.tolerance, least=1e-10, most=0.01))

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "committee"

    @property
    def max_steps(self) -> int:
        """Most steps of the solver: each takes longer than one of the perceptron."""
        return 20_000

    @property
    def tolerances(self) -> tuple[float, float]:
        """The solver's rtol and atol: of more than one unit not finer than the quadrature."""
        return (1e-8, 1e-10) if self.hidden == 1 else (self.tolerance, 0.1 * self.tolerance)

    def least_N(self, mixture: Data) -> Mapping[str, int]:
        """Methods of simulation, and the least dimension of the input that each allows."""
        rank = int(np.linalg.matrix_rank(directions(mixture).gram, hermitian=True)) + self.hidden
        return {"reduced": rank + 1, "direct": rank}

    def variables(self, rule: LearningRule, mixture: Data = _SEED) -> tuple[OrderParameter, ...]:
        """Return M (with a teacher, R), Q, c, theta and b."""
        return state_variables(self.hidden, mixture)

    def check(self, mixture: Data, rule: LearningRule, adversary: Adversary) -> None:
        """Raise an error for data or a rule that this network's learning is not known for."""
        check_parts(data=_DATA, mixture=mixture, rule=rule, adversary=adversary, schedules=True)
        for name, allowed in (("loss", "squared"), ("activation", "erf"), ("update", "all")):
            if getattr(rule, name) != allowed:
                raise ValueError(
                    f"{name} = {getattr(rule, name)!r}: allowed for the committee is {allowed!r}; the others are the "
                    "perceptron's"
                )
        check_known(f"the {self.name}", rule, adversary)
        self.measures(mixture)
        if isinstance(mixture, TeacherStudent) and adversary.attack == "margin":
            raise ValueError("attack = 'margin': allowed with a teacher is one of fgsm, pgd, worst: there is no class")

    def check_start(self, rule: LearningRule, start: Points) -> None:
        """Do nothing: which overlaps are possible depends on the data, and is checked where the points are known."""

    def systems(
        self, mixture: Data, rule: LearningRule, adversary: Adversary, points: Points, start: Array
    ) -> Sequence[System]:
        """Return all points with the one kernel."""
        check_starts(self.hidden, mixture, cluster_numbers(mixture, points)[0], start)
        check_lengths(self.hidden, mixture, start)
        return [
            System(rows, model, model.parameters.shape[1] - start.shape[1], 1 if self.hidden > 1 else None)
            for rows, model in self._models(mixture, adversary, points, start, self._aim)
        ]

    @property
    def _aim(self) -> float:
        """The tolerance of the quadrature: of one unit that of its exact averages, at no cost."""
        return 1e-11 if self.hidden == 1 else self.tolerance

    def _models(
        self, mixture: Data, adversary: Adversary, points: Points, start: Array, tolerance: float
    ) -> list[tuple[npt.NDArray[np.int64], Any]]:
        """Return the kernel's models of some points, and the points of each."""
        from odeflow.order_parameters.committee.batch import PARAMETERS
        from odeflow.order_parameters.committee.models import model_of

        scale, priors, variances = cluster_numbers(mixture, points)
        table = np.concatenate([columns(points, PARAMETERS), scale[:, None], priors, variances, start], axis=1)
        with np.errstate(divide="ignore"):
            scales = _WIDTH / points["epsilon"], _REACH / points["epsilon"]
        return [
            (rows, model_of(self, mixture, adversary, table[rows], nodes, weights, tolerance))
            for rows, nodes, weights in quadratures(adversary.law, *scales)
        ]

    def measures(self, mixture: Data) -> tuple[str, ...]:
        """Return the errors of a classifier, or the losses of a regression."""
        from odeflow.order_parameters.committee.measures import names

        return names(self, mixture)

    def measured(self, state: Mapping[str, Any], mixture: Data, points: Points, epsilon: Any) -> dict[str, Any]:
        """Return the errors of a classifier, or the losses of a regression, clean and attacked with epsilon."""
        from odeflow.order_parameters.committee.measures import measured

        return measured(self, part(state, mixture), mixture, points, epsilon)

    def rates(
        self, state: Mapping[str, Any], mixture: Data, rule: LearningRule, adversary: Adversary
    ) -> dict[str, Any]:
        """Return the derivatives of the order parameters by alpha, by the kernel."""
        self.check(mixture, rule, adversary)
        check_constant(rule, adversary)
        variables = self.variables(rule, mixture)
        y = flat(state, variables)
        states = np.ascontiguousarray(y.reshape(-1, y.shape[-1]))
        numbers = {**vars(rule), **vars(adversary), **vars(mixture), "eta_c": self.eta_c, "eta_theta": self.eta_theta}
        points = {
            name: np.array([float(value)]) for name, value in numbers.items() if isinstance(value, int | float | bool)
        }
        found = self._rates(states, np.zeros(len(states), np.int64), mixture, adversary, points, self._aim)
        return unflat(found.reshape(y.shape), variables)

    def _rates(
        self,
        states: Array,
        rows: npt.NDArray[np.int64],
        mixture: Data,
        adversary: Adversary,
        points: Points,
        tolerance: float,
    ) -> Array:
        """Return the rates of states, shape (states, width), each with the numbers of a row of the points."""
        from odeflow.order_parameters.committee.models import evaluated

        count, width = len(points["epsilon"]), states.shape[1]
        out = np.full_like(states, np.nan)
        for at, model in self._models(mixture, adversary, points, np.zeros((count, width)), tolerance):
            place = np.full(count, -1)
            place[at] = np.arange(len(at))
            chosen = np.flatnonzero(place[rows] >= 0)
            constants = model.parameters[place[rows[chosen]], :-width]
            out[chosen] = evaluated(model, constants, states[chosen], width)
        return out

    @property
    def reports(self) -> tuple[str, ...]:
        """Return the names of what `accuracy` returns."""
        return ("quadrature_error",)

    def accuracy(
        self, y: Array, mixture: Data, rule: LearningRule, adversary: Adversary, points: Points
    ) -> dict[str, Array]:
        """Return the quadrature's error at some of the states: the largest change of a rate by a much finer one.

        It does not see what both have in common: the points of pgd and worst of ReLU, and the cuts of FGSM with which pgd of
        erf units, and worst of more than two, are averaged.
        """
        count, times, width = y.shape
        seen = np.unique(np.linspace(0, times - 1, min(times, _LOOKED_AT)).round().astype(int))
        states = np.ascontiguousarray(y[:, seen].reshape(-1, width))
        rows = np.repeat(np.arange(count), len(seen))
        good = np.all(np.isfinite(states), axis=1)
        error = np.full(len(states), np.nan)
        if np.any(good):
            plain, fine = (
                self._rates(states[good], rows[good], mixture, adversary, points, tolerance)
                for tolerance in (self._aim, max(1e-12, _FINER * self._aim))
            )
            error[good] = np.abs(plain - fine).max(axis=1)
        table = error.reshape(count, len(seen))
        known = np.isfinite(table)
        worst = np.where(known, table, 0.0).max(axis=1, initial=0.0)
        return {"quadrature_error": np.where(known.any(axis=1), worst, np.nan)}

    def guesses(
        self, mixture: Data, rule: LearningRule, adversary: Adversary, start: Mapping[str, Any] | None = None
    ) -> Array:
        """Return states from which a search for fixed points starts."""
        from odeflow.order_parameters.committee.guesses import guesses

        for name in ("eta_w", "eta_b"):
            if getattr(rule, name) == 0:
                raise ValueError(f"{name} = 0.0: allowed is > 0 where fixed points of the committee are looked for")
        return guesses(self, mixture, start or {})

    def coordinates(self, rule: LearningRule, mixture: Data = _SEED) -> Array:
        """Return a basis of the possible states: Q is symmetric, and overlaps with centres that sum to 0 sum to 0."""
        return coordinates(self.hidden, mixture)

    def roughened(self) -> Committee:
        """Return the same network with a coarser quadrature, of more than two units, where a fine one is dear."""
        return self if self.hidden <= 2 else replace(self, tolerance=max(self.tolerance, _COARSE))

    def sharpened(self) -> Committee:
        """Return the same network with a finer quadrature, of up to two units, where it is cheap."""
        return replace(self, tolerance=min(self.tolerance, _SHARP)) if self.hidden <= 2 else self

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
        """Return the state of each run, by the simulation of section 5.6, or in R^N."""
        from odeflow.order_parameters.committee.models import simulated
        from odeflow.order_parameters.committee.monte_carlo import simulate_runs

        scale = cluster_numbers(mixture, vars(mixture))[0]
        check_starts(self.hidden, mixture, scale[None], np.atleast_2d(start))
        law, learning, basis, begin, units = simulated(self, mixture, rule, adversary, start)
        options: dict[str, Any] = {"N": N, "examples": examples, "runs": runs, "method": method}
        return simulate_runs(law, learning, basis, begin, **options, seed=seed, progress=progress) / units
