"""3 against 7: the robustness of deep nets under attack, and that of their linear approximations.

A linear classifier, a small convolutional and a residual net learn to tell two digits apart, with and without
adversarial training (AT). For each there is the robustness curve that PGD measures, S over the size of the attack, and
what predicts it: for the linear one the theory of one-pass SGD on the means and covariances of the images; for the
others their margins and gradients at the clean images, the locally linear prediction of `deepcheck.match`, and the same
with Gaussian margins.

The predictions know of no bounds of the pixels, so the measured curve is that of attacks without bounds. (An attack in
the box [0, 1] is one of them: where it turns more images than PGD without bounds, it counts.) The nets are trained in
the box, as usual.

Where MNIST is missing, the study takes the 8 x 8 images of scikit-learn, and says so.
"""

from studies.deep_on_mnist.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "deep_on_mnist",
        "title": "3 against 7: is the robustness of deep nets that of their linear approximations?",
        "place": 120,
        "long": True,
        "subjects": True,
    },
]
