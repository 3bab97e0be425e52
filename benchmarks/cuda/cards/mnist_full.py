"""Madry's net on MNIST: AT under 10,000 images' worth of attacks, and the study ccat_mnist at full effort with 3 seeds."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards._ccat import Plan, nets_of, run_study
from benchmarks.cuda.cards._common import Net, Way, aim, attack_rows, attacked, pass_seconds
from deepcheck.attacks import PGD
from deepcheck.data import Images
from deepcheck.evaluation import Planned, Threats, attack_table, planned_suite
from studies.ccat.measure import Setting
from studies.ccat.plan import TRAININGS, setting_of

__all__ = ["CARD"]

PGD100, ALL = 0.93, 0.91
"""What is to be reached by AT on all test images: under PGD-100, and under the AutoAttack-class suite."""
SEEDS = (0, 1, 2)
WAYS: tuple[Way, ...] = ({"graphs": True}, {"compiled": True}, {})
"""Small nets wait for the processor: whole steps are recorded."""
PLANS = {
    "at": Plan(seconds=240, most=60, ways=WAYS),
    "ccat": Plan(seconds=240, most=100, ways=WAYS),
    "standard": Plan(seconds=30, most=12, ways=WAYS),
}
EFFORT = {"steps": 500, "restarts": 3, "queries": 5000}
FEW = {"steps": 10, "restarts": 1, "queries": 50}


def setting(name: str, *, quick: bool) -> Setting:
    """Return the study's setting with Madry's net, batches that fill a GPU, and the full effort."""
    found = setting_of("ccat_mnist", name, quick=quick)
    recipes = {training: one.changed(model="madry_mnist", width=None) for training, one in found.recipes.items()}
    if quick:
        few = {training: one.changed(batch_size=128, validation=50) for training, one in recipes.items()}
        few |= {training: few[training].changed(attack_steps=2) for training in ("at", "ccat")}
        return replace(found, recipes=few, train_images=350, examples=20, validation=50, **FEW)
    recipes = {training: one.changed(batch_size=256) for training, one in recipes.items()}
    recipes["at"] = recipes["at"].changed(attack_steps=20, step_size=0.04)
    return replace(found, recipes=recipes, batch_size=1000, **EFFORT)


def run(work: Work) -> None:
    """Go seed by seed: train the nets, attack AT on all test images, then all nets as the study does."""
    images = work.images("mnist")
    plans = {name: replace(plan, most=2) for name, plan in PLANS.items()} if work.quick else PLANS
    ours = setting(images.name, quick=work.quick)
    seeds = SEEDS[:1] if work.quick else SEEDS
    for seed in seeds:
        if str(seed) in work.found.get("seeds", {}):
            continue
        nets = nets_of(work, ours, plans, images, seed)
        if set(nets) != set(TRAININGS):
            return work.save(state=f"seed {seed}, trained: {', '.join(nets) or 'none'} of {', '.join(PLANS)}")
        if seed == seeds[0] and not all_images(work, nets["at"], images, ours):
            return work.save(state="AT is being attacked on all test images")
        if not run_study(work, "ccat_mnist", ours, nets, images, seed, None):
            return None
    return work.save(complete=True, state="complete")


def all_images(work: Work, net: Net, images: Images, ours: Setting) -> bool:
    """Attack all test images with PGD-100 and with the AutoAttack-class suite, and say whether the aims are reached."""
    examples = 40 if work.quick else len(images.test_images)
    epsilon = ours.threats.linf[0]
    pgd = PGD("linf", "cross_entropy", steps=100, relative_step_size=1 / 30)
    threats = Threats(linf=(epsilon,), l2=1.0, l1=1.0, l0=1.0)  # of which only the first is used
    planned = {"pgd100": Planned(pgd, (epsilon,))}
    planned |= planned_suite("linf", threats, **(FEW if work.quick else EFFORT))
    rate = pass_seconds(work, net.network, images, examples, ours.batch_size)
    records, missing = attacked(
        work, net.network, images, planned, work.out / f"{work.card.name}_all.nc", examples=examples,
        batch_size=ours.batch_size, rate=rate,
    )  # fmt: skip
    if records is None:
        return False
    rows, table = attack_rows(records), attack_table(records)
    alone = next(row for row in rows if row["attack"] == "pgd100")
    aims = [aim("accuracy under PGD-100", alone["robust_accuracy"], least=PGD100, error=alone["standard_error"])]
    if not missing:
        worst = rows[0]
        aims.append(aim("accuracy under all", worst["robust_accuracy"], least=ALL, error=worst["standard_error"]))
    work.save(all_images=rows, clean_accuracy=table.accuracy.item(), examples=examples, missing=missing, aims=aims)
    return not missing


CARD = Card(
    name="mnist_full",
    what="Madry's net on MNIST: AT on all test images, and the study ccat_mnist at full effort with 3 seeds",
    run=run,
    least=2,
    most=45,
    data=("mnist",),
    seeds=SEEDS,
)
