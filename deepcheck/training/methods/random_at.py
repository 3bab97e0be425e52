"""Adversarial training with a radius that is drawn anew for each example."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.base import Name
from odeflow.laws import Continuous, Discrete, Law, Uniform
from odeflow.model import checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["RandomAT", "drawn_factors"]

_STREAM = 2**40
"""Number of the stream of an example's random numbers that has its factor: restarts have the first ones."""


@dataclass(frozen=True, kw_only=True)
class RandomAT(AdversarialTraining):
    """Adversarial training at a random epsilon, by a law of `odeflow.laws` (after Madry et al., ICLR 2018).

    Radius and steps of an example's attack are multiplied by a factor that is drawn anew for each example, of the law that
    `odeflow.Adversary` takes: theory and nets share it (`law`). With the law "discrete" of the value 1 it is adversarial
    training, bit by bit.
    """

    name: Name = field(init=False, default="random_at", repr=False)
    recipes: ClassVar = AdversarialTraining.recipes
    radius_law: str = "uniform"
    """Law of the factor of epsilon: uniform, discrete, or the name of a continuous distribution of scipy.stats on [0, inf)
    with a finite mean, such as expon or gamma."""
    law_parameters: tuple[float, ...] = (0.0, 1.0)
    """Of uniform: the least and the largest factor; of discrete: the factors, then their probabilities; of another: the
    parameters in the order of scipy.stats (expon: 0 0.5 for the mean 0.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.radius_law, str):
            raise TypeError(f"radius_law = {self.radius_law!r} is of the wrong type: allowed is a name")
        given = tuple(checked_number("law_parameters", one) for one in self.law_parameters)
        object.__setattr__(self, "law_parameters", given)
        _ = self.law  # raises where there is none

    @cached_property
    def law(self) -> Law:
        """The law of the factor, as `odeflow.Adversary` takes it.

        Raises
        ------
        ValueError
            If there is none of this name and these parameters.
        """
        name, given = self.radius_law, self.law_parameters
        if name == "uniform":
            if len(given) != 2:
                raise ValueError(f"law_parameters = {given} is not allowed with radius_law = uniform: two numbers are")
            return Uniform(*given)
        if name == "discrete":
            half, odd = divmod(len(given), 2)
            if odd or not half:
                allowed = "factors, and as many probabilities, are"
                raise ValueError(f"law_parameters = {given} is not allowed with radius_law = discrete: {allowed}")
            return Discrete(given[:half], given[half:])
        return _of_scipy(name, given)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Any, ...]:
        """Return what adversarial training draws, and the factors of the radii of what is attacked."""
        key, attack, epsilon = super().drawn(images, progress=progress, generator=generator)
        return key, attack, epsilon, drawn_factors(key, *self._table(key.device))

    def _table(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the table of the law on a device, to which it is copied once."""
        import torch

        if device not in self._tables:
            levels, factors = (torch.from_numpy(one.copy()) for one in self.law.table())
            self._tables[device] = levels.to(device, non_blocking=True), factors.to(device, non_blocking=True)
        return self._tables[device]

    @cached_property
    def _tables(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}


def drawn_factors(key: Tensor, levels: Tensor, factors: Tensor) -> Tensor:
    """Return a factor for each example, shape (n,), in double precision.

    Parameters
    ----------
    key
        Keys of the examples' random numbers, shape (n,): a factor depends on its example's alone.
    levels, factors
        Levels of the cumulative distribution, from 0 to 1, and the factors there, between which it is linear: the table of
        a law of `odeflow.laws`.
    """
    import torch

    from deepcheck.attacks.draws import Draws, mixed

    U = Draws(mixed(key, _STREAM)).uniform(levels.new_empty(len(key)))
    after = torch.searchsorted(levels, U, right=True).clamp_(
        max=len(levels) - 1
    )  # levels[after - 1] <= U < levels[after]
    share = (U - levels[after - 1]) / (levels[after] - levels[after - 1])
    return torch.lerp(factors[after - 1], factors[after], share)


def _of_scipy(name: str, given: tuple[float, ...]) -> Continuous:
    """Return the law of a distribution of scipy.stats."""
    from scipy import stats

    kind = getattr(stats, name, None)
    if not isinstance(kind, stats.rv_continuous):
        allowed = "uniform, discrete, or a continuous distribution of scipy.stats"
        raise ValueError(f"radius_law = {name!r} is unknown: allowed is {allowed}")  # noqa: TRY004
    try:
        return Continuous(kind(*given))
    except TypeError as error:
        raise ValueError(f"law_parameters = {given} is not allowed with radius_law = {name}: {error}") from None
