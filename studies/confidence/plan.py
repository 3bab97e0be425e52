"""Which nets are trained, and the two forms of the study."""

from __future__ import annotations

from studies.confidence.measure import Setting

__all__ = ["DIGITS", "FULL", "NETS"]

NETS = {
    "linear, standard": ("linear", "standard"),
    "linear, AT": ("linear", "at"),
    "conv, standard": ("conv_small", "standard"),
    "conv, AT": ("conv_small", "at"),
    "conv, CCAT": ("conv_small", "ccat"),
}
"""The nets by name: model and method of training."""
FULL = Setting(400, (10.0, 30.0, 100.0), 12, 500, 3, 3, 500, 0.1, (0.0, 0.05, 0.1, 0.15, 0.2))
DIGITS = Setting(
    100, (5.0, 20.0), 10, 500, 2, 15, 95, 0.2, (0.0, 0.1, 0.2, 0.3, 0.4), ccat_epochs=15, validation=20, batch_size=32
)
