"""Nets that learn by the methods of all learners, and their errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepcheck.data import Images
from deepcheck.match import measured_curve
from deepcheck.models import Network, from_spec
from deepcheck.training import Recipe, recipe
from deepcheck.training.methods import METHODS, AttackingMethod
from studies.common.attacked import FREE
from studies.common.images import batch_at, examples
from studies.common.kept import digest_of, kept
from studies.common.nets import fingerprint, trained
from studies.surrogates.plan import LEARNERS, SEED, TESTS, Nets, Plan

__all__ = ["measured", "of_net", "recipe_of", "without_noise"]


def recipe_of(plan: Plan, nets: Nets, name: str, seed: int) -> Recipe:
    """Return how a net learns: what all learners share, and the method with its own fields and the attack alone.

    A method's own recipe for the images is left aside: it may have another net, other epochs or another radius.
    """
    learner = LEARNERS[name]
    model: Any = nets.model
    kind = METHODS[learner.method]
    fields = dict(learner.fields)
    if issubclass(kind, AttackingMethod):
        step = 2.5 * plan.epsilon / plan.attack_steps
        fields |= {"norm": "l2", "epsilon": plan.epsilon, "attack_steps": plan.attack_steps, "step_size": step}
    return replace(
        recipe(plan.images, "standard"), method=kind(**fields), model=model, epochs=nets.epochs, batch_size=32,
        learning_rate=nets.learning_rate, average=0.0, weight_decay=0.0, validation=plan.validation, test_norm="l2",
        test_epsilon=plan.epsilon, seed=SEED + seed,
    )  # fmt: skip


def without_noise(network: Network) -> Network:
    """Return a network without its noise layers, if it has any: that is what the theory's classifier is at test."""
    spec = network.spec
    if spec.get("noise") is None:
        return network
    plain = from_spec({**spec, "noise": None})
    own = plain.state_dict()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if name in own})
    return plain.to(next(network.parameters()).device).eval()


def measured(network: Network, x: Tensor, y: Tensor, sizes: tuple[float, ...], steps: int) -> xr.Dataset:
    """Return the errors under L2 attacks without bounds of the pixels, which the theory does not know either."""
    model = without_noise(network).eval()
    generator = torch.Generator(x.device).manual_seed(SEED)
    found = measured_curve(
        model, x, y, epsilon=list(sizes), norm="l2", steps=steps, bounds=FREE, generator=generator,
        batch_size=batch_at(x.device),
    )  # fmt: skip
    return xr.Dataset({"error": ("size", found.adversarial_error.values)})


def of_net(plan: Plan, images: Images, kind: str, name: str, seed: int, folder: Path) -> xr.Dataset:
    """Return the errors of one net at all sizes of the attack; net and errors are kept in the folder."""
    nets = plan.nets[kind]
    label = f"{plan.images}_{kind}_{name.replace(', ', '_').replace(' ', '_')}_{seed}"
    network = trained(recipe_of(plan, nets, name, seed), images, folder, label, count=plan.count)
    x, y = examples(images, plan.attacked)
    sizes = tuple(float(size) for size in np.array([0.0, *TESTS]) * plan.epsilon)
    settings = sizes, plan.test_steps, digest_of(x, y), fingerprint(network)
    return kept(folder, f"{label}_errors", settings, measured, network, x, y, sizes, plan.test_steps)
