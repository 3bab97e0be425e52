"""Linear nets that learn from the seed model's mixture, with a reject option and behind the most confident neighbour.

The theory is closed: `odeflow.errors.rejection`. The nets are attacked and embedded in R^N by `deepcheck`, as any net is; with
their confidence (1 + erf x) / 2 in the class +1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks.gradient.pgd import PGD
from deepcheck.attacks.starts import Zero
from deepcheck.defences.base import Adaptive
from deepcheck.defences.neighbours import MCN
from deepcheck.training.online import draw, train_online
from odeflow import Adversary, GaussianMixture, LearningRule, integrate
from odeflow.errors import rejection
from studies.hcnn.measure import SEED

__all__ = ["ETAS", "LEVELS", "MIXTURE", "XIS", "Size", "nets", "theory"]

MIXTURE = GaussianMixture(p=0.6, rho=3.0)
RULE = LearningRule(eta_w=0.2, eta_b=0.2, normalised=False)
ADVERSARY = Adversary(0.5)
LEVELS = (0.6, 0.75, 0.9, 0.95, 0.99)
ETAS = (0.5, 1.0, 1.5)
XIS = (0.0, 0.25, 0.5)
FREE = (-np.inf, np.inf)
QUANTITIES = {
    "awpr": "share of the correct points with an attack to a wrong and accepted answer",
    "recall": "share of the correct points that are accepted",
}


@dataclass(frozen=True)
class Size:
    """How large the check is."""

    N: int
    alpha: float
    runs: int
    tests: int
    """Fresh examples of each net."""


FULL = Size(400, 50.0, 12, 500)
QUICK = Size(100, 20.0, 6, 200)


class OfMargin(nn.Module):
    """A net of two logits with the confidence (1 + erf x) / 2 in the class 1, of a net with the margin x."""

    def __init__(self, margin: Any) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, xi: Tensor) -> Tensor:
        """Return logits, shape (n, 2), for examples of shape (n, N)."""
        x = self.margin(xi)
        logits: Tensor = torch.special.log_ndtr(np.sqrt(2) * torch.cat([-x, x], 1))  # (1 + erf x) / 2 = Phi(sqrt(2) x)
        return logits


def theory(size: Size, levels: Any = LEVELS) -> xr.Dataset:
    """Return AWPR and recall of the theory's classifier at the end of the training (exact as N grows)."""
    end = integrate(MIXTURE, RULE, ADVERSARY, alpha=[0.0, size.alpha]).isel(alpha=-1)
    level = xr.DataArray(np.asarray(levels), dims="level", coords={"level": np.asarray(levels)})
    eta = xr.DataArray(list(ETAS), dims="eta", coords={"eta": list(ETAS)})
    R, b, Q = (float(end[name]) for name in ("R", "b", "Q"))
    parts = [rejection(R, b, MIXTURE, level, eta, Q=Q, xi=xi) for xi in XIS]
    return xr.concat(parts, xr.DataArray(list(XIS), dims="xi", name="xi"))


def nets(size: Size, seed: int = SEED) -> xr.Dataset:
    """Return the same of nets, by run: of examples that are right as they are, attacked with PGD through the embedding."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"N": size.N, "alpha": [size.alpha], "runs": size.runs, "generator": generator}
    ((_, trained),) = train_online(MIXTURE, RULE, ADVERSARY, **options)
    attack = PGD("l2", "wrong_confidence", steps=4, relative_step_size=0.5, start=Zero(), bounds=FREE)
    awpr = np.zeros((len(XIS), size.runs, len(ETAS), len(LEVELS)))
    recall = np.zeros((len(XIS), size.runs, len(LEVELS)))
    tau = np.array(LEVELS)[:, None]
    for run in range(size.runs):
        net = OfMargin(trained.net(run))
        xi, sign = draw(MIXTURE, (size.tests,), size.N, generator)
        y = (sign[:, 0] > 0).long()
        for i, radius in enumerate(XIS):
            model = MCN(net, xi=radius, norm="l2", bounds=FREE, steps=4, attack_steps=4) if radius else net
            with torch.no_grad():
                p, said = model(xi).softmax(1).max(1)
            right = said == y
            recall[i, run] = (p[right].numpy() >= tau).mean(-1)
            found = (Adaptive(attack) if radius else attack)(
                model, xi[right], y[right], epsilon=list(ETAS), generator=generator
            )
            wrong = (found.prediction != y[right])[:, 0].numpy()
            awpr[i, run] = (wrong[:, None] & (found.confidence[:, 0].numpy()[:, None] >= tau)).mean(-1)
    return xr.Dataset(
        {"awpr": (("xi", "run", "eta", "level"), awpr), "recall": (("xi", "run", "level"), recall)},
        {"xi": list(XIS), "eta": list(ETAS), "level": list(LEVELS), "linear_N": size.N},
    )
