"""``deepcheck distal``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepcheck.commands.common import OnNet, load_images, training_threat
from odeflow.provenance import check_target

__all__ = ["Distal"]


@dataclass(frozen=True)
class Distal(OnNet):
    """Make distal adversarial examples: noise that an attack makes a net confident in."""

    epsilon: float | None = None
    """Size of the perturbation in L-infinity, > 0; default: that of the training attack."""
    count: int = 1000
    """Noise images of each kind, >= 1."""
    steps: int = 200
    """Gradient steps, >= 1."""
    restarts: int = 2
    """Starts of the attack, >= 1."""
    plot: Path | None = None
    """Save pictures with their classes and confidences to this file (.pdf, .png or .svg)."""

    def run(self) -> int:
        """Run the command."""
        import numpy as np

        from deepcheck.evaluation import distal
        from odeflow.plot import FORMATS, save_figure

        if self.plot is not None:
            check_target(self.plot, FORMATS)
        network, dataset, device, about = self.network()
        epsilon = training_threat(about, dataset)[1] if self.epsilon is None else self.epsilon
        shape = getattr(network, "in_shape", None) or load_images(dataset, self.data_dir).shape
        records = distal(
            network,
            shape,
            epsilon=epsilon,
            count=self.count,
            steps=self.steps,
            restarts=self.restarts,
            seed=self.seed,
            device=device,
            batch_size=self.batch_size,
            configuration=about,
            progress=True,
        )
        lines = [f"mean confidence in noise, and in distal adversarial examples at epsilon = {epsilon:.4g}"]
        best = records.confidence.isel(attack=0, epsilon=0).max("restart")
        for kind in dict.fromkeys(records.noise.values.tolist()):
            chosen = np.flatnonzero(records.noise == kind)
            before, after = (float(values[chosen].mean()) for values in (records.clean_confidence, best))
            lines.append(f"{kind:>8} noise: {before:.4f} -> {after:.4f}")
        self.finish(records, "\n".join(lines))
        if self.plot is not None:
            from deepcheck.plot import plot_distal

            print(save_figure(plot_distal(records), self.plot))
        return 0
