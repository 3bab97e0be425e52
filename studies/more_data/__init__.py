"""The gap between the adversarial and the clean error over the number of examples: does more data close it, and at which epsilon.

The gap S - E over the number of labelled examples, for several sizes of the attack, each met in training and in the test. In
theory: the minimiser of the attacked loss on the seed's mixture at n examples for N dimensions, and one pass of SGD. On images:
linear classifiers of two classes (MNIST 3 against 7, CIFAR-10 airplanes against ships) with the least attacked logistic loss, in
L2, whose errors are exact; and small convolutional nets of all ten classes after adversarial training in L-infinity. Beside
them what standard training on the same images has under the same attack, and for two classes the error below which no
classifier of these test images is.

Two answers are known, and are the rivals: that a robust classifier only needs more data (Schmidt et al., NeurIPS 2018), and that
more data can widen a gap (Chen, Min, Zhang and Karbasi, ICML 2020; theirs is that of the clean errors after adversarial and after
standard training, which is shown too).

Where a net says one class only, or nothing at all, S = E and the gap is 0: figures and table have E as well. Images of CIFAR-10
are left out where they are not, and scikit-learn's digits stand in for MNIST; the study says so.
"""

from studies.more_data.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "more_data",
        "title": "the gap between adversarial and clean error over the number of examples: theory, linear and deep nets",
        "place": 155,
        "long": True,
    },
]
