"""What a study says when it cannot be run."""

__all__ = ["Unavailable"]


class Unavailable(RuntimeError):
    """A study cannot be run on this machine, or on what its folder holds; the message says why."""
