r"""How the confidence of a classifier separates right from wrong predictions near the data, for theory and nets.

Wu, Jang, Chen, Chen and Jha (ICML 2018, arXiv 1711.08001) call a net (p, q, delta)-separating if with a chance of at
most q there is a point x' within delta of an example x that the net takes for a wrong class with a confidence of p or
more; they argue that adversarial training makes nets separate. Here their p is the `level`, because p is a prior, and
`share` is the least such q: the share of the examples for which the strongest attack of size delta reaches a confidence
in a wrong class of at least the level. At the level 1/2 it is the adversarial error.

In theory it is the adversarial error at another epsilon, delta - t / |w|. The output erf(x) of the seed model is read
as the confidence (1 + erf x) / 2 in the class +1. The attacked margin tau x is Gaussian with mean
rho R / 2 - tau b - delta |w| and variance v_tau |w|^2, so that, with t = erfinv(2 level - 1),

    share(level, delta) = sum_tau p_tau Phi(-(t + rho R / 2 - tau b - delta |w|) / (sqrt(v_tau) |w|)),

exact as N grows, with |w| = 1 or free. Nets have two logits; their confidence in the class +1 is 1 / (1 + exp(-z)) with
the difference z of the logits. Beside what the attack finds stand two predictions from the examples themselves: each
example's linear approximation, attacked within the same ball and box, exact for linear nets; and the theory's formula
with mean and variance of these attacked margins in each class, exact if they are Gaussian, too.

What the attack finds is a lower bound, exact for linear nets.

Lower confidence everywhere lowers the share at every level above 1/2, but separates nothing. What does not depend on
the scale of z: the share of the clean examples that are right with more confidence than the level that all but 1 % or
5 % of the attacked examples stay below (`accepted`), and the area under the ROC curve of the confidence for right
against wrong predictions at the attacked points (`auc`). In the seed model with p = 1/2 and b = 0 this area depends on
the adversarial error alone, and is 1/2 where that is: nets are compared with it (`symmetric_auc`). Nor can a linear
classifier gain from taking the most confident class in a ball around the attacked point, as the paper proposes: that is
the class at its centre.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from scipy.optimize import brentq
from scipy.special import erf, erfinv, expit, logit, ndtr, ndtri
from torch import Tensor

from deepcheck import checkpoint
from deepcheck.attacks.norms import NORMS, per_example
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import OneOf, UniformBall, Zero
from deepcheck.data import DataError, Images, load, two_class_images
from deepcheck.device import choose, describe
from deepcheck.evaluation import roc_auc
from deepcheck.match.margins import gradients
from deepcheck.training import Recipe, recipe, train
from deepcheck.training.online import draw, train_online
from odeflow import Adversary, GaussianMixture, LearningRule, integrate
from odeflow import load as load_result
from odeflow.provenance import provenance, save
from studies.confidence_figures import claims, describe_variables, figures, table
from studies.parallel import in_processes
from studies.registry import Outcome, Unavailable

Array = npt.NDArray[np.float64]

SEED = 20260219
LEVELS = expit(np.log(3) * np.arange(33) / 4)
MEASURED = LEVELS[::4]
"""Odds of 1, 3, 9, ..: the levels 0.5, 0.75, 0.9, 0.964, .., 0.99985."""
BOUNDS = (0.01, 0.05)
"""Shares of the attacked examples that may be wrong with more confidence than the level, for `accepted`."""

PRIORS = (0.5, 0.7)
RULES = {"fixed": LearningRule(), "free": LearningRule(normalised=False)}
ADVERSARIES = {"standard": Adversary(0.0), "at": Adversary(0.5)}
SIZES = (0.0, 0.25, 0.5, 1.0)
"""Radii delta of the attacks on the seed model."""
ALPHA = np.linspace(0, 100, 101)

NETS = {
    "linear, standard": ("linear", "standard"),
    "linear, AT": ("linear", "at"),
    "conv, standard": ("conv_small", "standard"),
    "conv, AT": ("conv_small", "at"),
    "conv, CCAT": ("conv_small", "ccat"),
}
"""The nets by name: model and method of training."""


@dataclass(frozen=True)
class Setting:
    """What the two forms of the study differ in."""

    N: int
    alpha: tuple[float, ...]
    """Times at which the linear nets that learn online are attacked."""
    online: int
    """Number of these nets for each model."""
    tests: int
    """Fresh examples on which each of them is attacked."""
    seeds: int
    """Number of nets of each kind that are trained on images."""
    epochs: int
    examples: int
    """Test images that are attacked."""
    epsilon: float
    """Training epsilon in L-infinity."""
    sizes: tuple[float, ...]
    """Radii delta of the attacks on images."""
    ccat_epochs: int = 9
    steps: int = 20
    restarts: int = 2
    validation: int = 200
    batch_size: int = 64


FULL = Setting(400, (10.0, 30.0, 100.0), 12, 500, 3, 3, 500, 0.1, (0.0, 0.05, 0.1, 0.15, 0.2))
DIGITS = Setting(
    100, (5.0, 20.0), 10, 500, 2, 15, 95, 0.2, (0.0, 0.1, 0.2, 0.3, 0.4), ccat_epochs=15, validation=20, batch_size=32
)


@dataclass(frozen=True)
class Gaussians:
    """The law of a signed margin tau z that is Gaussian in each class."""

    p: Array
    """Shares of the classes, shape (2,)."""
    mean: Array
    """Means of tau z, shape (..., 2)."""
    sd: Array
    """Standard deviations, shape (..., 2)."""

    def below(self, u: Any) -> Array:
        """Return the probability of a signed margin of at most u, which broadcasts against (...)."""
        result: Array = (self.p * ndtr((np.asarray(u)[..., None] - self.mean) / self.sd)).sum(-1)
        return result

    def auc(self) -> float:
        """Return the chance that of a right and a wrong prediction the right one has the larger margin |z|."""
        wrong = float(self.below(0.0))
        c = np.linspace(0, float((np.abs(self.mean) + 9 * self.sd).max()), 20_001)
        pairs = np.diff(self.below(c)) * (wrong - (self.below(-c[1:]) + self.below(-c[:-1])) / 2)
        return float(pairs.sum() / (wrong * (1 - wrong)))


def seed_margins(R: Any, b: Any, Q: Any, mixture: GaussianMixture, delta: Any) -> Gaussians:
    """Return the law of the seed model's signed margin after the strongest attack, with |w|^2 = Q (exact)."""
    R, b, length, delta = np.broadcast_arrays(R, b, np.sqrt(Q), delta)
    mean = mixture.rho * R / 2 - delta * length
    sd = length[..., None] * np.sqrt([mixture.v1, mixture.v2])
    return Gaussians(np.array([mixture.p, 1 - mixture.p]), np.stack([mean - b, mean + b], -1), sd)


def class_margins(margin: Array, label: npt.NDArray[np.int64]) -> Gaussians:
    """Return Gaussians with the means and variances of signed margins, shape (..., n), in the classes +1 and -1."""
    parts = [margin[..., label == tau] for tau in (1, -1)]
    return Gaussians(
        np.array([part.shape[-1] for part in parts]) / len(label),
        np.stack([part.mean(-1) for part in parts], -1),
        np.stack([part.std(-1) for part in parts], -1),
    )


def share(margin: Array, t: Array) -> Array:
    """Return the share of signed margins, shape (..., n), that are at most -t: shape (..., t)."""
    result: Array = (margin[..., None, :] <= -t[:, None]).mean(-1)
    return result


def accepted(clean: Array, attacked: Array, bound: float) -> tuple[float, float]:
    """Return the least threshold t >= 0 of |z| that at most this share of attacked examples exceeds while wrong.

    And the share of the clean examples that are right and exceed it. Both arguments are signed margins, shape (n,).
    """
    t = max(-float(np.sort(attacked)[int(bound * len(attacked) + 1e-9)]), 0.0)
    return t, float((clean > t).mean())


def symmetric_auc(error: Any) -> Array:
    """Return the AUC of the seed model with p = 1/2 where its adversarial error is this, at any epsilon (exact).

    With b = 0 it depends on nothing else: the attacked margin has the mean -Phi^-1(error) in units of its deviation.
    """
    errors = np.asarray(error, float)
    aucs = [
        Gaussians(np.array([1.0, 0.0]), np.full(2, -ndtri(one)), np.ones(2)).auc() if 0 < one < 1 else np.nan
        for one in errors.ravel()
    ]
    return np.reshape(aucs, errors.shape)


def auc_at(margin: Array) -> float:
    """Return the area under the ROC curve of |z| for right against wrong predictions; NaN if one is missing."""
    return roc_auc(margin[margin > 0], -margin[margin <= 0])


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; what has been trained and attacked is kept in the folder, and not done again."""
    if folder is None:
        raise ValueError("folder = None is not allowed: a folder for checkpoints and margins is")
    images, note = _images(quick=quick)
    digits = images.name.startswith("digits")
    setting = DIGITS if digits else FULL
    if digits and not quick:
        folder = folder.with_name(f"{folder.name}_digits")
    folder.mkdir(exist_ok=True)
    models = [(p, rule, training) for p in PRIORS for rule in RULES for training in ADVERSARIES]
    online = DIGITS if quick else FULL
    seeds = np.random.SeedSequence(SEED).generate_state(len(models))
    keys = [(net, seed) for net in NETS for seed in range(setting.seeds)]
    tasks: list[tuple[Any, ...]] = [(measure, _recipe(*key, setting, images), images, setting, folder) for key in keys]
    tasks += [(simulate, *one, online, int(seed)) for one, seed in zip(models, seeds, strict=True)]
    try:
        results = in_processes(_call, tasks)
    except checkpoint.CheckpointError as error:
        raise Unavailable(f"{error}; remove {str(folder)!r} to start afresh") from None
    measured, simulated = results[: len(keys)], results[len(keys) :]
    data = _collect(models, simulated, keys, measured, setting, online)
    options: dict[str, Any] = {
        "setting": asdict(setting),
        "online": asdict(online),
        "rules": RULES,
        "adversaries": ADVERSARIES,
    }
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), device=describe(choose("auto")), data=repr(images), **options
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    describe_variables(data)
    return Outcome(data, figures(data), table(data), tuple(claims(data)))


def _call(function: Callable[..., xr.Dataset], *arguments: Any) -> xr.Dataset:
    return function(*arguments)


def _images(*, quick: bool) -> tuple[Images, str]:
    """Return 3 against 7 of MNIST; of the digits for the quick form, or where MNIST is not there, with a note."""
    note = ""
    if not quick:
        try:
            return two_class_images(load("mnist"), 3, 7), note
        except DataError as error:
            note = f"Not MNIST, but scikit-learn's digits of 8 x 8 pixels, because {error}"
    return two_class_images(load("digits"), 3, 7), note


# --- the seed model: theory, and linear nets that learn online ---


def simulate(p: float, rule: str, training: str, setting: Setting, seed: int) -> xr.Dataset:
    """Train linear nets online, and return share, AUC and |w| at each time, after an attack on fresh examples."""
    mixture = GaussianMixture(p=p)
    generator = torch.Generator().manual_seed(seed)
    attack = PGD(
        "l2", "wrong_confidence", steps=4, relative_step_size=0.5, start=Zero(), bounds=(-np.inf, np.inf)
    )  # fmt: skip
    options: dict[str, Any] = {"N": setting.N, "alpha": setting.alpha, "runs": setting.online}
    times = []
    for _, nets in train_online(mixture, RULES[rule], ADVERSARIES[training], generator=generator, **options):
        parts = []
        for index in range(setting.online):
            net = nets.net(index)
            xi, tau = draw(mixture, (setting.tests,), setting.N, generator)

            def logits(x: Tensor, net: Any = net) -> Tensor:
                z = net(x)  # (1 + erf z) / 2 = Phi(sqrt(2) z)
                result: Tensor = torch.special.log_ndtr(np.sqrt(2) * torch.cat([-z, z], 1))
                return result

            classes = (tau[:, 0] > 0).long()
            found = attack(logits, xi, classes, epsilon=SIZES[1:], generator=generator)
            with torch.no_grad():
                points = [xi, *found.images]
                parts.append(torch.stack([(tau * net(x))[:, 0] for x in points]).double().numpy())
        margin = np.stack(parts)
        length = nets.weights[0].norm(dim=2)[:, 0].double().numpy()
        times.append(
            xr.Dataset(
                {
                    "simulated_share": (("run", "delta", "measured_level"), share(margin, _t_erf(MEASURED))),
                    "simulated_auc": (("run", "delta"), np.apply_along_axis(auc_at, -1, margin)),
                    "simulated_length": ("run", length),
                }
            )
        )
    return xr.concat(times, "simulated_alpha")


def theory(p: float, rule: str, training: str) -> xr.Dataset:
    """Return what theory says of one model: the share at all times; AUC and accepted at the end (exact)."""
    mixture = GaussianMixture(p=p)
    found = integrate(mixture, RULES[rule], ADVERSARIES[training], alpha=ALPHA)
    R, b = (found[name].values[:, None, None] for name in ("R", "b"))
    Q = found.Q.values[:, None, None] if "Q" in found else np.ones_like(R)
    law = seed_margins(R, b, Q, mixture, np.array(SIZES)[:, None])
    ends = [seed_margins(R[-1, 0, 0], b[-1, 0, 0], Q[-1, 0, 0], mixture, size) for size in SIZES]
    t = np.array([[_threshold(end, bound) for end in ends] for bound in BOUNDS])
    return xr.Dataset(
        {
            "share": (("alpha", "delta", "level"), law.below(-_t_erf(LEVELS))),
            "auc": ("delta", [end.auc() for end in ends]),
            "length": ("alpha", np.sqrt(Q[:, 0, 0])),
            "least_level": (("bound", "delta"), (1 + erf(t)) / 2),
            "accepted": (("bound", "delta"), 1 - ends[0].below(t)),
            "clean_share": ("level", 1 - ends[0].below(_t_erf(LEVELS))),
        }
    )


def _t_erf(level: Array) -> Array:
    result: Array = erfinv(2 * level - 1)
    return result


def _threshold(law: Gaussians, bound: float) -> float:
    """Return the least t >= 0 with a probability of at most `bound` of a signed margin below -t."""
    if law.below(0.0) <= bound:
        return 0.0
    return float(brentq(lambda t: float(law.below(-t)) - bound, 0.0, float((np.abs(law.mean) + 9 * law.sd).max())))


# --- nets on images ---


def _recipe(net: str, seed: int, setting: Setting, images: Images) -> Recipe:
    model, method = NETS[net]
    epsilon = setting.epsilon
    own: dict[str, Any] = {"test_epsilon": epsilon}
    if method == "at":
        own = {"epsilon": epsilon, "attack_steps": 5, "step_size": epsilon / 2.5, "width": None, "augmentation": "none"}
    if method == "ccat":
        own = {"epsilon": epsilon, "attack_steps": 5, "step_size": epsilon / 5, "epochs": setting.ccat_epochs}
    common = {"epochs": setting.epochs, "validation": setting.validation, "batch_size": setting.batch_size}
    return recipe(images.name.split()[0], method, model=model, seed=seed, **(common | own))


def measure(one: Recipe, images: Images, setting: Setting, folder: Path) -> xr.Dataset:
    """Train a net and return its margins, clean and attacked, measured and predicted: those in the folder, if there."""
    device = choose("auto")
    place = folder / f"{one.model}_{one.method.name}_{one.seed}"
    network = train(one, images, out=place, device=str(device), resume=True).network
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in network.state_dict().values())
    key = hashlib.sha256(weights + repr((setting, SEED, images.name)).encode()).hexdigest()
    file = place / "margins.nc"
    if file.exists() and (kept := load_result(file)).attrs.get("key") == key:
        return kept
    x = torch.tensor(images.test_images[: setting.examples]).to(device).float().div_(255)
    y = torch.tensor(images.test_labels[: setting.examples]).to(device)
    generator = torch.Generator(device).manual_seed(SEED + one.seed)
    attacked = attacked_margins(network, x, y, setting.sizes, setting.steps, setting.restarts, generator)
    few = min(100, setting.examples)
    longer = attacked_margins(network, x[:few], y[:few], (setting.epsilon,), 4 * setting.steps, 3, generator)[0]
    result = xr.Dataset(
        {
            "margin": (("net_delta", "example"), attacked),
            "linear_margin": (("net_delta", "example"), linear_margins(network, x, y, setting.sizes)),
            "longer_margin": ("few", longer),
            "label": ("example", np.where(y.cpu().numpy() == 1, 1, -1)),
        },
        attrs=provenance("studies.confidence.measure", seed=str(SEED), recipe=asdict(one)) | {"key": key},
    )
    save(result, file)
    return result


def attacked_margins(
    network: Any, x: Tensor, y: Tensor, sizes: Sequence[float], steps: int, restarts: int, generator: torch.Generator
) -> Array:
    """Return the least signed margin that an attack finds within each size and the box, shape (sizes, n).

    Of two classes, that is the largest confidence in the wrong one. An upper bound; exact for linear nets.
    """
    attack = PGD(
        "linf", "margin", steps=steps, relative_step_size=2.5 / steps, start=OneOf((Zero(), UniformBall())),
        restarts=restarts, stop_when_reached=False,
    )  # fmt: skip
    found = -attack(network, x, y, epsilon=list(sizes), generator=generator).objective.double().cpu().numpy()
    return np.asarray(np.minimum.accumulate(found, axis=0))


def linear_margins(network: Any, x: Tensor, y: Tensor, sizes: Sequence[float]) -> Array:
    """Return the signed margins after the strongest attack, if each example's linear approximation held (sizes, n)."""
    tau = torch.where(y == 1, 1.0, -1.0)
    parts = []
    batch = 500
    for (z, gradient), points, sign in zip(gradients(network, x, batch), x.split(batch), tau.split(batch), strict=True):
        down = -gradient * per_example(sign, x)
        moved = [(points + size * NORMS["linf"].steepest(down)).clamp(0, 1) - points for size in sizes]
        parts.append(torch.stack([sign * z - (down * move).flatten(1).sum(1) for move in moved]).double().cpu())
    return np.asarray(torch.cat(parts, 1).numpy())


def _summary(one: xr.Dataset, setting: Setting) -> xr.Dataset:
    """Return what is shown of one net's margins."""
    margin, linear, label = (one[name].values for name in ("margin", "linear_margin", "label"))
    law = class_margins(linear, label)
    law = Gaussians(law.p, law.mean[:, None], law.sd[:, None])
    pairs = [[accepted(margin[0], values, bound) for values in margin] for bound in BOUNDS]
    index = setting.sizes.index(setting.epsilon)
    few = one.sizes["few"]
    longer = share(one.longer_margin.values, logit(MEASURED)) - share(margin[index, :few], logit(MEASURED))
    return xr.Dataset(
        {
            "net_share": (("net_delta", "measured_level"), share(margin, logit(MEASURED))),
            "linear_share": (("net_delta", "level"), share(linear, logit(LEVELS))),
            "gaussian_share": (("net_delta", "level"), law.below(-logit(LEVELS))),
            "net_clean_share": ("level", (margin[0] >= logit(LEVELS)[:, None]).mean(-1)),
            "net_auc": ("net_delta", [auc_at(values) for values in margin]),
            "symmetric_auc": ("net_delta", symmetric_auc((margin <= 0).mean(-1))),
            "linear_auc": ("net_delta", [auc_at(values) for values in linear]),
            "net_least_level": (("bound", "net_delta"), expit([[t for t, _ in row] for row in pairs])),
            "net_accepted": (("bound", "net_delta"), [[part for _, part in row] for row in pairs]),
            "longer_gain": ((), float(longer.max())),
            "net_margin": (("net_delta", "example"), margin.astype(np.float32)),
        }
    )


# --- all together ---


def _collect(
    models: Sequence[tuple[float, str, str]],
    simulated: Sequence[xr.Dataset],
    nets: Sequence[tuple[str, int]],
    measured: Sequence[xr.Dataset],
    setting: Setting,
    online: Setting,
) -> xr.Dataset:
    """Return all as one Dataset: models along p, rule and training; nets along net and seed."""
    parts = {one: theory(*one).merge(points) for one, points in zip(models, simulated, strict=True)}
    data = _stacked(parts, {"p": PRIORS, "rule": tuple(RULES), "training": tuple(ADVERSARIES)})
    summaries = {one: _summary(result, setting) for one, result in zip(nets, measured, strict=True)}
    error = np.linspace(0.005, 0.995, 67)
    data = data.assign(auc_curve=("error", symmetric_auc(error))).assign_coords(error=error)
    data = data.merge(_stacked(summaries, {"net": tuple(NETS), "seed": tuple(range(setting.seeds))}))
    return data.assign_coords(
        level=LEVELS, measured_level=MEASURED, bound=list(BOUNDS), delta=list(SIZES), net_delta=list(setting.sizes),
        alpha=ALPHA, simulated_alpha=list(online.alpha), epsilon=ADVERSARIES["at"].epsilon, N=online.N,
        tests=online.tests, net_epsilon=setting.epsilon,
    )  # fmt: skip


def _stacked(parts: dict[Any, xr.Dataset], over: dict[str, tuple[Any, ...]]) -> xr.Dataset:
    """Return Datasets whose keys are the values along some dimensions, in order, as one."""
    rows = list(parts.values())
    for dim, values in reversed(over.items()):
        along = xr.DataArray(list(values), dims=dim, name=dim)
        rows = [xr.concat(rows[i : i + len(values)], along) for i in range(0, len(rows), len(values))]
    return rows[0]
