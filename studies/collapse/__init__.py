r"""Unequal priors: the training epsilon from which on a classifier knows one class only.

Adversarial training moves the bias towards the majority, and the clean error up, until hardly any example of the
minority is recognised. For unequal priors this is a smooth crossover in finite time and no transition, so that a
definition is needed, one for theory, linear and deep nets alike: a classifier *has collapsed* when it recognises fewer
than 1 in 10 examples of the minority class (its recall, on clean test data). The critical epsilon is the training
epsilon at which the recall falls below 0.1 for the first time; between measured epsilons the inverse normal
distribution function of the recall is interpolated, which theory has nearly straight. Where the critical epsilon is
depends on that share and on the learning time: theory gives both, and the figure shows them.

Mixtures
    p = 0.7, v = 1, learned online, each example used once, until alpha = 100. Epsilon is in units of half the separation
    of the centres. Two rules: the seed model's (length of w fixed at 1, eta_w = 0.04), and a free one (length not fixed,
    eta_w = 0.4), because ReLU nets hardly learn in this time by the first. ReLU nets begin with random weights, or go on
    from a training without attack of the same length; theory does both too. The runs of a net see the same examples at
    every epsilon.

Images
    Two digits of MNIST with p = 0.7, by leaving out images of the minority. A linear classifier by one-pass SGD, beside
    the theory on the means and covariances of the images, and a small convolutional net by AT (cross-entropy, PGD in
    the box [0, 1]). Epsilon is in units of half the distance of the two class means, in the norm of the attack. That
    unit is itself a boundary of the theory: as eta -> 0 the state w = 0, a constant classifier, is stable from there on,
    whatever priors and covariances are. For with the bias at rest :math:`p\langle\delta\rangle_+ =
    -(1-p)\langle\delta\rangle_- = c > 0`, and to first order in w equation (4) has
    :math:`w\cdot dw/dt = c\,[w\cdot(m_+ - m_-) - 2\varepsilon|w|_*]`, negative for all w if :math:`\varepsilon` exceeds
    half the norm of :math:`m_+ - m_-`.
"""

from studies.collapse.measure import critical, half_distance, minority_recall, unbalanced
from studies.collapse.study import run

__all__ = ["STUDIES", "critical", "half_distance", "minority_recall", "run", "unbalanced"]

STUDIES = [
    {
        "name": "collapse",
        "title": "unequal priors: from which training epsilon on does a classifier know one class only?",
        "place": 130,
        "long": True,
        "subjects": True,
    },
]
