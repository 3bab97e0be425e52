"""Deeper nets that learn online from the seed model's mixture, and the theory of the linear classifier.

Linear nets, and nets with one and two hidden layers of 20 ReLU units, learn from examples that are used once, with
the seed's learning rates, in the standard way and adversarially, by FGSM and by PGD. Beside the measured classification
error E, adversarial error S, effective overlap R_eff and robustness curve stand two theories:

- the seed model with its learning rates: exact for linear nets as N grows, and the calibration of all of this;
- the seed model with the deep net's own learning rates. What a step of SGD does to a net's output at the start of
  training has a part along B and a constant part, and these are what a linear net's step does with other rates eta_w
  and eta_b (`own_rates`). With them and the net's constant output at the start as the bias b(0), the seed model has no
  fitted parameter. Approximate: the rates change during learning, and the margins are not those of a linear net.

To tell what keeps deeper nets from learning under attack, some learn longer, with a smaller epsilon, or start from nets
that have learned without an attack (then both theories start with their R_eff and b_eff).

One file for all, in which a setting is selected by its name::

    one = load("deep_on_mixture.nc").sel(setting="N=100, p=0.7, two layers, epsilon=1, FGSM")
    one.R.plot(x="theory_alpha")
    one.R_eff.mean("run").plot.line("o", x="alpha")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.match import margins, match, measured_curve, predicted_curve
from deepcheck.training.online import draw, train_online
from deepcheck.training.stacked import StackedNets
from odeflow import Adversary, GaussianMixture, LearningRule, adversarial_error, integrate, robustness_curve
from odeflow.parameters import LABELS
from odeflow.provenance import provenance
from studies.deep_on_mixture_figures import figures
from studies.parallel import in_processes
from studies.registry import Claim, Outcome

NETS = {"linear": (), "two layers": (20,), "three layers": (20, 20)}
PRIORS = (0.5, 0.7)
SMALL, LARGE = 100, 1000  # N
RULE = LearningRule()  # the seed's: eta_w = 0.04, eta_b = 0.2
TEST = 1.0  # test epsilon of S(alpha)
TESTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the robustness curve
ALPHA = (0.0, 1.0, 3.0, 10.0, 20.0, 40.0, 70.0, 100.0)
LONGER = (300.0,)
END = 100.0  # time of the robustness curve
LINES = np.union1d(np.geomspace(1, 300, 51), ALPHA + LONGER)  # times of the theory
WARM = 300.0  # how long the nets learn without an attack, where adversarial training starts from these
STEPS = 10  # of the attack in the test
SEED = 20261121

STATE = ("R", "b", "error", "adversarial_error")

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What learns from what, and how it is attacked."""

    N: int
    p: float
    net: str
    epsilon: float
    attack: Literal["fgsm", "pgd"] = "fgsm"
    warm: bool = False
    """Whether the nets have learned without an attack before, until alpha = WARM."""
    longer: bool = False
    runs: int = 10

    @property
    def training(self) -> str:
        """How the nets learn, in words."""
        if not self.epsilon:
            return "standard"
        return f"epsilon={self.epsilon:g}, {self.attack.upper()}" + (", after standard" if self.warm else "")

    def __str__(self) -> str:
        return f"N={self.N}, p={self.p:g}, {self.net}, {self.training}"

    @property
    def model(self) -> tuple[GaussianMixture, LearningRule, Adversary]:
        """Mixture, rule and adversary."""
        return GaussianMixture(p=self.p), RULE, Adversary(self.epsilon)


def settings(*, quick: bool) -> list[Setting]:
    """Return all settings."""
    result = []
    for p in PRIORS:
        for N in (SMALL,) if quick else (LARGE, SMALL):
            longer = N == SMALL and not quick
            few = 10 if longer else 5
            for net in list(NETS)[: 2 if quick else 3]:
                runs = 20 if net == "linear" else few
                result += [Setting(N, p, net, epsilon, longer=longer, runs=runs) for epsilon in (0.0, 1.0)]
                if (net == "two layers" and not (quick and p == PRIORS[0])) or (longer and net != "linear"):
                    result.append(Setting(N, p, net, 1.0, "pgd", runs=few))
                if net != "linear" and longer:
                    result.append(Setting(N, p, net, 0.5, longer=longer, runs=few))
                    result += [Setting(N, p, net, epsilon, warm=True, runs=few) for epsilon in (0.5, 1.0)]
    return result


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    todo = settings(quick=quick)
    seeds = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(SEED).spawn(len(todo))]
    examples = 500 if quick else 1000
    points = in_processes(measure, [(setting, seed, examples) for setting, seed in zip(todo, seeds, strict=True)])
    parts = [one.merge(theories(setting, one)) for setting, one in zip(todo, points, strict=True)]
    data = described(xr.concat(parts, "setting", coords="all", data_vars="all", join="outer"))
    options: dict[str, Any] = {"settings": [asdict(one) for one in todo], "test_examples": examples, "tests": TESTS}
    data.attrs = provenance(f"studies.{name}", RULE, seed=str(SEED), **options)
    return Outcome(data, figures(data), _table(data), tuple(_claims(data)))


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


EXACT = {"exact_R": "R", "exact_b": "b", "exact_error": "error", "exact_adversarial_error": "adversarial_error"}
PREDICTIONS = {
    "overlap_prediction": "the theory for R_eff and b_eff",
    "gaussian_prediction": "Gaussian margins",
    "local_prediction": "margins that are linear at each example",
}
SAMPLED = {
    "measured_error": "error",
    "measured_adversarial_error": "adversarial_error",
    "measured_curve": "curve",
}


def misses(data: xr.Dataset, pairs: dict[str, str]) -> Array:
    """Return what mean and theory differ by, for all linear nets, after the start; its standard error, and 1/N.

    Shape (3, number of means).
    """
    linear = data.isel(setting=data.net == "linear", alpha=data.alpha > 0)
    linear = linear.sel(theory_alpha=linear.alpha.values)
    found = []
    for measured, theory in pairs.items():
        values, expected = linear[measured], linear[theory]
        if "alpha" in values.dims:
            expected = expected.rename(theory_alpha="alpha")
        error = values.std("run", ddof=1) / np.sqrt(values.count("run"))
        three = xr.broadcast(values.mean("run") - expected, error, 1 / linear.N)
        found.append(np.stack([one.values.ravel() for one in three]))
    result = np.concatenate(found, axis=1)
    there: Array = result[:, np.isfinite(result).all(axis=0)]
    return there


def _claims(data: xr.Dataset) -> Iterator[Claim]:
    """Check the linear nets against the theory, and say what is as clear in the deeper ones."""
    sizes = " and ".join(f"{N:g}" for N in np.unique(data.N))
    forms = {"R, b, and E and S that follow from them": EXACT, "E, S and robustness curve on test examples": SAMPLED}
    for text, pairs in forms.items():
        miss, error, small = misses(data, pairs)
        share = float((abs(miss) / (4 * error + small)).max())
        yield Claim(
            f"linear nets, N = {sizes}: mean {text} within 4 standard errors + 1/N of the theory, at all times",
            f"largest difference is {share:.2f} of that",
            share <= 1,
        )
    if (data.N == LARGE).any():
        miss, error, _ = misses(data.isel(setting=data.N == LARGE), EXACT)
        size = float(np.sqrt(((miss / error) ** 2).mean()))
        yield Claim(
            f"linear nets, N = {LARGE}: root mean square of (mean - theory) in standard errors, of R, b, E, S, below 1.5",
            f"{size:.2f}",
            size < 1.5,
        )

    deep = data.isel(setting=data.net != "linear")
    end = deep.sel(alpha=END, theory_alpha=END)
    standard = end.isel(setting=end.epsilon == 0)
    ratio = float((standard.R_eff.mean("run") / standard.R).max())
    yield Claim(
        f"standard training, alpha = {END:g}: mean R_eff of deeper nets below 0.6 of the linear theory's R",
        f"at most {ratio:.2f} of it",
        ratio < 0.6,
    )
    cold = end.isel(setting=(end.epsilon == 1) & ~end.training.str.contains("after"))
    largest, least = float(cold.R_eff.max()), float(cold.R.min())
    yield Claim(
        f"AT with epsilon = 1 from a random start, alpha = {END:g}: R_eff of every deeper net below 0.25, R of the theory "
        "above 0.75",
        f"at most {largest:.3f}; at least {least:.3f}",
        largest < 0.25 and least > 0.75,
    )
    both = end.isel(setting=np.isin(end.epsilon, (0, 1)) & ~end.training.str.contains("after"))
    mean = both.R_eff.mean("run")
    seed, own = abs(mean - both.R), abs(mean - both.own_R)
    yield Claim(
        f"the same trainings: with the nets' own rates the theory misses their mean R_eff at alpha = {END:g} by less than "
        "half of what it misses with the seed's rates",
        f"at most {float((own / seed).max()):.2f} of it; by {float(own.max()):.2f} instead of {float(seed.min()):.2f} "
        f"to {float(seed.max()):.2f}",
        bool((own < seed / 2).all()),
    )
    gap = abs(both.measured_adversarial_error - both.local_prediction).mean("run")
    rough = abs(both.measured_adversarial_error - both.overlap_prediction).mean("run")
    yield Claim(
        "the same trainings: S measured with PGD differs from that of locally linear margins by less than 0.08, in the "
        "mean over the nets",
        f"at most {float(gap.max()):.3f}; from the theory's S at R_eff and b_eff up to {float(rough.max()):.3f}",
        float(gap.max()) < 0.08,
    )


def _table(data: xr.Dataset) -> str:
    """Return E, S and R_eff at alpha = 100, with theory; own rates; how well S is predicted."""
    head = f"{'N':>5}{'p':>5}  {'net':13}{'training':35}{'E':>11}{'theory':>7}{'S':>11}{'theory':>7}{'R_eff':>11}"
    lines = [head + f"{'theory':>7}{'own':>6}"]
    pairs = {"measured_error": "error", "measured_adversarial_error": "adversarial_error", "R_eff": "R"}
    for setting in data.setting.values:
        one = data.sel(setting=setting, alpha=END, theory_alpha=END)
        row = f"{one.N.item():5d}{one.p.item():5.1f}  {one.net.item():13}{one.training.item():35}"
        for name, theory in pairs.items():
            spread = round(1e3 * one[name].std(ddof=1).item())
            row += f"{one[name].mean().item():.3f}({spread})".rjust(11) + f"{one[theory].item():7.3f}"
        lines.append(row + f"{one.own_R.item():6.2f}")
    lines.append(
        f"alpha = {END:g}, S at test epsilon {TEST:g}; in brackets: s.d. of the nets, in units of the last digit"
    )
    lines.append("own: R of the theory with the nets' own rates, which at random starts are")
    for net in dict.fromkeys(data.net.values):
        some = data.isel(setting=(data.net == net) & ~data.training.str.contains("after"))
        lines.append(
            f"  {net:13} eta_w = {float(some.own_eta_w.mean()):.4f} ({float(some.own_eta_w.std()):.4f}), eta_b = "
            f"{float(some.own_eta_b.mean()):.3f} ({float(some.own_eta_b.std()):.3f}), b(0) = 0 "
            f"({float(some.b_eff.sel(alpha=0).std()):.2f})"
        )
    deep = data.isel(setting=data.net != "linear").sel(alpha=END)
    lines.append(
        f"S of deeper nets at alpha = {END:g}, mean and largest size of its difference from the S predicted by"
    )
    for name, text in PREDICTIONS.items():
        gap = abs(deep.measured_adversarial_error - deep[name])
        cells = [f"standard {_two(gap[deep.epsilon == 0])}", f"after AT {_two(gap[deep.epsilon > 0])}"]
        lines.append(f"  {text:42}" + ", ".join(cells))
    return "\n".join(lines)


def _two(gap: xr.DataArray) -> str:
    return f"{float(gap.mean()):.3f}, {float(gap.max()):.3f}"


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
    }
    for name in data.variables:
        data[name].attrs = {"long_name": names[str(name)], "units": "1"}
    return data
