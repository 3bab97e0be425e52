"""Several attacks as one: each takes only the examples that those before it have left."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepcheck.attacks.base import Attack, Attacked, Model, checked_images
from deepcheck.attacks.calls import HALVES, decided, evaluating, logits_of
from deepcheck.attacks.checks import checked_bounds, checked_epsilons, checked_indices, checked_logits
from deepcheck.attacks.draws import checked_generator
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.attacks.objectives import Margin
from odeflow.model import checked_count
from odeflow.provenance.files import check_target, write_bytes

__all__ = ["InOrder", "Stage"]


@dataclass(frozen=True)
class Stage:
    """What one of the attacks did, at one epsilon."""

    name: str
    accuracy: float
    """Share of the examples that are right after it and all before it."""
    seconds: float
    attacked: int
    """Number of examples that were left for it."""


@dataclass(frozen=True)
class InOrder:
    """Attacks in an order, as one attack: the union of what they find, example by example.

    An example that the model gets wrong as it is stays as it is. The others are attacked by one after the other; what an
    attack turns is not given to the next. What the model says of the images that an attack has found, of all its restarts
    the best, is asked in one call, so that a random model is not asked until it fails.

    The result has one restart for each attack, in their order; an example that was turned before repeats what was found.
    Its objective is the margin, whatever the attacks maximise.

    Examples
    --------
    >>> import torch
    >>> from deepcheck.attacks import Square, pgd
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> both = InOrder((("pgd", pgd("linf", steps=10)), ("square", Square("linf", queries=20))))
    >>> attacked = both(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 2, 5]))
    """

    attacks: tuple[tuple[str, Attack], ...]
    """Names and attacks, of one norm."""
    name: str = "in order"
    """What the whole is called."""
    state: str | None = field(default=None, repr=False)
    """A folder in which a file is written after each attack, one for each epsilon; None: nothing is written. Where such a file
    is there and of the same evaluation (attacks, model, images, labels, epsilon and seed), the attacks in it are not run again.
    The model is known by its logits of the images."""
    objective: Margin = field(default_factory=Margin, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("attacks = () is not allowed: one at least is")
        norms = {as_norm(attack.norm).name for _, attack in self.attacks}  # type: ignore[arg-type]
        if len(norms) > 1:
            raise ValueError(f"attacks are of the norms {', '.join(sorted(norms))}: allowed is one norm for all")
        names = [name for name, _ in self.attacks]
        if len(set(names)) < len(names):
            raise ValueError(f"attacks are named {names}: allowed are different names")

    @property
    def norm(self) -> Norm:
        """The norm that `epsilon` bounds."""
        return as_norm(self.attacks[0][1].norm)  # type: ignore[arg-type]

    @property
    def restarts(self) -> int:
        """The number of attacks."""
        return len(self.attacks)

    @property
    def effort(self) -> str:
        """The attacks in order."""
        return ", ".join(name for name, _ in self.attacks)

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        targets: None = None,
        indices: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> Attacked:
        """Attack a model on some examples, within one or more budgets: see `deepcheck.attacks.base.BudgetAttack`."""
        epsilons, single = checked_epsilons(epsilon)
        if targets is not None:
            raise ValueError("targets are not allowed: the attacks in order look for any wrong class")
        seed = _seed(generator)
        common: dict[str, Any] = {"indices": indices, "batch_size": batch_size, "progress": progress}
        results = [self._run(model, images, labels, value, seed, **common)[0] for value in epsilons]
        return results[0] if single else Attacked.stacked(results)

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float,
        generator: torch.Generator,
        indices: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> tuple[Attacked, list[Stage]]:
        """Attack at one epsilon, and say what each attack did, and how long it took.

        Parameters
        ----------
        model, images, labels, generator, indices, batch_size, progress
            As of the call.
        epsilon
            Radius of the ball, >= 0.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed, or the state is one of another evaluation; before any attack.
        """
        (value,), _ = checked_epsilons([epsilon])
        common: dict[str, Any] = {"indices": indices, "batch_size": batch_size, "progress": progress}
        return self._run(model, images, labels, value, _seed(generator), **common)

    def _run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        epsilon: float,
        seed: int,
        *,
        indices: Tensor | None,
        batch_size: int,
        progress: bool,
    ) -> tuple[Attacked, list[Stage]]:
        """Run the attacks at one epsilon."""
        bounds = checked_bounds(getattr(self.attacks[0][1], "bounds", (0.0, 1.0)))
        checked_images(images, labels, bounds)
        batch_size = checked_count("batch_size", batch_size, 1)
        indices = checked_indices(indices, images)
        if not len(images):
            return Attacked.none(images.detach(), self.restarts), []
        images, labels = images.detach(), labels.detach()
        found = _Found(model, images, labels, self.norm, batch_size)
        stages: list[Stage] = []
        state = None if self.state is None else Path(self.state, f"{self.name}_{self.norm.name}_{epsilon:.6g}.npz")
        digest = "" if state is None else self._digest(images, labels, indices, epsilon, seed)
        if state is not None and _folder_of(state) and state.exists():
            stages = found.load(state, digest)
        for number, (name, attack) in enumerate(self.attacks):
            if number < len(stages):
                continue
            began = time.perf_counter()
            rows = found.left()
            if len(rows):
                source = torch.Generator().manual_seed((seed + number) % 2**63)
                options: dict[str, Any] = {"indices": indices[rows], "batch_size": batch_size}
                options |= {"progress": progress} if progress else {}
                one = attack(model, images[rows], labels[rows], epsilon=epsilon, generator=source, **options)
                found.put(rows, one.images, one.queries.sum(0))
            found.row()
            stages.append(Stage(name, found.accuracy(), time.perf_counter() - began, len(rows)))
            if state is not None:
                found.save(state, digest, stages)
        return found.result(), stages

    def _digest(self, images: Tensor, labels: Tensor, indices: Tensor, epsilon: float, seed: int) -> str:
        """Return what an evaluation is told from others by."""
        sha = hashlib.sha256(repr((self, epsilon, seed, tuple(images.shape), str(images.dtype))).encode())
        for one in (images.float(), labels, indices):
            sha.update(one.cpu().numpy().tobytes())
        return sha.hexdigest()


class _Found:
    """What the attacks have found so far, and what the model says of it."""

    def __init__(self, model: Model, images: Tensor, labels: Tensor, norm: Norm, batch_size: int) -> None:
        self._model, self._labels, self._norm, self._batch_size = model, labels, norm, batch_size
        self._clean = images
        self._images = images.clone()
        logits = self._asked(images)
        checked_logits(logits, len(images), labels)
        self._logits = logits
        self._clean_logits = logits.clone()
        self._queries = torch.zeros_like(labels)
        self._rows: list[dict[str, Tensor]] = []

    def left(self) -> Tensor:
        """Return which examples are right still."""
        return (self._logits.argmax(1) == self._labels).nonzero().squeeze(1)

    def accuracy(self) -> float:
        """Return the share of the examples that are right still."""
        return len(self.left()) / len(self._labels)

    def put(self, rows: Tensor, images: Tensor, queries: Tensor) -> None:
        """Put what an attack found in: all of it, so that of an example that is not turned it is the last try."""
        logits = self._asked(images)
        some = decided(logits)
        self._images[rows[some]] = images[some]
        self._logits[rows[some]] = logits[some]
        self._queries[rows] = queries

    def row(self) -> None:
        """Add the row of one attack."""
        confidence, prediction = self._logits.softmax(1).max(1)
        length = self._norm.length(self._images.to(self._logits.dtype) - self._clean.to(self._logits.dtype))
        value = Margin()(self._logits, self._labels)
        row = {"value": value, "prediction": prediction, "confidence": confidence, "length": length}
        self._rows.append(row | {"queries": self._queries})
        self._queries = torch.zeros_like(self._labels)

    def result(self) -> Attacked:
        """Return what all attacks found."""
        each = [torch.stack([row[name] for row in self._rows]) for name in self._rows[0]]
        return Attacked(self._images, each[0][-1], *each)

    def save(self, path: Path, digest: str, stages: Sequence[Stage]) -> None:
        """Write the state so far."""
        wide = self._images.float() if self._images.dtype in HALVES else self._images
        arrays = {"images": wide.cpu().numpy(), "logits": self._logits.cpu().numpy()}
        arrays["clean"] = self._clean_logits.cpu().numpy()
        for name in self._rows[0]:
            arrays[name] = torch.stack([row[name] for row in self._rows]).cpu().numpy()
        about = json.dumps({"digest": digest, "stages": [vars(stage) for stage in stages]})
        content = io.BytesIO()
        np.savez(content, **(arrays | {"about": np.array(about)}))  # type: ignore[arg-type]
        write_bytes(path, content.getbuffer())

    def load(self, path: Path, digest: str) -> list[Stage]:
        """Take over a state that was written, and return the stages in it."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
            about = json.loads(str(arrays.pop("about")))
            stages = [Stage(**stage) for stage in about["stages"]]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(
                f"state = {str(path)!r} cannot be read: {error}; allowed is a file of this command"
            ) from error
        clean = torch.tensor(arrays.pop("clean", np.zeros(0)), device=self._labels.device)
        if about["digest"] != digest or not self._same_model(clean):
            raise ValueError(
                f"state = {str(path)!r} is of another evaluation: allowed is one of the same attacks, model, images, epsilon and seed"
            )
        device = self._labels.device
        self._images = torch.tensor(arrays.pop("images"), device=device).to(self._clean.dtype)
        self._logits = torch.tensor(arrays.pop("logits"), device=device)
        tensors = {name: torch.tensor(values, device=device) for name, values in arrays.items()}
        self._rows = [{name: one[k] for name, one in tensors.items()} for k in range(len(stages))]
        return stages

    def _same_model(self, logits: Tensor) -> bool:
        """Return whether logits of the images that were kept are this model's, but for the rounding of another device."""
        mine = self._clean_logits
        scale = float(mine[mine.isfinite()].abs().max())
        return logits.shape == mine.shape and bool(
            torch.isclose(logits, mine.to(logits.dtype), rtol=0, atol=1e-4 * scale).all()
        )

    def _asked(self, images: Tensor) -> Tensor:
        """Return the model's logits."""
        with evaluating(self._model), torch.inference_mode(False), torch.no_grad():
            parts = [logits_of(self._model, part).detach().clone() for part in torch.split(images, self._batch_size)]
        return torch.cat(parts)


def _folder_of(state: Path) -> bool:
    """Make the folder of a state, or raise ValueError; True."""
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        check_target(state, (".npz",))
    except OSError as error:
        raise ValueError(
            f"state = {str(state.parent)!r} cannot be written ({error.strerror}): allowed is a folder"
        ) from error
    return True


def _seed(generator: torch.Generator) -> int:
    """Return one number of a generator."""
    checked_generator(generator)
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
