r"""Two-layer nets in PyTorch that learn by the theory's own rule, and that theory.

The nets of `studies.deep_on_mixture.measure` have a normalised output and the rates of a linear rule, so that a theory of
linear classifiers can be asked of them. Here nets with 2, 3 and 4 hidden units learn as `odeflow.order_parameters.Committee`
does: free weights, the squared loss of phi, one example a step, all weights trained. With gradients and attacks by automatic
differentiation in R^N they share nothing with the theory but the model. Nets with 20 units are beyond a quadrature in 20
dimensions; beside them stands the reduced simulation, which is exact in law at any N, from the same starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate
from odeflow.order_parameters import Committee, random_start
from odeflow.order_parameters.base import flat, unflat
from studies.common.parallel import in_processes
from studies.common.two_layers import Attack, Clusters, Nets, fgsm, pgd, sgd

__all__ = ["MANY", "Setting", "committees", "entries", "measure_committee", "measure_many", "settings"]

Array = npt.NDArray[np.float64]
STATE = ("M", "Q", "c", "theta", "b")
MIXTURE = GaussianMixture(p=0.7)
TIMES = (0.0, 0.5, 1.0, 2.0, 3.5, 5.0)
MOST = 4  # hidden units with a theory
MANY = 20
TESTS = 2000  # examples for each net at the end
STEPS, STEP = 5, 0.4


@dataclass(frozen=True)
class Setting:
    """What learns from the mixture, and how it is attacked."""

    hidden: int
    activation: str
    attack: str
    epsilon: float = 0.5
    N: int = 1000
    runs: int = 32

    def __str__(self) -> str:
        return f"{self.hidden} {'ReLU' if self.activation == 'relu' else self.activation}, {self.attack.upper()}"

    @property
    def network(self) -> Committee:
        """Everything is trained."""
        return Committee(self.hidden, self.activation, eta_c=0.2, eta_theta=0.3, tolerance=1e-5)  # type: ignore[arg-type]

    @property
    def rule(self) -> LearningRule:
        """Of the weights and the output bias."""
        return LearningRule(0.5, 0.5)

    @property
    def adversary(self) -> Adversary:
        """What attacks in the theory."""
        return Adversary(self.epsilon, attack=self.attack, attack_steps=STEPS, attack_step=STEP)  # type: ignore[arg-type]

    @property
    def torch_attack(self) -> Attack:
        """The same in R^N."""
        return fgsm(self.epsilon) if self.attack == "fgsm" else pgd(self.epsilon, STEPS, STEP)

    @property
    def start(self) -> dict[str, Any]:
        """Weights of different lengths that see little of the centre, and output weights of both signs."""
        k = np.arange(self.hidden)
        M = 0.15 * (-1.0) ** k + 0.05 * k
        Q = 0.1 * np.ones((self.hidden, self.hidden)) + np.diag(0.5 + 0.1 * k)
        return {"M": M, "Q": Q, "c": 0.8 * (-1.0) ** k + 0.1, "theta": 0.1 * k - 0.1, "b": np.zeros(())}


def settings(*, quick: bool) -> list[Setting]:
    """Return all settings: numbers of units, kinds, attacks."""
    if quick:
        return [Setting(2, "erf", "fgsm", N=200, runs=20), Setting(2, "relu", "pgd", N=200, runs=20)]
    return [
        Setting(2, "erf", "fgsm"),
        Setting(2, "erf", "pgd"),
        Setting(2, "relu", "fgsm"),
        Setting(3, "erf", "pgd"),
        Setting(3, "relu", "fgsm"),
        Setting(4, "erf", "fgsm"),
        Setting(4, "relu", "fgsm", runs=16),
        Setting(4, "relu", "pgd", runs=16),
    ]


def committees(*, quick: bool, seed: int) -> xr.Dataset:
    """Return all of them, and the nets with 20 units."""
    todo = settings(quick=quick)
    seeds = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(len(todo) + 1)]
    parts = in_processes(measure_committee, list(zip(todo, seeds[1:], strict=True)))
    many = measure_many(*((200, 20) if quick else (1000, 16)), seeds[0])
    data = xr.concat(parts, "committee", coords="all", data_vars="all", join="outer", compat="no_conflicts")
    return data.merge(many)


def entries() -> list[str]:
    """Return the names of what is compared, for the largest number of units."""
    one = range(1, MOST + 1)
    pairs = [f"Q{k}{l}" for k in one for l in range(k, MOST + 1)]
    return [*(f"M{k}" for k in one), *pairs, *(f"c{k}" for k in one), *(f"theta{k}" for k in one), "b", *_ERRORS]


_ERRORS = ("error", "fgsm_error")


def _named(state: dict[str, Any], errors: dict[str, Any]) -> Array:
    """Return a state of shape (..., K) and so on as entries, shape (..., entries): NaN for units that are not there."""
    K = state["M"].shape[-1]
    lead = state["M"].shape[:-1]
    values = {"b": state["b"], **errors}
    for k in range(K):
        values |= {f"{name}{k + 1}": state[name][..., k] for name in ("M", "c", "theta")}
        values |= {f"Q{k + 1}{l + 1}": state["Q"][..., k, l] for l in range(k, K)}
    return np.stack([np.broadcast_to(values.get(name, np.nan), lead) for name in entries()], axis=-1)


def measure_committee(one: Setting, seed: int) -> xr.Dataset:
    """Return the order parameters of nets in R^N over alpha and the theory's, and both errors at the end."""
    solved = integrate(
        MIXTURE, one.rule, one.adversary, network=one.network, alpha=TIMES, start=one.start, test_epsilon=one.epsilon
    )
    state = {name: solved[name].values for name in STATE}
    theory = _named(state, {name: solved[name].values for name in _ERRORS})
    generator = torch.Generator().manual_seed(seed)
    found = []
    nets = _nets(one, one.start)
    for after in _trained(one, nets, generator):
        found.append(_named(_state(after), {}))
    measured = np.stack(found, axis=1)
    for name, values in zip(_ERRORS, _tested(one, nets, generator), strict=True):
        measured[:, -1, entries().index(name)] = values
    names = "committee_run", "committee_alpha", "entry"
    return xr.Dataset(
        {"committee_measured": (names, measured), "committee_theory": (names[1:], theory)},
        {
            "committee_alpha": list(TIMES), "entry": entries(), "committee_run": range(one.runs), "committee": str(one),
            "committee_N": one.N, "hidden": one.hidden, "committee_attack": one.attack, "units": one.activation,
        },
    )  # fmt: skip


def _data() -> Clusters:
    half = MIXTURE.rho / 2
    return Clusters(
        np.array([[half], [-half]]), np.array([MIXTURE.p, 1 - MIXTURE.p]), np.ones(2), np.array([1.0, -1.0])
    )


def _nets(one: Setting, start: dict[str, Any]) -> Nets:
    along = np.asarray(start["M"])[..., None] / (MIXTURE.rho / 2)
    rest = (start[name] for name in ("Q", "c", "theta", "b"))
    return Nets.with_overlaps(along, *rest, nets=one.runs, N=one.N, relu=one.activation == "relu")


def _trained(one: Setting, nets: Nets, generator: torch.Generator) -> Any:
    rates = {"eta": one.rule.eta_w, "eta_b": one.rule.eta_b}
    rates |= {"eta_c": one.network.eta_c, "eta_theta": one.network.eta_theta}
    counts = [round(alpha * one.N) for alpha in TIMES]
    return sgd(nets, _data(), one.torch_attack, **rates, examples=counts, generator=generator)


def _state(nets: Nets) -> dict[str, Array]:
    M, Q = nets.overlaps(np.array([[MIXTURE.rho / 2]]))
    return {"M": M[..., 0], "Q": Q, **{name: getattr(nets, name).numpy().copy() for name in ("c", "theta", "b")}}


def _tested(one: Setting, nets: Nets, generator: torch.Generator, block: int = 50) -> tuple[Array, Array]:
    """Return the errors of each net on new examples, clean and under FGSM on the loss, shapes (nets,)."""
    wrong, attack, data = np.zeros((2, one.runs)), fgsm(one.epsilon), _data()
    for _ in range(TESTS // block):
        drawn = [data.draw(one.runs, one.N, generator) for _ in range(block)]
        xi, tau = (torch.stack(part) for part in zip(*drawn, strict=True))
        for i, examples in enumerate((xi, attack(nets, xi, tau))):
            wrong[i] += (tau * nets.output(examples) <= 0).sum(0).numpy()
    return wrong[0] / TESTS, wrong[1] / TESTS


# --- 20 units ---

_GROUPS = ("R_out", "b", "M+", "M-", "Q+", "Q-", "Q++", "Q--", "Q+-", "c+", "c-", "theta+", "theta-")


def measure_many(N: int, runs: int, seed: int) -> xr.Dataset:
    """Return means over the units of like sign of nets with 20 ReLU units, in R^N and by reduced simulation, over alpha.

    R_out is the overlap of sum_k c_k w_k with the centre, as a cosine. A third, the reduced simulation without an attack, is
    a rival.
    """
    one = Setting(MANY, "relu", "fgsm", N=N, runs=runs)
    drawn = random_start(one.network, MIXTURE, size=0.7, N=N, runs=runs, rng=seed)
    sign = (-1.0) ** np.arange(MANY)
    start = {**drawn, "c": sign / np.sqrt(MANY), "theta": np.zeros(MANY), "b": np.zeros(())}
    generator = torch.Generator().manual_seed(seed)
    torch_nets = [_state(nets) for nets in _trained(one, _nets(one, start), generator)]
    measured = {name: np.stack([state[name] for state in torch_nets], axis=1) for name in STATE}
    variables = one.network.variables(one.rule, MIXTURE)
    full = {
        name: np.broadcast_to(start[name], (runs, *variable.sizes))
        for name, variable in zip(STATE, variables, strict=True)
    }
    examples = np.array([round(alpha * N) for alpha in TIMES])
    parts = {"many_measured": _grouped(measured, sign)}
    for i, (name, adversary) in enumerate((("many_reduced", one.adversary), ("many_standard", Adversary()))):
        states = one.network.simulate(
            MIXTURE, one.rule, adversary, N=N, examples=examples, runs=runs, method="reduced", progress=False,
            seed=np.random.SeedSequence(seed + 1 + i), start=flat(full, variables),
        )  # fmt: skip
        parts[name] = _grouped(unflat(states, variables), sign)
    dims = "many_run", "committee_alpha", "group"
    coords: dict[str, Any] = {
        "committee_alpha": list(TIMES),
        "group": list(_GROUPS),
        "many_run": range(runs),
        "many_N": N,
    }
    return xr.Dataset({name: (dims, values) for name, values in parts.items()}, coords)


def _grouped(state: dict[str, Any], sign: npt.NDArray[Any]) -> Array:
    """Return means over groups of units, shape (..., groups)."""
    up, down = sign > 0, sign < 0
    c, M, Q = state["c"], state["M"], state["Q"]
    length = np.sqrt(np.einsum("...k,...kl,...l->...", c, Q, c))
    values = {"R_out": (c * M).sum(-1) / (MIXTURE.rho / 2 * length), "b": state["b"]}
    own = np.diagonal(Q, axis1=-2, axis2=-1)
    for mark, group in (("+", up), ("-", down)):
        values |= {f"{name}{mark}": state[name][..., group].mean(-1) for name in ("M", "c", "theta")}
        inside = Q[..., group, :][..., group]
        n = int(group.sum())
        values[f"Q{mark}"] = own[..., group].mean(-1)
        values[f"Q{mark}{mark}"] = (inside.sum((-2, -1)) - own[..., group].sum(-1)) / (n * (n - 1))
    values["Q+-"] = Q[..., up, :][..., down].mean((-2, -1))
    return np.stack([values[name] for name in _GROUPS], axis=-1)
