"""Attacks that follow the gradient of an objective, within a budget."""
