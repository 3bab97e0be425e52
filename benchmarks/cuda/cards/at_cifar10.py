"""Adversarial training on CIFAR-10 in minutes, and how much of its robustness stands up to stronger attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards._common import (
    Net,
    aim,
    attack_rows,
    attacked,
    effort_that_fits,
    pass_seconds,
    trained,
)
from deepcheck.attacks import PGD
from deepcheck.data import Images
from deepcheck.evaluation import Planned, Threats, attack_table, format_attack_table, planned_suite
from deepcheck.training import Recipe, recipe
from odeflow.plot import looks, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CARD"]

CLEAN, ROBUST = 0.81, 0.50
"""What is to be reached on all test images: without an attack, and under PGD-20."""
MINUTES = 7.0
"""Of the training."""


def plan(images: Images, *, quick: bool) -> Recipe:
    """Return how the net is trained, but for the epochs: the attack has few steps at first, and the best epoch counts."""
    found = recipe(
        images.name, "at", model="preact_resnet18", normalised=True, batch_size=512, learning_rate=0.4, average=0.995,
        precision="bfloat16", patience=1000, first_steps=2,
    )  # fmt: skip
    return found.changed(width=4, batch_size=64, attack_steps=2) if quick else found


def run(work: Work) -> None:
    """Train, then attack all test images with PGD-20, then some with the whole suite."""
    images = work.images("cifar10")
    seconds = min(60 * MINUTES, 0.75 * work.left())
    net = trained(work, "net", plan(images, quick=work.quick), images, seconds=seconds, most=2 if work.quick else 60)
    if net is None:
        return work.save(state="in training")
    work.save(state="trained", curve=curve(net.history))
    work.picture(figure_of(net.history))
    examples = 40 if work.quick else 1000
    rate = pass_seconds(work, net.network, images, examples, examples)
    if pgd20(work, net, images, rate / examples):
        suite(work, net, images, examples, rate)
    return None


def curve(history: list[dict[str, float]]) -> dict[str, Any]:
    """Return accuracies on the images kept apart over minutes of training, and where the robust one is highest."""
    robust = [row["robust_accuracy"] for row in history]
    minutes = np.cumsum([row["seconds"] for row in history]) / 60
    best = int(np.argmax(robust))
    return {
        "minutes": minutes.round(3).tolist(),
        "clean_accuracy": [row["clean_accuracy"] for row in history],
        "robust_accuracy": robust,
        "best_epoch": best + 1,
        "best_robust_accuracy": robust[best],
        "last_robust_accuracy": robust[-1],
    }


def pgd20(work: Work, net: Net, images: Images, rate: float) -> bool:
    """Attack all test images with PGD-20, steps of a quarter of epsilon, if there is time, and say whether the aims hold."""
    examples = 40 if work.quick else len(images.test_images)
    attack = PGD("linf", "cross_entropy", steps=20, relative_step_size=0.25)
    planned = {"pgd20": Planned(attack, (net.recipe.threat[1],))}
    records, _ = attacked(
        work,
        net.network,
        images,
        planned,
        work.folder / "pgd20.nc",
        examples=examples,
        batch_size=2000,
        rate=rate * examples,
    )
    if records is None:
        return False
    table = attack_table(records)
    clean, robust = table.accuracy.item(), table.robust_accuracy.values[-1].item()
    work.save(
        state="tested with PGD-20",
        headline={"clean": clean, "PGD-20": robust},
        clean_accuracy=clean,
        pgd20=attack_rows(records)[-1] | {"examples": examples},
        aims=[
            aim("accuracy without an attack", clean, least=CLEAN, error=table.accuracy_standard_error.item()),
            aim("accuracy under PGD-20", robust, least=ROBUST, error=table.standard_error.values[-1].item()),
        ],
    )
    return True


def suite(work: Work, net: Net, images: Images, examples: int, rate: float) -> None:
    """Attack some test images with cross-entropy, margin, targets, confidence and random search, as hard as time allows.

    A later call goes on with the attacks that are missing, or attacks harder where it has the time.
    """
    threats = Threats(linf=(net.recipe.threat[1],), l2=1.0, l1=1.0, l0=1.0)  # of which only the first is used

    def planned(steps: int, restarts: int, queries: int) -> dict[str, Planned]:
        return planned_suite("linf", threats, steps=steps, restarts=restarts, queries=queries)

    effort = max(effort_that_fits(work, planned, rate, work.left()), tuple(work.found.get("effort", ())))
    attacks = {f"{name}_{effort[0]}": one for name, one in planned(*effort).items()}
    records, missing = attacked(
        work,
        net.network,
        images,
        attacks,
        work.out / f"{work.card.name}.nc",
        examples=examples,
        rate=rate,
        precision="bfloat16",
    )
    if records is None:
        return work.save(effort=effort, missing=missing)
    rows = attack_rows(records)
    return work.save(
        complete=not missing,
        state=f"{len(missing)} attacks of the suite are missing" if missing else "complete",
        effort=effort,
        missing=missing,
        headline=work.found["headline"] | {f"all attacks, {effort[0]} steps": rows[0]["robust_accuracy"]},
        suite=rows,
        suite_examples=examples,
        table=format_attack_table(attack_table(records)),
    )


def figure_of(history: list[dict[str, float]]) -> Figure:
    """Draw the accuracies on the images kept apart over the minutes of training."""
    found = curve(history)
    with style():
        figure, axes = new_figure(1, 1, width="single", height=2.2)
        ax = axes.flat[0]
        for look, kind in zip(looks(2), ("clean", "robust"), strict=True):
            ax.plot(found["minutes"], found[f"{kind}_accuracy"], **look.line(), marker=look.marker, label=kind)
        best = found["best_epoch"] - 1
        ax.axvline(found["minutes"][best], color="0.6", linewidth=0.8)
        ax.set(xlim=(0, None), ylim=(0, 1), xlabel="minutes of training", ylabel="accuracy on images kept apart")
        ax.legend(loc="upper left")
    return figure


CARD = Card(
    name="at_cifar10",
    what="AT of PreAct-ResNet-18 on CIFAR-10, as many epochs as fit, under PGD-20 and the AutoAttack-class suite",
    run=run,
    least=4,
    most=15,
    data=("cifar10",),
)
