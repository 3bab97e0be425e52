"""How large what a model holds may be."""

__all__ = ["MOST"]

MOST = 1e6
"""Largest separation, variance, perturbation and learning rate of a model.

With it, and the least variance 1 / MOST, squares and ratios of what a model holds stay far from the ends of floating point, and
sums keep half of their digits: every function that takes a model answers within its accuracy, or says that it could not.
"""
