"""Transfer: attacks that follow one model and are run on another, which is asked for nothing but its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.base import Attack, Attacked, BudgetAttack, CheckedAttack, Examples, Model, checked_epsilons
from deepcheck.attacks.draws import checked_generator
from deepcheck.attacks.gradient.pgd import bim
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.judged import best_restart
from deepcheck.attacks.measures import Measure
from deepcheck.attacks.minimal.base import MinimalAttack, WithinBudget
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.objectives import Margin, Objective
from deepcheck.attacks.points import Points, Restarts
from deepcheck.attacks.prepared.base import PreparedAttack, drawing
from deepcheck.attacks.starts import UniformBall, Zero
from deepcheck.models import build
from odeflow.model import checked_count, checked_number

__all__ = ["Substitute", "Transfer"]


@dataclass(frozen=True, eq=False)
class Transfer:
    """An attack on a surrogate, judged by the model that is attacked: transfer (Szegedy et al., ICLR 2014).

    The images are those that the attack finds on the surrogate: the best of all its restarts there. All else in the result
    is what the attacked model then says of them, in one query for each image, so that there is one restart. It is asked for no gradient. An image that it gets wrong is attacked as well, and it may get the result
    right.

    Examples
    --------
    >>> import torch
    >>> from deepcheck.attacks import pgd
    >>> target, surrogate = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)) for _ in range(2))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = Transfer(pgd(steps=10), surrogate)
    >>> attacked = attack(target, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 1, 5]))
    """

    attack: Attack | MinimalAttack
    """Any attack: one that finds the nearest is asked for the best within the budget."""
    surrogate: Model
    """A function from images to logits for the classes of the attacked model, on the device of the images."""
    queries: int = 0
    """Images whose class the attacked model was asked for to prepare the surrogate."""

    def __post_init__(self) -> None:
        if isinstance(self.attack, MinimalAttack):
            object.__setattr__(self, "attack", WithinBudget(self.attack))
        if isinstance(self.attack, BudgetAttack):
            object.__setattr__(self, "attack", replace(self.attack, stop_when_reached=False))
        object.__setattr__(self, "queries", checked_count("queries", self.queries, 0))

    @property
    def norm(self) -> object:
        """The norm that `epsilon` bounds: the attack's."""
        return self.attack.norm

    @property
    def objective(self) -> Objective:
        """What the attacked model is asked for: the attack's objective, or the margin if that has none or needs targets."""
        own = getattr(self.attack, "objective", None)
        return own if isinstance(own, Objective) and not own.targeted else Margin()

    @property
    def restarts(self) -> int:
        """Rows of a result: one."""
        return 1

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        targets: Tensor | None = None,
        indices: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> Attacked:
        """Attack a model on some examples; the arguments are those of an attack within a budget.

        See `deepcheck.attacks.base.BudgetAttack`.
        """
        assert not isinstance(self.attack, MinimalAttack)
        epsilons, single = checked_epsilons(epsilon)
        bounds = getattr(getattr(self.attack, "attack", self.attack), "bounds", (0.0, 1.0))
        judge = CheckedAttack(objective=self.objective, bounds=bounds)
        common: dict[str, Any] = {"indices": indices, "batch_size": batch_size}
        with judge._examples(
            model, images, labels, generator=_copy(generator), targets=None, progress=False, **common
        ) as (examples,):
            if targets is not None:
                common["targets"] = targets
            if progress:
                common["progress"] = True
            found = self.attack(self.surrogate, images, labels, epsilon=epsilons, generator=generator, **common)
            axes = found.objective.ndim - 2  # of targets and epsilons
            results = [
                self._judged(examples, z, length)
                for z, length in zip(
                    found.images.to(examples.images.dtype).flatten(0, axes),
                    found.length.gather(-2, best_restart(found).unsqueeze(-2)).squeeze(-2).flatten(0, axes),
                    strict=True,
                )
            ]
        E = len(epsilons)
        by_target = [results[start : start + E] for start in range(0, len(results), E)]
        return Attacked.of_all(by_target, single_epsilon=single, targets=targets)

    def _judged(self, examples: Examples, z: Tensor, length: Tensor) -> Attacked:
        """Return what the attacked model makes of points, whose distances are those that the attack says."""
        if not len(examples):
            return Attacked.none(examples.rounded(z), 1)
        assert isinstance(self.norm, Measure)
        assert examples.asked is not None
        found = Restarts(self.norm, examples.images, examples.dtype)
        batches = zip(examples.batches(), z.split(examples.batch_size), strict=True)
        points = Points.joined([batch.points(part, self.objective) for batch, part in batches])
        if not isinstance(self.norm, Norm):
            points = replace(points, size=length)
        found.add(None, examples.settled(points, self.objective), examples.asked.taken(until_reached=False))
        return found.result()


@dataclass(frozen=True)
class Substitute(PreparedAttack[Transfer]):
    r"""BIM on a substitute: a net that learned the attacked model's labels (Papernot et al., AsiaCCS 2017).

    The model is asked for the classes that it gives to the images of the preparation, whatever their own are, and a net
    of this house is trained on these. With `rounds`, the set doubles in each: every image x of class y stands beside

    .. math:: \mathrm{clip}\big(x + \lambda\, \mathrm{sign} \nabla_x z_y(x)\big) ,

    z the substitute's logits (Jacobian-based augmentation); the model is asked again for those, and the net goes on with
    all. So it is asked :math:`2^\text{rounds}` times the number of images. Then the basic iterative method follows the
    net, and the model only judges: see `Transfer`. In one round of many epochs the net is as good as these images make it;
    the paper has few images (150) and 6 rounds of 10 epochs.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    >>> common = {"epsilon": 0.2, "generator": torch.Generator().manual_seed(1)}
    >>> attack = Substitute("linf", rounds=2, epochs=2).prepare(model, images[:10], labels[:10], **common)
    >>> attack.queries
    40
    >>> attack(model, images[10:], labels[10:], **common).prediction.shape
    torch.Size([1, 10])
    """

    objective: Objective | str = "cross_entropy"
    """What is maximised on the substitute: one without targets."""
    _: KW_ONLY
    net: str = "conv_small"
    """Kind of the substitute, see `deepcheck.models.build`."""
    rounds: int = 0
    """How often the set is doubled, >= 0; 6 in the paper."""
    reach: float = 0.1
    """Change of each pixel when it is doubled, lambda, > 0."""
    epochs: int = 10
    """Epochs of training before, and after each doubling, >= 1."""
    group: int = 50
    """Images in a step of the training, >= 1."""
    learning_rate: float = 2e-3
    """Of the training, by Adam, > 0."""
    steps: int = 10
    """Steps of the attack on the substitute, >= 1: of epsilon / steps each, from the image (of several restarts, from
    random starts)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("rounds", 0), ("epochs", 1), ("group", 1), ("steps", 1)):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), least))
        checked_number("reach", self.reach, above=0)
        checked_number("learning_rate", self.learning_rate, above=0)
        build(self.net, 2, (1, 32, 32), generator=torch.Generator())  # an unknown one is refused now

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise ValueError(
                f"images have the shape {shape}: allowed is (n, channels, height, width), as nets take them"
            )

    def _ticks(self, batches: int) -> int:
        return (1 + self.rounds) * self.epochs if batches else 0

    def _prepared(self, examples: Examples, epsilons: tuple[float, ...]) -> Transfer:
        del epsilons
        draw = drawing(examples)
        known, K = self._asked(examples)
        net = build(self.net, K, examples.images.shape[1:], generator=draw).to(examples.images.device)
        optimiser = torch.optim.Adam(net.parameters(), self.learning_rate)
        substitute = _Single(net)
        for round_ in range(self.rounds + 1):
            if round_:
                known = _together(known, self._asked(self._doubled(known, substitute))[0])
            net.train()
            for _epoch in range(self.epochs):
                for rows in torch.randperm(len(known), generator=draw).to(known.labels.device).split(self.group):
                    with torch.enable_grad():
                        loss = F.cross_entropy(net(known.images[rows].float()), known.labels[rows])
                        optimiser.zero_grad()
                        loss.backward()
                    optimiser.step()
                examples.tick()
            net.eval()
        net.requires_grad_(False)
        attack = replace(
            bim(self._norm, steps=self.steps),
            objective=self._objective,
            bounds=self.bounds,
            restarts=self.restarts,
            start=Zero() if self.restarts == 1 else UniformBall(),
        )
        return Transfer(attack, substitute, queries=len(known))

    def _asked(self, examples: Examples) -> tuple[Examples, int]:
        """Return the examples with the classes that the model gives to them, and how many it knows."""
        logits = torch.cat([batch.logits(batch.images) for batch in examples.batches()])
        return replace(examples, labels=logits.argmax(1)), logits.shape[1]

    def _doubled(self, known: Examples, substitute: nn.Module) -> Examples:
        """Return the examples, each moved along the signs of the gradient of the logit of its class."""
        moved = []
        for batch in replace(known, model=substitute, undecided=[]).batches():
            _, g = points_and_gradient(batch, batch.images.clone(), _OwnLogit())
            moved.append(batch.rounded((batch.images + self.reach * g.sign()).clamp(*self.bounds)).to(g.dtype))
        return replace(known, images=torch.cat(moved))


def _copy(generator: torch.Generator) -> torch.Generator:
    """Return a generator in the same state."""
    checked_generator(generator)
    return torch.Generator(generator.device).set_state(generator.get_state())


class _Single(nn.Module):
    """A net in single precision, asked about images in any."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def __repr__(self) -> str:
        return repr(self.net)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        logits: Tensor = self.net(images.float())
        return logits


@dataclass(frozen=True)
class _OwnLogit(Objective):
    """The logit of the class itself."""

    name = "own_logit"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        del targets
        return logits.gather(1, labels[:, None]).squeeze(1)


def _together(one: Examples, other: Examples) -> Examples:
    """Return the examples of both."""
    return replace(
        one,
        images=torch.cat([one.images, other.images]),
        labels=torch.cat([one.labels, other.labels]),
        key=torch.cat([one.key, other.key]),
    )
