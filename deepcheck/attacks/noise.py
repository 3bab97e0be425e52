"""The former place of `deepcheck.attacks.black_box.noise` and `.search`."""

from deepcheck.attacks.black_box.noise import UniformNoise
from deepcheck.attacks.black_box.search import RandomSearch

__all__ = ["RandomSearch", "UniformNoise"]
