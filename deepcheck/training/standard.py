"""The former place of `deepcheck.training.methods.standard`."""

from deepcheck.training.methods.standard import Standard

__all__ = ["Standard"]
