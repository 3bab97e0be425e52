"""How a generator is trained: one frozen configuration. Torch is not loaded for it."""

from __future__ import annotations

from dataclasses import dataclass

from odeflow.model import checked_count, checked_number

__all__ = ["RECIPES", "GeneratorRecipe"]


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe:
    """Everything that determines the weights of a trained generator, but for the images.

    Raises
    ------
    ValueError, TypeError
        If a field is out of its range.
    """

    latent: int = 64
    """Dimension of the latent vectors, >= 1."""
    width: int = 32
    """Channels of the widest image in generator and critic, >= 1; of half its height and width there are twice as many."""
    steps: int = 8000
    """Steps of the generator, >= 1."""
    critic_steps: int = 5
    """Steps of the critic before each of the generator, >= 1."""
    batch_size: int = 32
    """Images per step, >= 2."""
    penalty: float = 10.0
    """Factor of the gradient penalty, >= 0."""
    learning_rate: float = 5e-4
    """Learning rate of Adam at the beginning, > 0; it falls linearly to 0."""
    beta1: float = 0.5
    """Decay of Adam's mean of gradients, in [0, 1)."""
    beta2: float = 0.9
    """Decay of Adam's mean of squared gradients, in [0, 1)."""
    average: float = 0.999
    """Decay per step of the exponential average of the generator's weights, in [0, 1), which is then the result; 0: the
    last weights."""
    every: int = 500
    """Steps of the generator from one checkpoint, and row of the history, to the next, >= 1."""
    validation: int = 1000
    """Training images kept apart, the last ones, >= 1: the first 100 of them are reconstructed for the history."""
    seed: int = 0
    """Seed of weights, images and latent vectors, >= 0 and below 2^62."""

    def __post_init__(self) -> None:
        for name in ("latent", "width", "steps", "critic_steps", "every", "validation"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        object.__setattr__(self, "batch_size", checked_count("batch_size", self.batch_size, 2))
        object.__setattr__(self, "seed", checked_count("seed", self.seed, 0))
        checked_number("seed", self.seed, below=2**62)
        checked_number("penalty", self.penalty, least=0)
        checked_number("learning_rate", self.learning_rate, above=0)
        for name in ("beta1", "beta2", "average"):
            checked_number(name, getattr(self, name), least=0, below=1)


RECIPES = {
    "mnist": GeneratorRecipe(),
    "cifar10": GeneratorRecipe(latent=128, width=64, steps=20_000, batch_size=64, learning_rate=1e-4),
    "digits": GeneratorRecipe(latent=16, width=16, steps=2000, validation=200),
}
"""What is used for each data set."""
