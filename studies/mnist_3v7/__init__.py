"""Logistic regression on images, 3 against 7, with and without adversarial training: theory through real data.

The adversary moves an image in the worst direction for a linear classifier (FGSM), in L2 or in L-infinity, without
clipping the pixels to [0, 1]. SGD starts from zero weights and takes the images in another random order in each run. The
classifier says 3 if its output, the log-odds w.xi - b, is positive.

The theory knows the training images by the means and covariances of the two classes alone, and no image comes twice.
Its lines are those of its mean weights: the spread over runs, which is left out, would move those of MNIST by less than
0.01 (it is larger in the first images, which are not shown).

Where MNIST is missing, the study takes the 8 x 8 images of scikit-learn, and says so.
"""

from studies.mnist_3v7.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "mnist_3v7",
        "title": "adversarial training on images, 3 against 7: theory through SGD on MNIST",
        "place": 70,
    },
]
