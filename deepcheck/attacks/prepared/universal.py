"""Universal perturbations: one for all images, found on some and held against others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from deepcheck.attacks.base import BudgetAttack, Examples, Model, checked_epsilons
from deepcheck.attacks.calls import evaluating, frozen, logits_of
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.minimal.deepfool import DeepFool
from deepcheck.attacks.norms import per_example
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.points import Points
from deepcheck.attacks.prepared.base import PreparedAttack, drawing
from deepcheck.checks import checked_choice
from deepcheck.device import exact_float32
from odeflow.model import checked_count, checked_number

__all__ = ["Universal", "UniversalPerturbation"]


@dataclass(frozen=True)
class UniversalPerturbation(PreparedAttack["Universal"]):
    r"""One perturbation for all images (Moosavi-Dezfooli et al., CVPR 2017; by gradient: Shafahi et al., AAAI 2020).

    The images are gone through in random order, `passes` times, in groups :math:`G`, with clip the box and :math:`P_\epsilon`
    the projection onto the ball. With ``method="gradient"`` a group moves v uphill on the clipped loss of the class that
    each image has without it,

    .. math:: v \leftarrow P_\epsilon\Big(v + s\, d\Big(\sum_{i \in G} \nabla_v \min\{L(\mathrm{clip}(x_i + v)), \beta\}\Big)\Big)

    with d the steepest direction of the norm and steps s that shrink to 0 along a straight line; an image beyond the
    ceiling :math:`\beta` pulls no more. With ``method="deepfool"`` the images of a group that v does not fool yet are moved
    from :math:`\mathrm{clip}(x_i + v)` to the nearest boundary by DeepFool in L2, as in the paper, and v by all of that
    together,

    .. math:: v \leftarrow P_\epsilon\Big(v + \sum_{i \in G} r_i\Big) .

    The paper takes one image after the other, ``group=1``. With more the images of a group do not know of each other's
    moves, and the model sees them at once. Of the perturbations after each pass, and of all restarts, the one is returned
    that fools the most of these images. Approximate: a lower bound on what a perturbation can fool.

    The first restart begins with v = 0, the others at random in the ball. Neither form uses the labels that are given: what
    is to change is the prediction.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    >>> common = {"epsilon": 0.2, "generator": torch.Generator().manual_seed(1)}
    >>> universal = UniversalPerturbation("linf", passes=3).prepare(model, images[:10], labels[:10], **common)
    >>> universal.perturbation.shape, 0 <= universal.fooling_rate(model, images[10:]) <= 1
    (torch.Size([1, 8, 8]), True)
    >>> universal(model, images[10:], labels[10:], **common).images.shape
    torch.Size([10, 1, 8, 8])
    """

    objective: Objective | str = "cross_entropy"
    """What the gradient form maximises, of the class without the perturbation: one without targets."""
    _: KW_ONLY
    method: Literal["gradient", "deepfool"] = "gradient"
    """How it is found."""
    passes: int = 10
    """How often the images are gone through, >= 1, if the goal is not reached before."""
    goal: float = 1.0
    """Share of the images, in (0, 1], that are to be fooled: with so many after a pass it ends. 0.8 in the papers."""
    group: int = 50
    """Images that move the perturbation at once, >= 1."""
    relative_step_size: float = 0.3
    """First step of the gradient form, as a share of epsilon, > 0."""
    ceiling: float = 9.0
    """Largest value of the objective that counts in the gradient form, beta."""
    steps: int = 10
    """DeepFool's steps for an image, >= 1."""
    overshoot: float = 0.02
    """DeepFool's overshoot, > 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_choice("method", self.method, ("gradient", "deepfool"))
        for name in ("passes", "group", "steps"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        checked_number("goal", self.goal, above=0, most=1)
        checked_number("relative_step_size", self.relative_step_size, above=0)
        checked_number("ceiling", self.ceiling)
        checked_number("overshoot", self.overshoot, above=0)
        if self._norm.dual is None:
            raise ValueError(f"norm = {self.norm!r} is not allowed for {type(self).__name__}: one that has a dual is")

    def _ticks(self, batches: int) -> int:
        return self.passes if batches else 0

    def _prepared(self, examples: Examples, epsilons: tuple[float, ...]) -> Universal:
        before = torch.cat([batch.logits(batch.images).argmax(1) for batch in examples.batches()])
        examples = replace(examples, labels=before)
        found = []
        for epsilon in epsilons:
            with_rates = []
            for restart in range(self.restarts):
                with self._restart_on_bar(examples):
                    with_rates.append(self._best(examples.stream(restart), epsilon, at_random=restart > 0))
            found.append(max(with_rates, key=lambda one: one[0]))
        return Universal(
            self.norm,
            self.objective,
            bounds=self.bounds,
            perturbations=torch.cat([v for _, v in found]).to(examples.dtype),
            prepared_at=epsilons,
            rates=tuple(rate for rate, _ in found),
            images=len(examples),
            by=self,
        )

    def _best(self, examples: Examples, epsilon: float, *, at_random: bool) -> tuple[float, Tensor]:
        """Return the share that is fooled, and the perturbation, shape (1, ...), of one restart at one epsilon."""
        order, first = drawing(examples), examples.at(slice(1))
        v = self._norm.uniform(first.images, epsilon, first.draws(1)) if at_random else torch.zeros_like(first.images)
        moved = self._nearer() if self.method == "deepfool" else self._uphill(epsilon, len(examples))
        best = self._share(examples, v), v
        for _pass in range(self.passes):
            for rows in torch.randperm(len(examples), generator=order).to(v.device).split(self.group):
                v = self._norm.project(v + moved(examples.at(rows), v), epsilon)
            best = max(best, (self._share(examples, v), v), key=lambda one: one[0])
            examples.tick()
            if best[0] >= self.goal:
                break
        return best

    def _nearer(self) -> Callable[[Examples, Tensor], Tensor]:
        """Return the move of a group in the DeepFool form."""
        attack = DeepFool("l2", steps=self.steps, overshoot=self.overshoot, bounds=self.bounds)

        def moved(group: Examples, v: Tensor) -> Tensor:
            z = (group.images + v).clamp(*self.bounds)
            found = attack._nearest(replace(group, images=z))  # an image that is fooled already stays
            assert found.reached is not None
            return ((found.images - z) * per_example(found.reached, z)).sum(0, keepdim=True)

        return moved

    def _uphill(self, epsilon: float, count: int) -> Callable[[Examples, Tensor], Tensor]:
        """Return the move of a group in the gradient form."""
        low, high = self.bounds
        capped = _Capped(self._objective, self.ceiling)
        total, done = self.passes * -(-count // self.group), 0

        def moved(group: Examples, v: Tensor) -> Tensor:
            nonlocal done
            z = (group.images + v).clamp(low, high)
            _, g = points_and_gradient(group, z, capped)
            g = g.masked_fill(((z <= low) & (g < 0)) | ((z >= high) & (g > 0)), 0)
            step = self.relative_step_size * epsilon * (1 - done / total)
            done += 1
            return step * self._norm.steepest(g.sum(0, keepdim=True))

        return moved

    def _share(self, examples: Examples, v: Tensor) -> float:
        """Return the share of the examples that are fooled."""
        fooled = [
            batch.logits((batch.images + v).clamp(*self.bounds)).argmax(1) != batch.labels
            for batch in examples.batches()
        ]
        return float(torch.cat(fooled).double().mean())


@dataclass(frozen=True, eq=False, repr=False)
class Universal(BudgetAttack):
    """A universal perturbation as an attack: every image gets the same, as far as the box allows it.

    Where the model was not asked about the size that is wanted, the perturbation of the nearest size is scaled to it. An
    image that is misclassified gets it as well, and may be classified correctly with it.
    """

    _: KW_ONLY
    perturbations: Tensor
    """One for each of the sizes, shape (E, ...)."""
    prepared_at: tuple[float, ...]
    """The sizes that they were prepared for."""
    rates: tuple[float, ...]
    """Share of the images of the preparation that each fools."""
    images: int
    """Number of these images."""
    by: UniversalPerturbation
    """How they were found."""

    def __repr__(self) -> str:
        rates = ", ".join(f"{rate:.4g}" for rate in self.rates)
        return f"Universal({self.by!r}, epsilon={list(self.prepared_at)}, {self.images} images, fooled: {rates})"

    @property
    def perturbation(self) -> Tensor:
        """The perturbation, of the shape of an image; of several sizes the first."""
        return self.perturbations[0]

    @property
    def effort(self) -> str:
        """How hard it tries, as text."""
        return f"1 query, prepared on {self.images} images"

    def at(self, epsilon: float) -> Tensor:
        """Return the perturbation of a size, >= 0, of the shape of an image."""
        (epsilon,), _ = checked_epsilons(epsilon)
        near = min(range(len(self.prepared_at)), key=lambda k: abs(self.prepared_at[k] - epsilon))
        size = self.prepared_at[near]
        return self.perturbations[near] * (epsilon / size if size else 0.0)

    def fooling_rate(
        self, model: Model, images: Tensor, *, epsilon: float | None = None, batch_size: int = 500
    ) -> float:
        """Return the share of images whose prediction changes, whether it was right or not.

        Parameters
        ----------
        model
            A function from images to logits.
        images
            Shape (n, ...), n >= 1, pixels in the bounds.
        epsilon
            Size of the perturbation; default: the first that it was prepared for.
        batch_size
            Images that the model sees at once, >= 1.

        Raises
        ------
        ValueError
            If there are no images, or they are of another shape.
        """
        batch_size = checked_count("batch_size", batch_size, 1)
        self._check_shape(tuple(images.shape))
        if not len(images):
            raise ValueError("images are none: allowed is one image or more")
        v = self.at(self.prepared_at[0] if epsilon is None else epsilon).to(images)
        changed = []
        with exact_float32(), evaluating(model), frozen(model), torch.no_grad():
            for x in images.split(batch_size):
                z = (x + v).clamp(*self.bounds)
                changed.append(logits_of(model, x).argmax(1) != logits_of(model, z).argmax(1))
        return float(torch.cat(changed).double().mean())

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape[1:] != self.perturbations.shape[1:]:
            raise ValueError(
                f"images have the shape {shape}: the perturbation was prepared for (n, "
                f"{', '.join(map(str, self.perturbations.shape[1:]))})"
            )

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        x = examples.images
        confine = self._norm.confinement(x, epsilon, self.bounds)
        return examples.points(confine(x + self.at(epsilon).to(x)), self._objective)


@dataclass(frozen=True)
class _Capped(Objective):
    """An objective up to a ceiling, from where on it has no gradient."""

    objective: Objective
    ceiling: float

    name = "capped"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        return self.objective(logits, labels, targets).clamp(max=self.ceiling)
