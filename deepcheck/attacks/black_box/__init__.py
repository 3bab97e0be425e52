"""Attacks that only look at the model's output."""
