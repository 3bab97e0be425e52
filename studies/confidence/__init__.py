r"""How the confidence of a classifier separates right from wrong predictions near the data, for theory and nets.

Wu, Jang, Chen, Chen and Jha (ICML 2018, arXiv 1711.08001) call a net (p, q, delta)-separating if with a chance of at
most q there is a point x' within delta of an example x that the net takes for a wrong class with a confidence of p or
more; they argue that adversarial training makes nets separate. Here their p is the `level`, because p is a prior, and
`share` is the least such q: the share of the examples for which the strongest attack of size delta reaches a confidence
in a wrong class of at least the level. At the level 1/2 it is the adversarial error.

In theory it is the adversarial error at another epsilon, delta - t / |w|. The output erf(x) of the seed model is read
as the confidence (1 + erf x) / 2 in the class +1. The attacked margin tau x is Gaussian with mean
rho R / 2 - tau b - delta |w| and variance v_tau |w|^2, so that, with t = erfinv(2 level - 1),

    share(level, delta) = sum_tau p_tau Phi(-(t + rho R / 2 - tau b - delta |w|) / (sqrt(v_tau) |w|)),

exact as N grows, with |w| = 1 or free: `odeflow.errors.separation`. Nets have two logits; their confidence in the class +1 is 1 / (1 + exp(-z)) with
the difference z of the logits. Beside what the attack finds stand two predictions from the examples themselves: each
example's linear approximation, attacked within the same ball and box, exact for linear nets; and the theory's formula
with mean and variance of these attacked margins in each class, exact if they are Gaussian, too.

What the attack finds is a lower bound, exact for linear nets.

Lower confidence everywhere lowers the share at every level above 1/2, but separates nothing. What does not depend on
the scale of z: the share of the clean examples that are right with more confidence than the level that all but 1 % or
5 % of the attacked examples stay below (`accepted`), and the area under the ROC curve of the confidence for right
against wrong predictions at the attacked points (`auc`). In the seed model with p = 1/2 and b = 0 this area depends on
the adversarial error alone, and is 1/2 where that is: nets are compared with it (`symmetric_auc`). Nor can a linear
classifier gain from taking the most confident class in a ball around the attacked point, as the paper proposes: that is
the class at its centre.
"""

from studies.confidence.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "confidence",
        "title": "how confidence separates right from wrong near the data, for theory, linear and deep nets",
        "place": 150,
        "long": True,
        "subjects": True,
    },
]
