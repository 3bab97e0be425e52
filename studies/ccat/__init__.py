"""Studies ccat_mnist and ccat_cifar10: standard, adversarial and confidence-calibrated training, under all attacks."""

from studies.ccat.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "ccat_mnist",
        "title": "standard, adversarial and confidence-calibrated adversarial training on MNIST, with and without rejection",
        "place": 90,
        "long": True,
    },
    {
        "name": "ccat_cifar10",
        "title": "the same on CIFAR-10, for a CUDA GPU",
        "place": 100,
        "long": True,
    },
]
