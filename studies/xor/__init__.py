r"""XOR, four units: where the specialised state collapses under attack, and which random starts find all clusters.

Four clusters, centres :math:`\pm e_1` with the label +1 and :math:`\pm e_2` with -1, variance v; no linear rule is better
than chance. K = 4 units with the output weights (+1, +1, -1, -1), which are not trained. Three parts:

Learning
    E and S over alpha, in the standard way and adversarially (FGSM), ReLU and erf units: theory (exact as N grows) beside
    simulation. Erf units without thresholds are odd and the labels even: theirs are trained.
The collapse
    A net of ReLU units with one unit on each centre, :math:`w_k = q\,(\pm e_1, \pm e_2)`, is homogeneous near w = 0, where
    its length grows with :math:`\langle\tau\tilde\phi\rangle`. It is pushed to 0 by an attack beyond the epsilon that solves
    :math:`E\,\bigl||x| - \varepsilon/\sqrt 2\bigr| = \sqrt{2v/\pi} + \varepsilon/\sqrt 2`, x ~ N(1, v); as v -> 0 it is
    half the distance of two neighbouring centres. Exact as eta -> 0 and N grows. Beside it the kernel's own fixed points,
    by continuation down to w = 0, and at a finite eta, where the noise of SGD rounds the collapse, with simulations.
Random starts
    Whether all four clusters are found is decided by which centre each unit turns to. The share of starts that find all
    over epsilon, and what changes it: the learning rate at the same eta alpha, the dimension at the same overlaps (as N
    grows the noise of SGD vanishes, and the theory from that start is left), the adversary, the output bias, the size of
    the weights, states that have missed a cluster already, and nets in R^N in which every unit meets an attack of its own.
    Beside them the theory's growth rates of like units that turn to one centre, and to two.

The data are one file; the random starts are its dim `condition`::

    one = load("xor.nc")
    one.share.sel(condition="as it is").plot(x="start_epsilon", marker="o")
"""

from studies.xor.measure import critical_epsilon
from studies.xor.study import run

__all__ = ["STUDIES", "critical_epsilon", "run"]

STUDIES = [
    {
        "name": "xor",
        "title": "XOR: where does a two-layer network collapse under attack, and which starts find all clusters?",
        "place": 45,
    },
]
