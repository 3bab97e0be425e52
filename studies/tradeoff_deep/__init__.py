"""Clean against adversarial error along the training epsilon, for theory, linear nets and deep nets.

On the left the seed's mixture with unequal priors: the order-parameter theory, linear nets that learn online as it says,
and nets with a hidden layer. On the right images, 3 against 7: the theory on their means and covariances, linear
classifiers that learn by SGD from the images, and small convolutional nets after adversarial training (AT). For all of
them: the classification error E and the adversarial error S at one fixed size of the test's attack, in L2 and without
bounds, as the training epsilon grows; and the training epsilon with the least S.

Where MNIST is missing, the study takes the 8 x 8 images of scikit-learn, and says so.
"""

from studies.tradeoff_deep.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "tradeoff_deep",
        "title": "clean against adversarial error along the training epsilon, for theory, linear and deep nets",
        "place": 140,
        "long": True,
    },
]
