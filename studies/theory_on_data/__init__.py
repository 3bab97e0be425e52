"""Theory on the means and covariances of real images, with no fitted parameter, through SGD on the images themselves.

A linear classifier learns two classes of images under attack. Four curves for each setting: theory in the limit
eta -> 0, theory with the noise of SGD, SGD on Gaussian samples with the images' means and covariances, and SGD on the
images. One figure for each pair of classes; one file for all, in which a setting is selected by its name::

    one = load("theory_on_data.nc").sel(setting="mnist 3 vs 7, linf 0.1, eta 0.01")
    one.adversarial_error.plot.line(x="test_epsilon", hue="theory")
    one.simulated_adversarial_error.mean("run").plot.line("o", x="simulated_test_epsilon", hue="sample")

What theory and images differ by has three parts, each of which vanishes if its assumption holds: the weights that SGD
finds on the images are not those of the theory; the margins tau w.xi of the images are not Gaussian, which the
theory's formula for the error takes them to be; and the test images are others than the training images. Each part is
measured on the classifiers that SGD found. Pairs whose images are not there are left out, and the study says so.
"""

from studies.theory_on_data.study import run

__all__ = ["STUDIES", "run"]

STUDIES = [
    {
        "name": "theory_on_data",
        "title": "theory on means and covariances of real images, with the noise of SGD: through SGD on the images",
        "place": 80,
    },
]
