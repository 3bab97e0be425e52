"""The study ccat_cifar10 in parts of minutes, beside the published row."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards._ccat import Plan, nets_of, run_study
from studies.ccat.measure import Setting
from studies.ccat.plan import TRAININGS, setting_of

__all__ = ["CARD"]

PLANS = {
    "at": Plan(seconds=240, most=100),
    "ccat": Plan(seconds=300, most=100, shorter=(20, 10), enough=12),
    "standard": Plan(seconds=40, most=30),
}
"""AT and CCAT in 9 minutes together; 40 steps of CCAT's attack are published."""
SECONDS = 150.0
"""For the attacks on one net."""


def setting(name: str, *, quick: bool) -> Setting:
    """Return the study's setting with batches that fill a GPU, and AT with 10 steps of a quarter of epsilon."""
    found = setting_of("ccat_cifar10", name, quick=quick)
    if quick:
        small = {
            training: one.changed(model="conv_small", width=1, precision="bfloat16")
            for training, one in found.recipes.items()
        }
        return replace(found, recipes=small, examples=20)
    at = found.recipes["at"].changed(attack_steps=10, step_size=0.0075)
    recipes = {
        training: one.changed(batch_size=512, learning_rate=0.4, average=0.995, precision="bfloat16")
        for training, one in (found.recipes | {"at": at}).items()
    }
    return replace(found, recipes=recipes, batch_size=1000)


def run(work: Work) -> None:
    """Train the three nets, then attack each; whatever there is no time for is left to a later call."""
    images = work.images("cifar10")
    plans = {name: replace(plan, most=2) for name, plan in PLANS.items()} if work.quick else PLANS
    ours = setting(images.name, quick=work.quick)
    nets = nets_of(work, ours, plans, images, seed=0)
    if set(nets) != set(TRAININGS):
        return work.save(state=f"trained: {', '.join(nets) or 'none'} of {', '.join(PLANS)}")
    if not run_study(work, "ccat_cifar10", ours, nets, images, 0, SECONDS):
        return None
    return work.save(complete=True, state="complete")


CARD = Card(
    name="ccat_cifar10",
    what="AT and CCAT of ResNet [3,3,3]/64 on CIFAR-10, under all attacks of the study, beside the published row",
    run=run,
    least=2,
    most=20,
    data=("cifar10",),
)
