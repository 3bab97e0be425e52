"""Do deep nets follow the theory on pairs of CIFAR-10 and MNIST: three studies with residual nets of full width, 5 seeds.

The work is cut into units of about a minute: one training of one net, and all that a study measures of it. They are done
in the order of their importance, each is saved when it is done, and none is done that is there already, so that
several short runs complete the card.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards._records import packed, restored, unpacked, written
from benchmarks.cuda.cards._summary import Parts, figure, headline, summarised, table
from deepcheck.data import Images, two_class_images
from odeflow.anisotropic import Mixture
from studies.collapse import study as collapse
from studies.collapse.measure import Convolutional, linear_on_images
from studies.collapse.measure import Pair as Linear
from studies.collapse.plan import Plan, plan_of
from studies.common.attacked import Norm
from studies.common.images import placed
from studies.common.subject import Subject
from studies.confidence import plan as confidence_plan
from studies.confidence import study as confidence
from studies.confidence.measure import Setting as ConfidenceSetting
from studies.deep_on_mnist import plan as deep_plan
from studies.deep_on_mnist import study as deep
from studies.deep_on_mnist.measure import Setting as DeepSetting

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CARD", "Pair", "Unit", "pairs_of", "units_of"]

Array = npt.NDArray[np.float64]

SEEDS = 5
PAIRS = (
    ("cifar10", ("airplane", "ship")),
    ("cifar10", ("cat", "dog")),
    ("mnist", ("3", "7")),
    ("mnist", ("4", "9")),
    ("mnist", ("0", "1")),
)
NET = "resnet_ccat"
COST = {"deep_on_mnist": 150.0, "confidence": 120.0, "collapse": 60.0}
"""The studies in the order of their importance, and the seconds that are allowed for the first unit of a kind on a GPU: the
next go by what it took."""
QUICK_COST = 1.0


@dataclass(frozen=True, eq=False)
class Pair:
    """Two classes of a data set, and what each study does with them."""

    subject: Subject
    images: Images
    deep: DeepSetting
    confidence: ConfidenceSetting
    collapse: Plan

    @property
    def name(self) -> str:
        """What the pair is called."""
        return " ".join([self.subject.dataset, *self.subject.classes])


@dataclass(frozen=True, eq=False)
class Unit:
    """One training, and what a study measures of the net; or what it needs of theory and linear classifiers."""

    pair: Pair
    study: str
    what: str
    seed: int
    settings: str
    """Digest of what it is done with: what other settings made is not taken for it."""
    run: Callable[[], Sequence[xr.Dataset]]

    @property
    def kind(self) -> str:
        """Units that cost the same have the same."""
        return f"{self.pair.subject.dataset}/{self.study}/{self.what}"

    @property
    def name(self) -> str:
        """The name under which it is saved."""
        return f"{self.pair.name}/{self.study}/{self.what}/seed {self.seed}"


def pairs_of(work: Work) -> list[Pair]:
    """Return the pairs in the order of their importance."""
    if work.quick:
        return [_quick_pair(classes, work.images("mnist")) for classes in (("3", "7"), ("4", "9"))]
    sets = {name: work.images(name) for name in dict.fromkeys(name for name, _ in PAIRS)}
    return [_pair(Subject(name, classes, SEEDS, NET), sets[name]) for name, classes in PAIRS]


def _pair(subject: Subject, images: Images) -> Pair:
    setting = deep_plan.setting_of(subject, images.name)
    plan = plan_of(subject, images.name)
    linf = replace(
        plan,
        pairs=tuple(one for one in plan.pairs if one.norm == "linf"),
        convolutional=tuple(one for one in plan.convolutional if one.norm == "linf"),
    )
    setting = replace(setting, runs={**setting.runs, "linear": 10})
    return Pair(subject, images, setting, confidence_plan.setting_of(subject, images.name), linf)


def _quick_pair(classes: tuple[str, str], images: Images) -> Pair:
    """Return a pair of digits with small nets and little of everything, in two seeds."""
    subject = Subject("digits", classes, 2, "conv_small")
    one, net = _pair(subject, images), "conv_small"
    few: dict[Norm, tuple[float, ...]] = {"linf": (0.1,)}
    setting = replace(
        one.deep, trainings=few, nets={net: few}, recipes={net: {"epochs": 2}}, examples={"linear": 20, net: 20},
        checked={net: 20}, steps=3, of_linearity=5, images=200, runs={"linear": 2, net: 2},
    )  # fmt: skip
    margins = replace(
        one.confidence, epochs=2, ccat_epochs=2, examples=20, steps=3, restarts=1, sizes=(0.0, 0.2, 0.4), seeds=2
    )
    plan = plan_of(subject, images.name, quick=True)
    plan = replace(
        plan,
        pairs=tuple(replace(pair, sizes=(0.0, 1.4), eta=0.02, examples=500, runs=2) for pair in plan.pairs),
        convolutional=tuple(replace(net, images=150, epochs=1) for net in plan.convolutional),
    )
    return Pair(subject, images, setting, margins, plan)


# What there is to do.


def units_of(work: Work, pairs: Sequence[Pair], pool: ThreadPoolExecutor) -> Iterator[Unit]:
    """Yield all units in the order of their importance.

    Of each data set seed by seed, of a seed study by study, of a study pair by pair: so that there is soon something
    of everything, and standard errors come next.
    """
    theories = {pair.name: Theory(work, pair, pool) for pair in pairs}
    for dataset in dict.fromkeys(pair.subject.dataset for pair in pairs):
        some = [pair for pair in pairs if pair.subject.dataset == dataset]
        for seed in range(max(pair.subject.seeds or SEEDS for pair in some)):
            for study in COST:
                for pair in some:
                    folder = work.folder / pair.name.replace(" ", "_") / study
                    folder.mkdir(parents=True, exist_ok=True)
                    if study == "deep_on_mnist":
                        yield from _of_deep(pair, seed, folder, theories[pair.name])
                    elif study == "confidence":
                        yield from _of_confidence(pair, seed, folder)
                    else:
                        yield from _of_collapse(pair, seed, folder)


def _of_deep(pair: Pair, seed: int, folder: Path, theory: Theory) -> Iterator[Unit]:
    """Yield a seed's nets, the largest epsilon of the first norm first; with the first seed the linear classifiers."""
    setting, digest = pair.deep, theory.settings
    (net,) = setting.nets
    *attacked, standard = deep.trainings(setting, net)
    order = [standard, *sorted(attacked, key=lambda one: (one[0] != attacked[0][0], -one[1]))]
    for norm, epsilon in order:
        what = f"{norm} {epsilon:g}" if epsilon else "standard"

        def of_net(norm: Norm = norm, epsilon: float = epsilon) -> list[xr.Dataset]:
            theory.begin()
            return deep.measured_net(net, norm, epsilon, seed, pair.images, folder, theory, setting)

        yield Unit(pair, "deep_on_mnist", what, seed, digest, of_net)
    if not seed:

        def of_linear() -> list[xr.Dataset]:
            found = [
                deep.measured_net("linear", norm, epsilon, None, pair.images, folder, theory, setting)
                for norm, epsilon in theory
            ]
            return [one for (one,) in found]

        yield Unit(pair, "deep_on_mnist", "linear", 0, digest, of_linear)


def _of_confidence(pair: Pair, seed: int, folder: Path) -> Iterator[Unit]:
    """Yield a seed's nets, the deep ones first."""
    setting = pair.confidence
    for net in sorted(setting.nets, key=lambda net: net.startswith("linear")):

        def of_net(net: str = net) -> list[xr.Dataset]:
            images = two_class_images(pair.images, *setting.classes)
            found = confidence.net_on_images(net, seed, images, setting, folder)
            return [confidence.summary(found, setting).drop_vars("net_margin")]

        yield Unit(pair, "confidence", net, seed, _digest(pair, replace(setting, seeds=0)), of_net)


def _of_collapse(pair: Pair, seed: int, folder: Path) -> Iterator[Unit]:
    """Yield a seed's nets over epsilon; with the first seed the linear classifiers."""
    for one in pair.collapse.convolutional:
        for size in one.sizes:

            def of_net(one: Convolutional = one, size: float = size) -> list[xr.Dataset]:
                return [collapse.net_on_images(one, pair.images, size, seed, folder)]

            what = f"{one.kind}, size {size:g}"
            yield Unit(pair, "collapse", what, seed, _digest(pair, replace(one, seeds=0)), of_net)
    for linear in pair.collapse.pairs if not seed else ():

        def of_linear(linear: Linear = linear) -> list[xr.Dataset]:
            return [linear_on_images(linear, pair.images)]

        yield Unit(pair, "collapse", f"linear, {linear.norm}", 0, _digest(pair, linear), of_linear)


def _digest(pair: Pair, settings: object) -> str:
    """Return a digest of the images, wherever they lie, and of what is done with them."""
    images = pair.images.name, pair.images.train_images.shape, pair.images.test_images.shape
    return hashlib.sha256(repr((images, settings)).encode()).hexdigest()[:8]


class Theory(Mapping[tuple[Norm, float], tuple[Array, Array]]):
    """What linear classifiers learn in theory, by training: computed on the processor, beside what the GPU does.

    It is saved with what the card has found.
    """

    def __init__(self, work: Work, pair: Pair, pool: ThreadPoolExecutor) -> None:
        self._work, self._pair, self._pool = work, pair, pool
        self._futures: dict[tuple[Norm, float], Future[tuple[Array, Array]]] = {}
        self._mixture: Mixture | None = None
        self.settings = _digest(pair, replace(pair.deep, runs={}))

    def begin(self) -> None:
        """Compute what is not there, if that is not being done."""
        for one in self:
            if one not in self._futures and self._name(one) not in self._saved:
                self._futures[one] = self._pool.submit(self._learned, *one)

    def __iter__(self) -> Iterator[tuple[Norm, float]]:
        return iter(deep.linear_trainings(self._pair.deep))

    def __len__(self) -> int:
        return len(deep.linear_trainings(self._pair.deep))

    def __getitem__(self, training: tuple[Norm, float]) -> tuple[Array, Array]:
        self.begin()
        name = self._name(training)
        if name not in self._saved:
            curve, w = self._futures.pop(training).result()
            self._saved[name] = {"curve": packed(curve), "w": packed(w)}
        return unpacked(self._saved[name]["curve"]), unpacked(self._saved[name]["w"])

    @property
    def _saved(self) -> dict[str, dict[str, str]]:
        saved: dict[str, dict[str, str]] = self._work.found.setdefault("theory", {})
        return saved

    def _name(self, training: tuple[Norm, float]) -> str:
        return f"{self._pair.name}/{training[0]} {training[1]:g}/{self.settings}"

    def _learned(self, norm: Norm, epsilon: float) -> tuple[Array, Array]:
        if self._mixture is None:  # the pool has one thread
            self._mixture = deep.mixture_of(self._pair.deep, self._pair.images)
        return deep.learned_in_theory(self._mixture, self._pair.deep, norm, epsilon)


# Doing it.


def run(work: Work) -> None:
    """Do the units that are not there yet, as many as fit into the time, and sum up what there is."""
    pairs = pairs_of(work)
    done: dict[str, Any] = work.found.setdefault("units", {})
    left_out: list[Unit] = []
    with placed(work.device), ThreadPoolExecutor(1) as pool:
        units = list(units_of(work, pairs, pool))
        try:
            for unit in units:
                if not _is_done(unit, done) and not _do(work, unit, done):
                    left_out.append(unit)
        finally:
            pool.shutdown(cancel_futures=True)
    if left_out:
        work.note(f"left out for want of time or memory: {len(left_out)} of {len(units)} units: {_listed(left_out)}")
    there = [unit for unit in units if _is_done(unit, done)]
    parts: Parts = {}
    for unit in there:
        datasets = [restored(record) for record in done[unit.name]["data"]]
        parts.setdefault(unit.pair.name, {}).setdefault(unit.study, []).append((unit.what, unit.seed, datasets))
    summary = {
        pair.name: summarised(
            pair.images.name, parts[pair.name], pair.deep, pair.confidence, pair.collapse, quick=work.quick
        )
        for pair in pairs
        if pair.name in parts
    }
    work.save(
        complete=not left_out,
        headline={"units": f"{len(there)} of {len(units)}", **headline(summary)},
        summary=summary,
        table=table(summary),
    )
    if drawn := figure(summary):
        work.picture(drawn)


def _is_done(unit: Unit, done: dict[str, Any]) -> bool:
    """Return whether a unit is there, with the same settings."""
    return unit.name in done and done[unit.name]["settings"] == unit.settings


def _do(work: Work, unit: Unit, done: dict[str, Any]) -> bool:
    """Do a unit and save it, if it fits into the time that is left; return whether that was done."""
    if not work.fits(_cost(unit, done, quick=work.quick), least=0, most=1):
        return False
    start = time.perf_counter()
    try:
        found = unit.run()
    except (torch.OutOfMemoryError, MemoryError) as error:
        work.note(f"{unit.name}: {error}")
        return False
    seconds = round(time.perf_counter() - start, 2)
    done[unit.name] = {
        "kind": unit.kind,
        "settings": unit.settings,
        "seconds": seconds,
        "data": [written(one) for one in found],
    }
    work.save()
    return True


def _cost(unit: Unit, done: dict[str, Any], *, quick: bool) -> float:
    """Return the seconds that a unit takes: as those of its kind did, or what is allowed for the first."""
    measured = [one["seconds"] for one in done.values() if one["kind"] == unit.kind]
    return sum(measured) / len(measured) if measured else QUICK_COST if quick else COST[unit.study]


def _listed(units: Sequence[Unit]) -> str:
    """Return how many units of which pair and study there are."""
    counts: dict[str, int] = {}
    for unit in units:
        key = f"{unit.pair.name} {unit.study}"
        counts[key] = counts.get(key, 0) + 1
    return ", ".join(f"{key} ({count})" for key, count in counts.items())


CARD = Card(
    "comparison",
    "deep_on_mnist, confidence and collapse with residual nets of full width on pairs of CIFAR-10 and MNIST, 5 seeds",
    run,
    least=3.0,
    most=600.0,
    data=("cifar10", "mnist"),
)
