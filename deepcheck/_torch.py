"""PyTorch, or an error that names the extra that brings it: imported by whatever needs torch, before torch."""

from odeflow.cli.program import missing

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(missing(error), name="torch") from None
