"""Where learning ends: fixed points, their phases, and how fast they are reached."""

from odeflow.fixed_points.equilibria import fixed_points

__all__ = ["fixed_points"]
