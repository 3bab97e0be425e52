"""A step of training never waits for its device: nothing of it is read back, and nothing is copied there that waits.

The steps run on torch's meta device, which has no numbers: whatever asks for one fails. A dispatch mode watches the copies
between it and the CPU, where random numbers are drawn.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deepcheck.data import Images
from deepcheck.training import METHODS, Recipe, loop
from deepcheck.training.parallel import Group
from deepcheck.training.step import Learner
from tests.deepcheck.training.cases import numbered, tiny

META = torch.device("meta")
NETS: dict[str, dict[str, Any]] = {"linear": {}, "preact_resnet18": {"width": 2}}


class Crossings(TorchDispatchMode):
    """Counts what goes from the CPU to the device, and keeps what waits, or goes back."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies = 0
        self.bad: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is torch.ops.aten._to_copy.default:
            places = [args[0].device.type, result.device.type]
        elif function is torch.ops.aten.copy_.default:
            places = [args[1].device.type, args[0].device.type]
            kwargs = {"non_blocking": (*args, False)[2], **kwargs}
        else:
            return result
        if places == ["cpu", "meta"]:
            self.copies += 1
            if not kwargs.get("non_blocking", False):
                self.bad.append(f"{function} to the device waits: {tuple(result.shape)}")
        elif places == ["meta", "cpu"]:
            self.bad.append(f"{function} from the device")
        return result


def on_meta(recipe: Recipe, images: Images, monkeypatch: pytest.MonkeyPatch) -> loop._Run:
    monkeypatch.setattr(Learner, "precision", lambda _: nullcontext())  # there is no autocast on this device
    return loop._Run(recipe, images, META, Group())


@pytest.mark.parametrize("model", list(NETS))
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("method", list(METHODS))
def test_a_step_never_waits(method: str, optimiser: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"average": 0.9, "augmentation": "crop_flip", "padding": 1, "normalised": True, "validation": 20}
    recipe = tiny(method, model=model, optimiser=optimiser, batch_size=16, **NETS[model], **options)
    run = on_meta(recipe, numbered(), monkeypatch)
    learner = run.learner
    network = learner.network.train()
    rows = torch.arange(16, device=META)
    with Crossings() as crossings:
        for k in range(3):
            x, y = learner.augmented(run._pixels(rows)), run.labels[rows]
            loss = learner.step(network, x, y, 0.1 * k)
    assert loss.device == META
    assert not crossings.bad
    assert crossings.copies >= 6  # of shifts and mirrors
    assert learner.average is not None
    assert learner.average.steps == 3


def test_an_epoch_reads_its_loss_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the images goes to the device in one copy, and the loss comes back in the end."""
    run = on_meta(tiny("at", validation=20, batch_size=16, epochs=1), numbered(), monkeypatch)
    monkeypatch.setattr(run, "_accuracies", lambda: (0.5, 0.5))
    with pytest.raises(RuntimeError, match=r"meta tensors"), Crossings() as crossings:
        run.run_epoch(progress=False)
    assert run.epoch == 1  # it was only then that the loss was asked for: all steps were done
    assert len(crossings.bad) == 1
    assert crossings.bad[0].endswith("waits: (5, 16)")


def test_all_random_numbers_are_drawn_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    run = on_meta(tiny("ccat", validation=20, batch_size=16), numbered(), monkeypatch)
    assert {name: generator.device.type for name, generator in run.generators.items()} == {
        "order": "cpu",
        "noise": "cpu",
    }
    seen: list[torch.Generator] = []

    def accuracies(*_: Any, generator: torch.Generator, **__: Any) -> tuple[float, float]:
        seen.append(generator)
        return 0.0, 0.0

    monkeypatch.setattr(loop, "accuracies", accuracies)
    run._accuracies()
    assert seen[0].device.type == "cpu"
    assert seen[0].initial_seed() == run.recipe.seed
