"""Deeper nets that learn online from the seed model's mixture, and the theory of the linear classifier.

Linear nets, and nets with one and two hidden layers of 20 ReLU units, learn from examples that are used once, with
the seed's learning rates, in the standard way and adversarially, by FGSM and by PGD. Beside the measured classification
error E, adversarial error S, effective overlap R_eff and robustness curve stand two theories:

- the seed model with its learning rates: exact for linear nets as N grows, and the calibration of all of this;
- the seed model with the deep net's own learning rates. What a step of SGD does to a net's output at the start of
  training has a part along B and a constant part, and these are what a linear net's step does with other rates eta_w
  and eta_b (`own_rates`). With them and the net's constant output at the start as the bias b(0), the seed model has no
  fitted parameter. Approximate: the rates change during learning, and the margins are not those of a linear net.

To tell what keeps deeper nets from learning under attack, some learn longer, with a smaller epsilon, or start from nets
that have learned without an attack (then both theories start with their R_eff and b_eff).

Nets with 2, 3 and 4 hidden units that learn by the two-layer theory's own rule (free weights, squared loss of the output,
everything trained) stand beside that theory, which has no parameter to fit either and is exact as N grows; nets with 20
beside its reduced simulation, which is exact in law.

One file for all, in which a setting is selected by its name::

    one = load("deep_on_mixture.nc").sel(setting="N=100, p=0.7, two layers, epsilon=1, FGSM")
    one.R.plot(x="theory_alpha")
    one.R_eff.mean("run").plot.line("o", x="alpha")
"""

from studies.deep_on_mixture.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "deep_on_mixture",
        "title": "do deeper nets that learn online from the mixture follow the theory?",
        "place": 110,
    },
]
