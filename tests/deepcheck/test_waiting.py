"""Attacks do not wait for a GPU at every step: what would make it wait is counted, on the CPU and on a GPU that is not there."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from deepcheck.attacks.base import BudgetAttack
from deepcheck.attacks.black_box.noise import UniformNoise
from deepcheck.attacks.black_box.square import Square
from deepcheck.attacks.draws import keys
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.pgd import PGD, targeted_pgd
from deepcheck.attacks.starts import Gaussian, OneOf, UniformBall, UniformLength, Zero
from tests.deepcheck.pgd_cases import EPSILON, Linear, Smooth, generator, pictures

LOOKS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "_unique2", "bincount"}
"""What has a result that the processor must know: a number, or a shape that depends on values."""
STARTS = OneOf((Zero(), UniformBall(), UniformLength(), Gaussian()))


class Waits(TorchDispatchMode):
    """Counts operations for which the processor waits for a GPU, where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        tensors = [one for one in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if name in LOOKS or (name.startswith("repeat_interleave") and function._overloadname == "Tensor"):
            self.counts[name] += 1
        elif name in {"index", "index_put", "index_put_", "_index_put_impl_"} and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        ):
            self.counts[f"boolean {name}"] += 1
        elif name in {"_to_copy", "copy_"}:
            places = {one.device.type for one in tensors}
            if kwargs.get("device") is not None:
                places.add(torch.device(kwargs["device"]).type)
            self.counts["copy between devices"] += len(places) > 1
        return function(*args, **kwargs)


def waits(work: Callable[[], object]) -> int:
    with Waits() as mode:
        work()
    return mode.counts.total()


@pytest.mark.parametrize("work", ["if", "item", "rows", "bool", "put"])
def test_what_waits_is_seen(work: str) -> None:
    x = torch.arange(4.0)
    what: dict[str, Callable[[], object]] = {
        "if": lambda: 1 if (x > 0).all() else 0,
        "item": lambda: x.sum().item(),
        "rows": lambda: (x > 1).nonzero(),
        "bool": lambda: x[x > 1],
        "put": lambda: x.clone().__setitem__(x > 1, torch.zeros(2)),
    }
    assert waits(what[work]) >= 1
    assert waits(lambda: x.gather(0, torch.argsort(x)).sum()) == 0


def test_a_copy_to_a_gpu_is_seen() -> None:
    with FakeTensorMode():
        x = torch.zeros(4, device="cuda")
        assert waits(lambda: torch.as_tensor(0.3, device="cuda")) == 1
        assert waits(lambda: x.cpu()) == 1
        assert waits(lambda: x.to(torch.float64) + 0.3) == 0


PGDS = {
    f"{norm}-{objective}-{'backtracking' if backtracking else 'plain'}-{momentum}": PGD(
        norm,
        objective,
        steps=10,
        relative_step_size=0.1,
        backtracking=1.5 if backtracking else None,
        momentum=momentum,
        start=STARTS,
    )
    for norm in NORMS
    for objective in ("margin", "wrong_confidence")
    for backtracking in (False, True)
    for momentum in ((0.0, 0.9) if norm == "linf" else (0.9,))
}
ATTACKS: dict[str, tuple[BudgetAttack, str]] = {
    **{name: (attack, "steps") for name, attack in PGDS.items()},
    "targeted": (targeted_pgd("linf", restarts=1), "steps"),
    **{
        f"noise-{norm}-{objective}": (UniformNoise(norm, objective), "draws")
        for norm in NORMS
        for objective in ("margin", "wrong_confidence")
    },
    **{
        f"square-{norm}-{objective}": (Square(norm, objective), "queries")
        for norm in ("linf", "l2")
        for objective in ("margin", "wrong_confidence")
    },
}


def with_steps(attack: BudgetAttack, name: str, count: int) -> BudgetAttack:
    from dataclasses import replace

    return replace(attack, **{name: count})


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_waits_every_fifth_step_at_most(name: str) -> None:
    attack, unit = ATTACKS[name]
    x, y = pictures(12, torch.float32)
    model = Smooth(24, dtype=torch.float32)
    model.W2.data.mul_(torch.tensor([1.0, 3.0, 0.1, 10.0]))  # some are misclassified at once, some soon, and some never
    epsilon = EPSILON[attack._norm.name]

    def counted(steps: int) -> int:
        asked = with_steps(attack, unit, steps)
        return waits(lambda: asked(model, x, y, epsilon=epsilon, generator=generator(), batch_size=12))

    few, many = counted(10), counted(60)
    assert many <= few + 50 / 5
    if attack._objective.reached(torch.zeros(1, 4), y[:1], y[:1]) is None:
        assert many == few


@pytest.mark.parametrize("name", [name for name, (attack, _) in ATTACKS.items() if attack.objective.name == "wrong_confidence"])  # type: ignore[union-attr]
def test_the_loop_copies_nothing_to_a_gpu(name: str) -> None:
    attack, unit = ATTACKS[name]

    def counted(steps: int) -> int:
        with FakeTensorMode():
            x, y = torch.zeros(12, 2, 3, 4, device="cuda"), torch.zeros(12, dtype=torch.int64, device="cuda")
            weights = torch.zeros(24, 4, device="cuda")
            key = keys(generator(), torch.arange(12, device="cuda"))
            asked = with_steps(attack, unit, steps)
            from deepcheck.attacks.base import Examples

            examples = Examples.of(lambda z: z.flatten(1) @ weights, x, y, None, key, 12)
            with torch.no_grad():
                return waits(lambda: asked._search(examples, 0.5))

    few, many = counted(2), counted(9)
    assert many <= few + (0 if unit != "queries" else 14)


def test_an_attack_of_training_never_waits() -> None:
    attack = PGD("l2", steps=7, relative_step_size=0.5, keep="last", start=STARTS)
    with FakeTensorMode():
        x, y = torch.zeros(12, 2, 3, 4, device="cuda"), torch.zeros(12, dtype=torch.int64, device="cuda")
        model = nn.Sequential(nn.Flatten(), nn.Linear(24, 4, device="cuda"))
        assert waits(lambda: attack.perturb(lambda z: z.flatten(1) @ weights, x, y, 0.5, generator())) == 0
