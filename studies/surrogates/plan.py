"""Who learns, in theory and as a net, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from odeflow import Adversary, GaussianMixture, LearningRule
from odeflow.laws import Uniform

__all__ = ["ALPHA", "EPSILON", "LEARNERS", "MIXTURE", "PLANS", "RULES", "SEED", "TESTS", "Learner", "Nets", "Plan"]

SEED = 20261129
MIXTURE = GaussianMixture(0.7, 2.0)
"""The seed's scenario 2."""
EPSILON = 0.5
"""Training attack in theory, half of rho/2, at which the classes cannot be told apart."""
ALPHA = 100.0
"""Learning time of the seed's scenarios."""
TESTS = (0.5, 1.0, 1.5, 2.0)
"""Test attacks, in units of the training's."""

RULES: dict[str, dict[str, Any]] = {
    "seed": {},
    "logistic": {"eta_w": 0.2, "loss": "logistic", "activation": "linear", "normalised": False},
}
"""The seed's rule, and that of a net without hidden layers."""


@dataclass(frozen=True)
class Learner:
    """One way of training."""

    method: str
    """Of `deepcheck`."""
    rule: dict[str, Any] = field(default_factory=dict)
    adversary: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """Of the method, but for the attack."""
    attacked: bool = True

    def parts(self, rule: str) -> tuple[LearningRule, Adversary]:
        """Return rule and adversary of the theory."""
        return LearningRule(**RULES[rule], **self.rule), Adversary(EPSILON * self.attacked, **self.adversary)

    def without(self, rule: str) -> tuple[LearningRule, Adversary]:
        """Return the same without what is its own: standard or adversarial training."""
        return LearningRule(**RULES[rule]), Adversary(EPSILON * (self.attacked and self.method != "trades"))


LEARNERS = {
    "standard": Learner("standard", attacked=False),
    "adversarial": Learner("at"),
    "TRADES, 1": Learner("trades", {"surrogate": "trades", "beta": 1.0}, fields={"beta": 1.0}),
    "TRADES, 6": Learner("trades", {"surrogate": "trades", "beta": 6.0}, fields={"beta": 6.0}),
    # two logits of opposite sign have half of the squared difference of what the theory calls a logit
    "logit pairing": Learner("alp", {"surrogate": "pairing", "beta": 0.5}, {"clean_weight": 0.5}, {"pairing": 0.5}),
    "random epsilon": Learner(
        "random_at", {}, {"law": Uniform(0.0, 1.0)}, {"radius_law": "uniform", "law_parameters": (0.0, 1.0)}
    ),
    "non-robust only": Learner("non_robust_at", {"update": "non_robust"}),
    "noise": Learner("noise_layers", {"input_noise": EPSILON}, fields={"first_noise": 0.2, "inner_noise": 0.0}, attacked=False),
}  # fmt: skip
"""All learners; TRADES with the weights 1 and 6, the ends of the range of its paper."""


@dataclass(frozen=True)
class Nets:
    """Nets that learn a pair of classes."""

    model: str
    seeds: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """One form of the study."""

    images: str
    title: str
    epsilon: float
    """Training attack of the nets, in L2."""
    count: int
    """Training images of the pair."""
    validation: int
    attacked: int
    """Test images."""
    nets: dict[str, Nets]
    attack_steps: int
    """Of the training attack."""
    test_steps: int
    N: int
    runs: int
    times: int
    """Points of the lines over alpha."""


PLANS = {
    False: Plan(
        "mnist", "MNIST 3 against 7", 1.5, 4_000, 100, 500,
        {"linear": Nets("linear", 3, 6, 0.05), "convolutional": Nets("conv_small", 1, 6, 0.02)}, 5, 20, 1000, 100, 20,
    ),
    True: Plan(
        "digits", "scikit-learn's digits, 3 against 7", 0.8, 240, 20, 95,
        {"linear": Nets("linear", 2, 15, 0.05), "convolutional": Nets("conv_small", 1, 15, 0.02)}, 5, 10, 200, 40, 6,
    ),
}  # fmt: skip
