"""The attack for high confidence, which knows that an embedding looks farther."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace

from torch import Tensor

from deepcheck.attacks.base import Attack, BudgetAttack, Examples
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.points import Points
from deepcheck.defences.neighbours.ascent import ascend, step_sizes
from deepcheck.defences.neighbours.base import Embedding
from deepcheck.defences.neighbours.goals import LogOdds
from odeflow.model import checked_count

__all__ = ["PulledBack", "for_confidence"]


@dataclass(frozen=True)
class PulledBack(BudgetAttack):
    r"""Points from which an embedding sees a wrong class with high confidence, though they need not be wrong themselves.

    Against an embedding that looks :math:`\xi` farther, an adversary of radius :math:`\eta` has the ball of :math:`\eta + \xi`:
    for each wrong label l

    .. math:: z_l = \arg\max_{|z - x| \le \eta + \xi} F(z)_l, \qquad x'_l = \Pi_\eta(z_l),

    by ascent on the net itself, and back to the point of the ball of :math:`\eta` that is nearest to it, from which :math:`z_l` is
    within :math:`\xi` (in L-infinity, L2 and L1 it is: the projection shortens a perturbation by as much as it moves it). Of
    all labels the best for the objective counts, as the surrogate sees it. Then `polish` steps on the surrogate.

    It is an attack on the surrogate of an `Embedding`: `Adaptive(PulledBack(...))` lets the defence judge. The first restart
    starts at the image, later ones at random in the ball.
    """

    _: KW_ONLY
    steps: int = 100
    """Of each ascent on the net, >= 1."""
    polish: int = 0
    """Steps on the surrogate from the best point, >= 0; each costs as much as the defence with `attack_steps`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        object.__setattr__(self, "polish", checked_count("polish", self.polish, 0))
        if self._objective.compares:
            raise ValueError(f"objective = {self._objective.name} is not allowed: one of labels is")

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        defence = getattr(examples.model, "defence", None)
        if not isinstance(defence, Embedding):
            raise TypeError(
                f"model is of the wrong type {type(examples.model).__name__}: allowed is the surrogate of an embedding, as "
                "Adaptive takes it"
            )
        if defence.norm.name != self._norm.name:
            raise ValueError(f"norm = {self._norm.name} is not allowed: the defence looks within {defence.norm.name}")
        kept: Points | None = None
        rows: Tensor | None = None  # of the examples that are left
        for number in range(self._labels(examples, defence)):
            some = examples if rows is None else examples.at(rows)
            found = some.points(self._pulled_back(some, defence, epsilon, number), self._objective)
            if kept is None:
                kept = found
            else:
                kept.put_better(rows, found)
            if self.stop_when_reached and kept.reached is not None:
                rows = kept.unfinished()
                if not len(rows):
                    break
        assert kept is not None
        return self._polished(examples, kept, epsilon) if self.polish else kept

    def _labels(self, examples: Examples, defence: Embedding) -> int:
        """Return how many labels are tried for an example: its target, or all wrong ones."""
        if self._objective.targeted:
            return 1
        one = replace(examples.at(slice(1)), model=defence.net, asked=None)
        return one.logits(one.images).shape[1] - 1

    def _pulled_back(self, examples: Examples, defence: Embedding, epsilon: float, number: int) -> Tensor:
        """Return the points for the label that comes `number` after the first wrong one, or for the target."""
        x, bare = examples.images, replace(examples, model=defence.net)
        radius = epsilon + defence.xi
        start = None
        if examples.turn:
            start = self._norm.confinement(x, radius, self.bounds)(x + self._norm.uniform(x, radius, examples.draws()))
        goal = LogOdds(self._label(bare, number))
        ball = {"norm": self._norm, "radius": radius, "bounds": self.bounds}
        found = ascend(bare.logits, x, goal, steps=self.steps, start=start, **ball)  # type: ignore[arg-type]
        return self._norm.confinement(x, epsilon, self.bounds)(found.points)

    def _label(self, bare: Examples, number: int) -> Tensor:
        if bare.targets is not None:
            return bare.targets
        count = replace(bare, asked=None).at(slice(1)).logits(bare.images[:1]).shape[1]
        return (bare.labels + 1 + number) % count

    def _polished(self, examples: Examples, kept: Points, epsilon: float) -> Points:
        """Return the best of the points and those of steps from them on the surrogate."""
        confine = self._norm.confinement(examples.images, epsilon, self.bounds)
        z, best = kept.images.clone(), kept.copy()
        for step in step_sizes(self.polish, epsilon):
            now, gradient = points_and_gradient(examples, z, self._objective)
            best.put_better(None, now, final=self.stop_when_reached)
            z = confine(z.add(self._norm.steepest(gradient), alpha=step))
        best.put_better(None, examples.points(z, self._objective), final=self.stop_when_reached)
        return best


def for_confidence(defence: Embedding, norm: str) -> dict[str, Attack]:
    """Return the attack by its name, in the norm of an embedding's ball; in another norm none."""
    return {"pulled_back": PulledBack(defence.norm)} if norm == defence.norm.name else {}
