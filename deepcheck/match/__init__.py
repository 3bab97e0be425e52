r"""From a trained binary net to the theory's quantities: margins, effective overlap and bias, and predicted curves.

The theory's classifier is linear: its margin is :math:`z(x) = w\cdot x - b`, and the worst perturbation of size
:math:`\varepsilon` lowers it by :math:`\varepsilon|w|_*`, where :math:`|\cdot|_*` is the dual norm. A net is linear
only near each example, where its gradient :math:`\nabla z(x)` has the place of w. So z and its gradient at every
example give what the theory has as one number: overlap, bias, and the law of the margin in units of
:math:`\varepsilon`, :math:`u = z/|\nabla z|_*`.

The classes have the labels +1 and -1. Wherever labels are asked for, they may be these, or the classes 1 and 0 in this
order: the label +1 is the class 1, the second logit. All of it is exact for linear nets, and approximate for others;
how far a net is from a linear one is measured by `linearity`.
"""

import deepcheck._torch  # noqa: F401
from deepcheck.match.layers import layer_features
from deepcheck.match.margins import margins
from deepcheck.match.measured import linearity, measured_curve
from deepcheck.match.theory import match, predicted_curve

__all__ = ["layer_features", "linearity", "margins", "match", "measured_curve", "predicted_curve"]
