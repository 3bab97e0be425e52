"""Ascent on the confidence in a class: towards one wrong class after the other, from several starts each."""

from __future__ import annotations

from deepcheck.attacks.gradient.pgd import PGD
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.objectives import TargetedCrossEntropy
from odeflow.model import checked_count

__all__ = ["confident_pgd"]


def confident_pgd(
    norm: Norm | str = "linf",
    *,
    steps: int = 100,
    relative_step_size: float | None = None,
    restarts: int = 90,
    backtracking: float | None = 1.5,
) -> PGD:
    """Return ascent on log p of one wrong class after the other, never finished (Wu, Jang, Chen, Chen, Jha, ICML 2018).

    The largest confidence in a wrong class counts, over all classes and starts. Restarts go through the wrong classes, the
    likeliest first, and then from the first again: 90 are 10 random starts for each of 9. Steps are by default 2.5 epsilon / steps
    long at first, and shorter where they lose. In single precision the slope of log p_t, 1 - p_t, vanishes where p_t is 1
    up to rounding: there is nothing more to gain.

    What is found is a lower bound on the largest confidence in the ball. Of each wrong class for itself, see
    `deepcheck.evaluation.separation.wrong_confidences`.
    """
    share = 2.5 / checked_count("steps", steps, 1) if relative_step_size is None else relative_step_size
    return PGD(
        norm,
        TargetedCrossEntropy(goal="never"),
        steps=steps,
        relative_step_size=share,
        restarts=restarts,
        backtracking=backtracking,
        targets="likeliest",
    )
