r"""Every attack of `deepcheck.attacks.registry` against four nets: what each finds, how near, and what it costs.

Three nets on MNIST (standard training, adversarial training and CCAT, at epsilon = 0.3 in L-infinity) and one of
adversarial training on CIFAR-10, all small, meet every attack in every norm that it knows: attacks by gradient, attacks
that look for the nearest adversarial example, attacks by queries, and what is prepared on other images or moves pixels and
colours. An attack takes part by its line in the registry. Whether one is needed depends on the net: the question is which
of them a suite must have so that the others add nothing, and what a net looks like that hides its gradient.

An image counts as broken by an attack at epsilon if it is misclassified within the ball; of an attack that looks for the
nearest, if what it found is within. Robust accuracies are upper bounds: those of one attack, or of the worst case of some,
on the same first images. Distances are upper bounds on the least ones. Dear attacks are run on fewer images, and
comparisons are made on the images that both were run on. Times are those of one thread of a processor (on a GPU those of
the clock), queries are evaluations of the model at a point, and a gradient is one too. With rejection, what is classified
with less confidence than 99 % of the correctly classified clean images have does not count.
"""

from studies.attacks.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "attacks",
        "title": "all attacks against standard, adversarial and confidence-calibrated training: what each finds, and its price",
        "place": 160,
        "long": True,
    },
]
