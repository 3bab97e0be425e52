"""The tests on a GPU, and how far its numbers are from those of the CPU."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cuda.card import Card, Work
from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.device import exact_float32

__all__ = ["CARD"]

ROOT = Path(__file__).parents[3]
AGREE = 1e-4
"""Largest difference of an objective that is allowed."""
NETS: dict[str, tuple[str, tuple[int, int, int], dict[str, Any]]] = {
    "PreAct-ResNet-18": ("preact_resnet18", (3, 32, 32), {}),
    "ResNet [3, 3, 3], 64 channels": ("resnet_ccat", (3, 32, 32), {}),
    "ResNet-20": ("resnet_ccat", (3, 32, 32), {"channels": 16}),
    "small net": ("conv_small", (1, 28, 28), {}),
}
QUICK: dict[str, dict[str, Any]] = {
    "PreAct-ResNet-18": {"channels": 4},
    "ResNet [3, 3, 3], 64 channels": {"channels": 4, "blocks": 1},
    "ResNet-20": {"channels": 2},
    "small net": {},
}
QUICK_TESTS = ("tests/deepcheck/test_device.py",)
MOST_WORKERS = 16
SLOWEST = 30
"""Tests whose time is kept."""


def run(work: Work) -> None:
    """Compare the numbers, then run the tests in the time that is left."""
    rows = agreement(work)
    objectives = [row[name] for row in rows for name in ("objective_1_step", "objective_10_steps")]
    agree = max(objectives) <= AGREE and all(row["same_predictions"] == 1.0 for row in rows)
    rival = all(row["rival"]["logits"] > 10 * row["logits"] for row in rows)
    work.save(agreement=rows, agree=agree, rival_differs_more=rival, headline={"largest difference": max(objectives)})
    found = pytest_run(work)
    counts = {name: found[name] for name in ("passed", "failed", "skipped")}
    work.save(tests=found, headline={**counts, "largest difference": max(objectives)}, complete=found["whole"])


# Numbers.


def agreement(work: Work) -> list[dict[str, Any]]:
    """Return for each net by how much the device's float32 differs: from the CPU's, or on the CPU from float64."""
    rows = []
    count = 8 if work.quick else 256
    for label, (name, shape, options) in NETS.items():
        shape = (shape[0], 16, 16) if work.quick else shape
        options = QUICK[label] if work.quick else options
        net = models.build(name, 10, shape, generator=torch.Generator().manual_seed(0), **options).eval()
        x = torch.rand((count, *shape), generator=torch.Generator().manual_seed(1))
        y = torch.randint(10, (count,), generator=torch.Generator().manual_seed(2))
        exact = measured(net if work.device.type == "cuda" else Wide(copy.deepcopy(net).double()), x, y)
        net, x, y = net.to(work.device), x.to(work.device), y.to(work.device)
        with exact_float32():
            ours = measured(net, x, y)
        rival = measured(Coarse(net, work.device), x, y)
        rows.append({"net": label, "images": count, **compared(ours, exact), "rival": compared(rival, exact)})
    return rows


def measured(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return logits, and the objective after one and after ten steps of PGD."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        found["logits"] = net(x)
    for steps, name in ((1, "objective_1_step"), (10, "objective_10_steps")):
        attack = PGD("linf", "cross_entropy", steps=steps, step_size=2 / 255, keep="last", stop_when_reached=False)
        attacked = attack(net, x, y, epsilon=8 / 255, generator=torch.Generator().manual_seed(3)).images
        with torch.no_grad():
            found[name] = F.cross_entropy(net(attacked), y, reduction="none")
    return {name: value.double().cpu() for name, value in found.items()}


def compared(ours: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Return the largest differences, and the share of images with the same prediction."""
    largest = {name: float((ours[name] - exact[name]).abs().max()) for name in exact}
    same = float((ours["logits"].argmax(1) == exact["logits"].argmax(1)).double().mean())
    return {**largest, "same_predictions": same}


class Wide(nn.Module):
    """A net of float64 for images of float32, which are attacked with the same random numbers."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return logits in float64."""
        logits: Tensor = self.net(x.double())
        return logits


class Coarse(nn.Module):
    """A net whose products are of 10 bits: TF32, or on the CPU, which has none, bfloat16 of 7."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.net, self.device = net, device

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        if self.device.type == "cuda":
            with exact_float32(False):
                logits: Tensor = self.net(x)
            return logits
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.net(x).to(x.dtype)  # type: ignore[no-any-return]


# Tests.


def pytest_run(work: Work) -> dict[str, Any]:
    """Run the tests that take a device, and return what became of them; what has no time left is not `whole`."""
    report = (work.folder / "tests.xml").resolve()  # pytest is run elsewhere
    report.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:benchmark",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    if importlib.util.find_spec("xdist") and not work.quick:
        command += ["-n", str(workers()), "--dist", "worksteal"]
    command += QUICK_TESTS if work.quick else ["-m", "cuda", "tests/deepcheck"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",  # each of them would take all cores else, for what is compared on the CPU
    }
    printed = work.folder / "tests.txt"
    with printed.open("w") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT)
        try:
            process.wait(max(work.left() - 15, 30))
        except subprocess.TimeoutExpired:
            work.note("the tests did not end in the time")
            process.send_signal(signal.SIGINT)  # it writes its report then
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        finally:
            process.kill()
            process.wait()
    text, ended = printed.read_text(errors="replace"), process.returncode in (0, 1)
    found = {"command": " ".join(["python", *command[1:]]).replace(str(report), "tests.xml")}
    found |= of_report(report) if report.exists() else {"passed": 0, "failed": 0, "skipped": 0, "failures": {}}
    # where the workers do not agree on what tests there are, none is run, and the status is 1
    found["whole"] = ended and found["passed"] > 0
    if not found["whole"]:
        found["tail"] = text[-3000:]
    if process.returncode == 5:
        work.note("no test is for a device: are they selected by the marker cuda?")
    return found


def workers() -> int:
    """Return how many processes run tests: one for each core, and no more than there is memory for on a GPU of 80 GB."""
    return min(MOST_WORKERS, os.cpu_count() or 1)


def of_report(path: Path) -> dict[str, Any]:
    """Return the numbers of passed, failed and skipped tests, the tails of those that failed, and what took longest."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures: dict[str, str] = {}
    reasons: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        seconds[name] = float(case.get("time") or 0.0)
        bad = [child for child in case if child.tag in ("failure", "error")]
        skipped = case.find("skipped")
        counts["failed" if bad else "skipped" if skipped is not None else "passed"] += 1
        if bad and len(failures) < 40:
            failures[name] = re.sub(r"\x1b\[[0-9;]*m", "", bad[0].text or "")[-1500:]
        if skipped is not None:
            reason = skipped.get("message") or ""
            reasons[reason] = reasons.get(reason, 0) + 1
    slowest = dict(sorted(seconds.items(), key=lambda one: -one[1])[:SLOWEST])
    return {
        **counts,
        "failures": failures,
        "reasons_to_skip": reasons,
        "test_seconds": sum(seconds.values()),
        "slowest": slowest,
    }


CARD = Card(
    "tests",
    "The tests of nets on a GPU, and its float32 beside that of the CPU: objectives to 1e-4, the same predictions",
    run,
    least=1.5,
    most=8.0,
    seeds=(0, 1, 2, 3),
)
