"""Clean against adversarial error along the training epsilon, for theory, linear nets and deep nets.

On the left the seed's mixture with unequal priors: the order-parameter theory, linear nets that learn online as it says,
and nets with a hidden layer. On the right images, 3 against 7: the theory on their means and covariances, linear
classifiers that learn by SGD from the images, and small convolutional nets after adversarial training (AT). For all of
them: the classification error E and the adversarial error S at one fixed size of the test's attack, in L2 and without
bounds, as the training epsilon grows; and the training epsilon with the least S.

Where MNIST is missing, the study takes the 8 x 8 images of scikit-learn, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from deepcheck.data import Images, two_classes
from deepcheck.device import describe
from deepcheck.training.online import draw, train_online
from odeflow import Adversary, GaussianMixture, LearningRule, adversarial_error, classification_error, sweep
from odeflow.anisotropic import Mixture, Samples, integrate, simulate
from odeflow.provenance import provenance
from studies.pairs import (
    NEGATIVE,
    POSITIVE,
    examples,
    fingerprint,
    images_of,
    kept,
    least_sizes,
    pair_recipe,
    place,
    trained,
)
from studies.parallel import in_processes
from studies.registry import Claim, Outcome
from studies.tradeoff_deep_figures import figure

Array = npt.NDArray[np.float64]

SEED = 20260723
MIXTURE, RULE = GaussianMixture(p=0.7), LearningRule()
HIDDEN = {"linear": (), "two layers": (20,)}
TEST = 0.5  # size of the test's attack on the mixture
LARGEST = 1.3  # training epsilon on the mixture
LINE = 53  # training epsilons of the lines
FINITE = 0.002  # by which a mean over finite nets may differ from theory
WORLDS = ("mixture", "images")


@dataclass(frozen=True)
class Online:
    """How nets learn from the mixture."""

    N: int
    alpha: float
    runs: dict[str, int]
    training: tuple[float, ...]
    drawn: int = 1000
    """Examples on which nets with a hidden layer are attacked."""


@dataclass(frozen=True)
class OnImages:
    """How classifiers learn from images."""

    title: str
    training: tuple[float, ...]
    test: float
    """Size of the test's attack, in L2."""
    largest: float
    """Largest training epsilon of the theory."""
    eta: float
    images: int
    runs: dict[str, int]
    epochs: int
    attacked: int
    """Test images that are attacked, of convolutional nets."""
    within: tuple[float, float]
    """How far E and S of the linear classifiers may be from the theory."""


ONLINE = {
    False: Online(100, 200.0, {"linear": 40, "two layers": 10}, (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25)),
    True: Online(50, 100.0, {"linear": 20, "two layers": 4}, (0.0, 0.25, 0.5, 1.0)),
}
ON_IMAGES = {
    "mnist": OnImages("MNIST", (0.0, 1.0, 2.0, 2.5, 3.0), 2.0, 3.2, 0.01, 6_000, {"linear": 10, "convolutional": 3}, epochs=4, attacked=300, within=(0.02, 0.06)),
    "digits": OnImages("scikit-learn's digits, not MNIST", (0.0, 0.4, 0.8, 1.2), 0.8, 1.3, 0.1, 2_000, {"linear": 10, "convolutional": 2}, epochs=15, attacked=95, within=(0.15, 0.25)),
}  # fmt: skip


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets and what was measured of them are kept in the folder, and not done again."""
    if folder is None:
        raise ValueError("folder = None is not allowed: a folder for checkpoints and records is")
    images, note = images_of(quick=quick)
    setting, online = ON_IMAGES[images.name], ONLINE[quick]
    training = online.training
    if images.name != "mnist" and not quick:
        folder = folder.with_name(f"{folder.name}_{images.name}")
    folder.mkdir(exist_ok=True)
    convolutional: list[tuple[Any, ...]] = [
        ("images", epsilon, seed, images, folder)
        for epsilon in setting.training
        for seed in range(setting.runs["convolutional"])
    ]
    nets: list[tuple[Any, ...]] = [(net, epsilon, online, folder) for net in HIDDEN for epsilon in training]
    tasks = [*convolutional, *nets]
    found = in_processes(_task, tasks)
    shape = len(setting.training), setting.runs["convolutional"]
    deep = np.array(found[: len(convolutional)]).reshape(*shape, 2)
    learned = np.array(found[len(convolutional) :]).reshape(len(HIDDEN), len(training), 2, -1)
    data = xr.merge([_on_mixture(online, training, learned), _on_images(images, setting, deep)], join="outer")
    data = _described(_best(data))
    data.attrs = provenance(
        f"studies.{name}", MIXTURE, RULE, seed=str(SEED), device=describe(place()), data=repr(images),
        setting=setting, online=online, hidden=HIDDEN, positive=POSITIVE, negative=NEGATIVE, w0=0.03, b0=0.0,
    ) | {"data_set": images.name, "note": note, "title": f"{setting.title}: {POSITIVE} against {NEGATIVE}"}  # fmt: skip
    data.attrs |= {"N": f"{online.N}", "alpha": f"{online.alpha:g}"}
    return Outcome(data, figure(data), _table(data), tuple(_claims(data, setting.within, quick=quick)))


def _task(kind: str, epsilon: float, *rest: Any) -> Any:
    """Return E and S of one net on images, or of all nets of a kind on the mixture."""
    return _image_net(epsilon, *rest) if kind == "images" else _online_nets(kind, epsilon, *rest)


# --- the mixture ---


def _online_nets(net: str, epsilon: float, online: Online, folder: Path) -> Array:
    """Return E and S of nets that learned online, shape (2, largest number of runs), padded with NaN.

    Exact for linear nets, from R and b; for others measured with PGD on drawn examples. Nets of all epsilons learn from
    the same examples.
    """
    runs = online.runs[net]

    def learn() -> xr.Dataset:
        generator = torch.Generator().manual_seed(SEED)
        options: dict[str, Any] = {"N": online.N, "alpha": [online.alpha], "runs": runs, "hidden": HIDDEN[net]}
        ((_, nets),) = train_online(MIXTURE, RULE, Adversary(epsilon), generator=generator, **options)
        if nets.depth == 1:
            R, b = nets.weights[0][:, 0, 0].double().numpy(), -nets.biases[0][:, 0, 0].double().numpy()
            errors = [classification_error(R, b, MIXTURE), adversarial_error(R, b, MIXTURE, TEST)]
        else:
            xi, tau = draw(MIXTURE, (online.drawn,), online.N, torch.Generator().manual_seed(SEED + 1))
            sizes: dict[str, Any] = {"epsilon": [0.0, TEST], "norm": "l2", "seed": SEED, "batch_size": online.drawn}
            least = [least_sizes(nets.net(index), xi, tau[:, 0], boxed=False, **sizes)[1] for index in range(runs)]
            plus = tau[:, 0].numpy() > 0
            weight = np.where(plus, MIXTURE.p / plus.sum(), (1 - MIXTURE.p) / (~plus).sum())  # the exact share
            errors = [(np.array(least) <= size) @ weight for size in (0.0, TEST)]
        return xr.Dataset({"errors": (("kind", "run"), np.array(errors))})

    file = folder / f"mixture_{net.replace(' ', '_')}_{epsilon:g}.nc"
    errors = kept(file, (SEED, MIXTURE, RULE, HIDDEN[net], TEST, epsilon, online), learn).errors.values
    return np.pad(errors, ((0, 0), (0, max(online.runs.values()) - runs)), constant_values=np.nan)


def _on_mixture(online: Online, training: tuple[float, ...], learned: Array) -> xr.Dataset:
    """Return theory and nets on the mixture."""
    line = np.linspace(0, LARGEST, LINE)

    def theory(grid: Array) -> tuple[Array, Array]:
        end = sweep(MIXTURE, RULE, Adversary(), over={"epsilon": grid}, alpha=[online.alpha]).isel(alpha=0)
        R, b = end.R.values, end.b.values
        return classification_error(R, b, MIXTURE), adversarial_error(R, b, MIXTURE, TEST)

    return _world("mixture", line, theory(line), np.array(training), theory(np.array(training)), list(HIDDEN), learned)


def _world(
    world: str, line: Array, on_line: tuple[Array, Array], training: Array, theory: tuple[Array, Array], nets: list[str],
    learned: Array,
) -> xr.Dataset:  # fmt: skip
    """Return E and S of theory and nets under names of their own; `learned` has shape (nets, training, 2, runs)."""
    at, over = f"{world}_training", f"{world}_line"
    dims = f"{world}_net", at, f"{world}_run"
    return xr.Dataset(
        {
            f"{world}_line_error": (over, on_line[0]),
            f"{world}_line_adversarial_error": (over, on_line[1]),
            f"{world}_theory_error": (at, theory[0]),
            f"{world}_theory_adversarial_error": (at, theory[1]),
            f"{world}_error": (dims, learned[:, :, 0]),
            f"{world}_adversarial_error": (dims, learned[:, :, 1]),
        },
        {at: training, over: line, f"{world}_net": nets, f"{world}_run": np.arange(learned.shape[-1])},
    )


# --- images ---


def _image_net(epsilon: float, seed: int, images: Images, folder: Path) -> Array:
    """Return E, on all test images, and S, on some of them, of a convolutional net."""
    setting = ON_IMAGES[images.name]
    label = f"{epsilon:g}_{seed}"
    recipe = pair_recipe(images.name, "l2", epsilon, seed=SEED + seed, epochs=setting.epochs)
    network = trained(recipe, images, folder / label)

    def measure() -> xr.Dataset:
        x, y = examples(images, 1_000_000)
        with torch.no_grad():
            wrong = torch.cat([network(part).argmax(1) for part in torch.split(x, 500)]) != y
        x, y = examples(images, setting.attacked)
        least = least_sizes(network, x, y, epsilon=[setting.test], norm="l2", seed=SEED, batch_size=100)[1]
        return xr.Dataset({"errors": ("kind", [float(wrong.double().mean()), float(np.mean(least <= setting.test))])})

    errors = kept(folder / f"{label}.nc", (SEED, setting.attacked, setting.test, fingerprint(network)), measure).errors
    return np.asarray(errors.values)


def _on_images(images: Images, setting: OnImages, deep: Array) -> xr.Dataset:
    """Return theory, linear classifiers and convolutional nets (errors of shape (training, runs, 2)) on images."""
    pair = two_classes(images, POSITIVE, NEGATIVE)
    mixture, train = Mixture.from_samples(pair.X_train, pair.y_train), Samples(pair.X_train, pair.y_train)
    rule, test = LearningRule.per_example(setting.eta, pair.N), Samples(pair.X_test, pair.y_test)
    options: dict[str, Any] = {"examples": [setting.images], "test_epsilon": [setting.test]}

    def theory(grid: Array) -> tuple[Array, Array]:
        ends = [integrate(mixture, rule, Adversary(epsilon, norm="l2"), **options) for epsilon in grid]
        return np.array([end.error.item() for end in ends]), np.array([end.adversarial_error.item() for end in ends])

    training, line = np.array(setting.training), np.linspace(0, setting.largest, LINE // 2)
    learned = np.full((2, len(training), 2, max(setting.runs.values())), np.nan)
    for k, epsilon in enumerate(training):
        runs = setting.runs["linear"]
        end = simulate(train, rule, Adversary(epsilon, norm="l2"), runs=runs, rng=SEED, test=test, **options)
        learned[0, k, :, :runs] = end.error.values[:, 0], end.adversarial_error.values[:, 0, 0]
    learned[1, ..., : deep.shape[1]] = deep.transpose(0, 2, 1)
    data = _world("images", line, theory(line), training, theory(training), ["linear", "convolutional"], learned)
    return data.assign(test_epsilon=("world", [TEST, setting.test])).assign_coords(world=list(WORLDS))


# --- what is said ---


def _best(data: xr.Dataset) -> xr.Dataset:
    """Add the training epsilon with the least adversarial error: on the line for theory, out of the measured for nets."""
    for world in WORLDS:
        line = data[f"{world}_line_adversarial_error"].values
        data[f"{world}_theory_best"] = data[f"{world}_line"].values[np.argmin(line)]
        mean = data[f"{world}_adversarial_error"].mean(f"{world}_run").values
        data[f"{world}_best"] = f"{world}_net", data[f"{world}_training"].values[np.argmin(mean, axis=1)]
    return data


def _described(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    kinds = {"error": "classification error", "adversarial_error": "adversarial error at the test epsilon"}
    names = {"world": "what is learned", "test_epsilon": "size of the perturbation in testing, L2"}
    for world in WORLDS:
        for key, text in kinds.items():
            names |= {
                f"{world}_line_{key}": f"{text}, {world}, theory, for the line",
                f"{world}_theory_{key}": f"{text}, {world}, theory, at the training epsilons of the nets",
                f"{world}_{key}": f"{text}, {world}, nets",
            }
        names |= {
            f"{world}_theory_best": "training epsilon with the least adversarial error, theory",
            f"{world}_best": "training epsilon with the least mean adversarial error, out of those of the nets",
            f"{world}_training": "size of the perturbation in training, L2",
            f"{world}_line": "size of the perturbation in training, L2, for the line",
            f"{world}_net": "kind of net",
            f"{world}_run": "net",
        }
    for name, text in names.items():
        data[name].attrs = {"long_name": text, "units": "1"}
    return data


def _claims(data: xr.Dataset, within: tuple[float, float], *, quick: bool) -> Iterator[Claim]:
    runs = int(data.mixture_error.sel(mixture_net="linear").isel(mixture_training=0).count())
    worst = []
    for key in ("error", "adversarial_error"):
        one = data[f"mixture_{key}"].sel(mixture_net="linear")
        noise = 4 * one.std("mixture_run", ddof=1) / np.sqrt(runs) + FINITE
        worst.append(abs(one.mean("mixture_run") - data[f"mixture_theory_{key}"]) / noise)
    found = max(float(one.max()) for one in worst)
    yield Claim(
        f"mixture, linear nets: E and S within 4 standard errors + {FINITE:g} (for the finite N) of theory",
        f"largest difference {found:.2f} of it",
        found <= 1,
    )
    for (key, name), tolerance in zip((("error", "E"), ("adversarial_error", "S")), within, strict=True):
        found = float(_far(data, key)[1:].max())
        yield Claim(
            f"images, linear classifiers after AT: {name} within {tolerance:g} of theory",
            f"largest difference {found:.3f}",
            found <= tolerance,
        )
    costs = _costs(data)
    if quick:  # too few images for the small errors
        costs = {name: cost for name, cost in costs.items() if name.startswith("mixture")}
    yield Claim(
        "the largest training epsilon costs clean error: E is above its least by more than its standard error",
        ", ".join(f"{name} {rise:.3f}" for name, (rise, _) in costs.items()),
        all(rise > noise for rise, noise in costs.values()),
    )
    over = data.mixture_theory_best - TEST
    yield Claim(
        "mixture, theory: the best training epsilon exceeds the test epsilon", f"by {float(over):.3f}", float(over) > 0
    )
    found = abs(float(data.mixture_best.sel(mixture_net="linear") - data.mixture_theory_best))
    yield Claim(
        "mixture, linear nets: the best training epsilon is within 0.25 of theory's", f"{found:.3f}", found <= 0.25
    )


def _far(data: xr.Dataset, key: str) -> xr.DataArray:
    """Return how far the linear classifiers on images are from theory, for each training epsilon."""
    mean = data[f"images_{key}"].sel(images_net="linear").mean("images_run")
    far: xr.DataArray = abs(mean - data[f"images_theory_{key}"])
    return far


def _costs(data: xr.Dataset) -> dict[str, tuple[float, float]]:
    """Return how far E after the largest training epsilon is above its least, and the standard error of that."""
    costs = {}
    for world in WORLDS:
        E = data[f"{world}_theory_error"]
        costs[f"{world}, theory"] = float(E[-1] - E.min()), 0.0
        for net in data[f"{world}_net"].values:
            one = data[f"{world}_error"].sel({f"{world}_net": net}).dropna(f"{world}_run", how="all")
            mean, spread = one.mean(f"{world}_run"), one.std(f"{world}_run", ddof=1)
            least, runs = int(np.argmin(mean.values)), one.sizes[f"{world}_run"]
            noise = np.sqrt((spread[-1] ** 2 + spread[least] ** 2) / runs)
            costs[f"{world}, {net}"] = float(mean[-1] - mean[least]), float(noise)
    return costs


def _table(data: xr.Dataset) -> str:
    lines = [data.attrs["note"]] if data.attrs["note"] else []
    for world in WORLDS:
        test = data.test_epsilon.sel(world=world).item()
        title = (
            f"mixture, p = {MIXTURE.p:g}, N = {data.attrs['N']}, alpha = {data.attrs['alpha']}"
            if world == "mixture"
            else data.attrs["title"]
        )
        nets = [str(net) for net in data[f"{world}_net"].values]
        lines += [
            f"{title}; S at L2 {test:g}",
            f"{'training':>9}{'theory':^18}" + "".join(f"{net:^34}" for net in nets),
            f"{'epsilon':>9}{'E':>9}{'S':>9}" + len(nets) * f"{'E':>15}{'S':>19}",
        ]
        for k, epsilon in enumerate(data[f"{world}_training"].values):
            keys = ("error", "adversarial_error")
            line = f"{epsilon:9g}" + "".join(f"{data[f'{world}_theory_{key}'][k].item():9.4f}" for key in keys)
            for net in nets:
                for key in keys:
                    one = data[f"{world}_{key}"].sel({f"{world}_net": net})[k].dropna(f"{world}_run").values
                    line += f"{one.mean():10.4f} ±{one.std(ddof=1):.4f}"
            lines.append(line)
        best = []
        for k, net in enumerate(nets):
            epsilon = data[f"{world}_best"].values[k]
            E = data[f"{world}_error"].sel({f"{world}_net": net, f"{world}_training": epsilon}).mean().item()
            one_class = world == "mixture" and abs(E - (1 - MIXTURE.p)) < 0.001
            best.append(f"{net} {epsilon:g}" + " (which knows one class only)" * one_class)
        theory = f"theory {data[f'{world}_theory_best'].item():.3g}"
        lines += [f"least S at training epsilon: {', '.join([theory, *best])}", ""]
    far = _far(data, "adversarial_error")
    lines.append(
        f"linear classifiers on images, S less theory: at most {float(far[1:].max()):.3f} after AT, {float(far[0]):.3f} after "
        "standard training"
    )
    return "\n".join(lines)
