"""The ranking of ways of training for robustness: which one does theory give, and do nets follow it.

Eight learners with a counterpart in the theory of one linear unit: standard training, adversarial training, TRADES (two weights),
logit pairing, adversarial training at a random epsilon and on examples that are not robust yet, and noise on the input. All have
the same learning time and the same learning rates; their strengths are fixed, and those that are usual: nothing is tuned to the
test, so the ranking is that of the rules as they are used. The adversary is L2, as that of the theory.

Theory
    The seed's mixture (scenario 2), with the training attack half of what would make the classes inseparable, under two rules:
    the seed's (squared loss of erf, |w| = 1), and what nets have (logistic loss of a linear unit, free weights). Runs at finite N go
    through the lines.
Nets
    Linear classifiers and small convolutional nets learn MNIST 3 against 7 (quick: scikit-learn's digits) by the methods of
    `deepcheck` of the same names, each with the same weights, radius and number of epochs. Noise is added in learning alone, as in the
    theory.

The order of the robust errors is compared by Kendall's tau, at four sizes of the test attack from half of the training's to twice
that. What a random order of the eight learners reaches is the null. Theory knows nothing of images but that they have two classes: it
is asked for an order, and not for a number.
"""

from studies.surrogates.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "surrogates",
        "title": "TRADES, pairing, noise and other ways of training: the ranking of theory beside that of nets",
        "place": 157,
        "long": True,
    },
]
