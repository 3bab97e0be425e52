"""Natural corruptions of images, after MNIST-C and CIFAR-10-C, on tensors."""

import deepcheck._torch  # noqa: F401
from deepcheck.corruptions.base import SEVERITIES, Corruption
from deepcheck.corruptions.jpeg_codec import jpeg
from deepcheck.corruptions.registry import BENCHMARKS, CORRUPTIONS, chosen, listed

__all__ = ["BENCHMARKS", "CORRUPTIONS", "SEVERITIES", "Corruption", "chosen", "jpeg", "listed"]
