"""What learns from what, and how it is attacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from odeflow import Adversary, GaussianMixture, LearningRule

NETS = {"linear": (), "two layers": (20,), "three layers": (20, 20)}
PRIORS = (0.5, 0.7)
SMALL, LARGE = 100, 1000  # N
RULE = LearningRule()  # the seed's: eta_w = 0.04, eta_b = 0.2
TEST = 1.0  # test epsilon of S(alpha)
TESTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the robustness curve
ALPHA = (0.0, 1.0, 3.0, 10.0, 20.0, 40.0, 70.0, 100.0)
LONGER = (300.0,)
END = 100.0  # time of the robustness curve
LINES = np.union1d(np.geomspace(1, 300, 51), ALPHA + LONGER)  # times of the theory
WARM = 300.0  # how long the nets learn without an attack, where adversarial training starts from these
STEPS = 10  # of the attack in the test


@dataclass(frozen=True)
class Setting:
    """What learns from what, and how it is attacked."""

    N: int
    p: float
    net: str
    epsilon: float
    attack: Literal["fgsm", "pgd"] = "fgsm"
    warm: bool = False
    """Whether the nets have learned without an attack before, until alpha = WARM."""
    longer: bool = False
    runs: int = 10

    @property
    def training(self) -> str:
        """How the nets learn, in words."""
        if not self.epsilon:
            return "standard"
        return f"epsilon={self.epsilon:g}, {self.attack.upper()}" + (", after standard" if self.warm else "")

    def __str__(self) -> str:
        return f"N={self.N}, p={self.p:g}, {self.net}, {self.training}"

    @property
    def model(self) -> tuple[GaussianMixture, LearningRule, Adversary]:
        """Mixture, rule and adversary."""
        return GaussianMixture(p=self.p), RULE, Adversary(self.epsilon)


def settings(*, quick: bool) -> list[Setting]:
    """Return all settings."""
    result = []
    for p in PRIORS:
        for N in (SMALL,) if quick else (LARGE, SMALL):
            longer = N == SMALL and not quick
            few = 10 if longer else 5
            for net in list(NETS)[: 2 if quick else 3]:
                runs = 20 if net == "linear" else few
                result += [Setting(N, p, net, epsilon, longer=longer, runs=runs) for epsilon in (0.0, 1.0)]
                if (net == "two layers" and not (quick and p == PRIORS[0])) or (longer and net != "linear"):
                    result.append(Setting(N, p, net, 1.0, "pgd", runs=few))
                if net != "linear" and longer:
                    result.append(Setting(N, p, net, 0.5, longer=longer, runs=few))
                    result += [Setting(N, p, net, epsilon, warm=True, runs=few) for epsilon in (0.5, 1.0)]
    return result
