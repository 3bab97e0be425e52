"""Optimal protocols: the schedules of epsilon and of the learning rates that leave the least adversarial error."""

from odeflow.control.optimise import best_model, optimal_constant, optimal_schedule

__all__ = ["best_model", "optimal_constant", "optimal_schedule"]
