"""Data to learn from: MNIST, CIFAR-10, scikit-learn's digits, pairs of their classes, and the seed model's mixture."""

from deepcheck.data.images import DataError, Images, TwoClasses, two_class_images, two_classes
from deepcheck.data.mixture import mixture_classes
from deepcheck.data.sources import load

__all__ = ["DataError", "Images", "TwoClasses", "load", "mixture_classes", "two_class_images", "two_classes"]
