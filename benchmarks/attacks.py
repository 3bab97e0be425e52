"""Attacks beside the same ones in other libraries, on one net and the same images: what they find, and the time they take.

The libraries are those of the group `external`. Those that are not installed are left out, and the page says so.
"""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import table
from deepcheck import models
from deepcheck.attacks import registry
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.registry import make
from deepcheck.data import load
from deepcheck.evaluation.standard import standard_attack

__all__ = ["run"]

COUNT = 100
"""Images of an attack."""


@dataclass(frozen=True)
class Case:
    """A net, and images that it gets right."""

    net: nn.Module
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Row:
    """An attack here, and the same elsewhere: from a case to attacked images."""

    name: str
    library: str
    norm: str
    ours: Callable[[Case], Tensor]
    theirs: Callable[[Case], Tensor]
    images: int = COUNT


class _Single(nn.Module):
    """A net that is asked in single precision."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.net(x.float()))


def run() -> str:
    """Measure, and return a section of Markdown, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        case = _case()
        rows, missing = [], []
        for row in _rows():
            if importlib.util.find_spec(row.library) is None:
                missing.append(row.library)
                continue
            rows.append(_measured(row, case))
    finally:
        torch.set_num_threads(threads)
    head = ["attack", "library", "norm", "turned here", "there", "median norm here / there", "time there / here"]
    text = (
        f"The convolutional net of Wong and Kolter on the digits of scikit-learn, {COUNT} images that it gets right, at the same "
        "settings, in turn, on one thread; processor time, so that other work on the machine does not count. A median norm is that "
        "over the images which both have turned."
    )
    left_out = f"Not installed here: {', '.join(sorted(set(missing)))}." if missing else ""
    return "\n\n".join(
        part for part in ("## Attacks beside other libraries", text, table(head, rows), left_out) if part
    )


def _case() -> Case:
    """Return a net that was trained for seconds, and the first images of the test set that it gets right."""
    data = load("digits")
    X, y = torch.tensor(data.train_images).float() / 255, torch.tensor(data.train_labels)
    draw = torch.Generator().manual_seed(0)
    net = models.build("conv_small", 10, (1, 8, 8), generator=draw)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _epoch in range(8):
        for batch in torch.randperm(len(X), generator=draw).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(X[batch]), y[batch]).backward()
            optimizer.step()
    net.eval().requires_grad_(False)
    x, labels = torch.tensor(data.test_images).float() / 255, torch.tensor(data.test_labels)
    right = net(x).argmax(1) == labels
    return Case(net, x[right][:COUNT], labels[right][:COUNT])


def _measured(row: Row, case: Case) -> list[str]:
    """Return the row of the table."""
    some = Case(case.net, case.images[: row.images], case.labels[: row.images])
    found, seconds = [], []
    for attack in (row.ours, row.theirs):
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(attack(some))
        seconds.append(time.process_time() - began)
    turned = [(case.net(one).argmax(1) != some.labels) for one in found]
    both = turned[0] & turned[1]
    here, there = (float(NORMS[row.norm].length((one - some.images)[both].double()).median()) for one in found)
    shares = [f"{one.double().mean():.2f}" for one in turned]
    return [row.name, row.library, row.norm, *shares, f"{here / there:.3f}", f"{seconds[1] / seconds[0]:.1f}"]


def _ours(name: str, norm: str, epsilon: float | None = None, **options: Any) -> Callable[[Case], Tensor]:
    def attack(case: Case) -> Tensor:
        made: Any = make(name, norm, **options)
        within = {} if epsilon is None else {"epsilon": epsilon}
        made = made if epsilon is None else registry.within_budget(made)
        found = made(case.net, case.images, case.labels, generator=torch.Generator().manual_seed(0), **within)
        return torch.as_tensor(found.images)

    return attack


def _standard(norm: str, epsilon: float) -> Callable[[Case], Tensor]:
    def attack(case: Case) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        return standard_attack(norm)(case.net, case.images, case.labels, epsilon=epsilon, generator=draw).images

    return attack


def _foolbox(name: str, **options: Any) -> Callable[[Case], Tensor]:
    def attack(case: Case) -> Tensor:
        foolbox: Any = importlib.import_module("foolbox")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = foolbox.PyTorchModel(case.net, bounds=(0.0, 1.0), device="cpu")
            made = getattr(foolbox.attacks, name)(**options)
            _, images, _ = made(model, case.images, foolbox.criteria.Misclassification(case.labels), epsilons=None)
        return torch.as_tensor(images).float()

    return attack


def _art(name: str, **options: Any) -> Callable[[Case], Tensor]:
    def attack(case: Case) -> Tensor:
        classification: Any = importlib.import_module("art.estimators.classification")
        evasion: Any = importlib.import_module("art.attacks.evasion")
        net = _Single(case.net).eval()  # the toolbox asks in double precision at times
        classifier = classification.PyTorchClassifier(
            net, nn.CrossEntropyLoss(), case.images.shape[1:], 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        made = getattr(evasion, name)(classifier, **options)
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002
        try:
            y = None if name == "SaliencyMapMethod" else case.labels.numpy()  # which are the targets there: random ones
            return torch.from_numpy(made.generate(case.images.numpy(), y)).float()
        finally:
            np.random.set_state(state)  # noqa: NPY002

    return attack


def _autoattack(norm: str, epsilon: float) -> Callable[[Case], Tensor]:
    def attack(case: Case) -> Tensor:
        library: Any = importlib.import_module("pyautoattack.autoattack")
        made = library.AutoAttack(case.net, norm=norm, eps=epsilon, version="standard", seed=0)
        made.verbose = False
        found = made.run_standard_evaluation(case.images, case.labels, batch_size=500)
        return torch.as_tensor(found[0] if isinstance(found, tuple) else found)

    return attack


def _rows() -> list[Row]:
    cw = {"steps": 200, "searches": 5}
    return [
        Row("standard", "pyautoattack", "linf", _standard("linf", 0.1), _autoattack("Linf", 0.1)),
        Row("standard", "pyautoattack", "l2", _standard("l2", 0.5), _autoattack("L2", 0.5)),
        Row("standard", "pyautoattack", "l1", _standard("l1", 2.0), _autoattack("L1", 2.0)),
        Row("deepfool", "foolbox", "l2", _ours("deepfool", "l2"), _foolbox("L2DeepFoolAttack")),
        Row("deepfool", "foolbox", "linf", _ours("deepfool", "linf"), _foolbox("LinfDeepFoolAttack")),
        Row(
            "carlini_wagner",
            "foolbox",
            "l2",
            _ours("carlini_wagner", "l2", **cw),
            _foolbox("L2CarliniWagnerAttack", binary_search_steps=5, steps=200),
        ),
        Row(
            "ead",
            "foolbox",
            "l1",
            _ours("ead", "l1", decision="l1", **cw),
            _foolbox("EADAttack", binary_search_steps=5, steps=200, decision_rule="L1", regularization=1e-3),
        ),
        Row("jsma", "art", "l0", _ours("jsma", "l0"), _art("SaliencyMapMethod", theta=1.0, gamma=0.145, verbose=False)),
        Row(
            "zoo",
            "art",
            "l2",
            _ours("zoo", "l2", steps=100, bisections=3, coordinates=32),
            _art("ZooAttack", max_iter=100, binary_search_steps=3, nb_parallel=32, use_resize=False, use_importance=False, verbose=False),
            images=10,
        ),
        Row(
            "hop_skip_jump",
            "art",
            "l2",
            _ours("hop_skip_jump", "l2", queries=2000),
            _art("HopSkipJump", norm=2, max_iter=8, max_eval=1000, init_eval=100, verbose=False),
            images=20,
        ),
        Row("square", "art", "linf", _ours("square", "linf", 0.1, queries=1000), _art("SquareAttack", norm=math.inf, eps=0.1, max_iter=1000, verbose=False)),
    ]  # fmt: skip
