"""Attacks in order: the union, what each is given, and a state that goes on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import PGD, Attacked, Square, pgd
from deepcheck.attacks.base import Attack, Model
from deepcheck.attacks.in_order import InOrder
from deepcheck.evaluation import Planned, evaluate
from tests.deepcheck.attack_cases import FIELDS, SHAPE, Rowwise, classified, generator, pictures

EPSILON = 0.03
WEAK = PGD("linf", "cross_entropy", steps=1, relative_step_size=0.2)
STRONG = PGD("linf", "margin", steps=20, relative_step_size=0.25)


@dataclass(frozen=True)
class Seen:
    """An attack that notes which examples it is given, and how often it ran."""

    attack: Attack
    given: list[list[int]] = field(default_factory=list, compare=False, repr=False)

    @property
    def norm(self) -> object:
        return self.attack.norm

    def __call__(self, model: Model, images: Tensor, labels: Tensor, **options: Any) -> Attacked:
        self.given.append(options["indices"].tolist())
        return self.attack(model, images, labels, **options)


def attacked(one: Attack, epsilon: float | Sequence[float] = EPSILON, **options: Any) -> Attacked:
    images = pictures(40)
    model = Rowwise()
    return one(model, images, classified(model, images), epsilon=epsilon, generator=generator(), **options)


def test_each_takes_only_what_those_before_it_have_left() -> None:
    images, model = pictures(40), Rowwise()
    labels = classified(model, images)
    first, second = Seen(WEAK), Seen(STRONG)
    found = attacked(InOrder((("weak", first), ("strong", second))))
    wrong = (model(images).argmax(1) != labels).nonzero().squeeze(1).tolist()
    assert first.given == [[i for i in range(40) if i not in wrong]]
    turned = (found.prediction[0] != labels).nonzero().squeeze(1).tolist()
    assert set(wrong) < set(turned) < set(range(40))  # or it would say nothing
    assert second.given == [[i for i in range(40) if i not in turned]]
    assert (found.queries[1, turned] == 0).all()
    assert (found.queries[1, second.given[0]] > 0).all()
    assert torch.equal(found.images[wrong], images[wrong])
    assert (found.length[:, wrong] == 0).all()
    # what was turned stays so, and the images are what the model says
    assert ((found.prediction[0] != labels) <= (found.prediction[1] != labels)).all()
    assert (found.prediction[1] != labels).sum() > (found.prediction[0] != labels).sum()
    with torch.no_grad():
        assert torch.equal(model(found.images).argmax(1), found.prediction[1])


def test_the_union_is_that_of_the_attacks_one_by_one() -> None:
    """Deterministic attacks find in the order what they find alone."""
    images, model = pictures(40), Rowwise()
    labels = classified(model, images)
    plain = [pgd("linf", objective, steps=3) for objective in ("cross_entropy", "margin")]
    from dataclasses import replace

    from deepcheck.attacks.starts import Zero

    one, other = (replace(attack, start=Zero()) for attack in plain)
    alone = [(attacked(attack).prediction != labels).any(0) for attack in (one, other)]
    both = attacked(InOrder((("one", one), ("other", other))))
    assert torch.equal((both.prediction != labels).any(0), alone[0] | alone[1])


@pytest.mark.parametrize("size", [500, 7, 1])
def test_batches_and_other_examples_do_not_matter(size: int) -> None:
    attack = InOrder((("weak", WEAK), ("square", Square("linf", "margin", queries=20))))
    whole, images, model = attacked(attack), pictures(40), Rowwise()
    labels = classified(model, images)
    rows = torch.tensor([3, 17, 30, 31])
    indices = {"indices": rows, "batch_size": size}
    some = attack(model, images[rows], labels[rows], epsilon=EPSILON, generator=generator(), **indices)  # type: ignore[arg-type]
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(whole, name)[..., rows] if name not in ("images", "objective") else getattr(whole, name)[rows],
            getattr(some, name),
            rtol=0,
            atol=1e-9,
        )


def test_several_epsilons_and_one_number_of_the_generator() -> None:
    attack = InOrder((("weak", WEAK), ("strong", STRONG)))
    several = attacked(attack, (0.01, EPSILON))
    assert several.images.shape == (2, 40, *SHAPE)
    for name in FIELDS:
        assert torch.equal(getattr(several, name)[1], getattr(attacked(attack), name))
    draw, expected = generator(), generator()
    attack(Rowwise(), pictures(3), torch.zeros(3, dtype=torch.int64), epsilon=0.1, generator=draw)
    torch.randint(2**63 - 1, (), generator=expected)
    assert torch.equal(torch.rand(3, generator=draw), torch.rand(3, generator=expected))
    nothing = attack(Rowwise(), pictures(0), torch.zeros(0, dtype=torch.int64), epsilon=0.1, generator=draw)
    assert nothing.prediction.shape == (2, 0)


class Interrupts(nn.Module):
    """A net that is interrupted in its `after`-th call."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.net, self.left = Rowwise(), after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return torch.as_tensor(self.net(x))


def test_a_state_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    images = pictures(40)
    labels = classified(Rowwise(), images)
    first, second = Seen(WEAK), Seen(STRONG)
    attack = InOrder((("weak", first), ("strong", second)), state=str(tmp_path / "state"))
    common: dict[str, Any] = {"epsilon": EPSILON}
    with pytest.raises(KeyboardInterrupt):
        attack(Interrupts(9), images, labels, generator=generator(), **common)
    assert len(first.given) == len(second.given) == 1
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["in order_linf_0.03.npz"]
    found, stages = attack.run(Rowwise(), images, labels, generator=generator(), **common)
    assert (len(first.given), len(second.given)) == (1, 2)  # the first was not run again
    again, _ = attack.run(Rowwise(), images, labels, generator=generator(), **common)
    assert len(second.given) == 2
    fresh = InOrder(attack.attacks)(Rowwise(), images, labels, generator=generator(), **common)
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(fresh, name))
        assert torch.equal(getattr(found, name), getattr(again, name))
    assert [stage.name for stage in stages] == ["weak", "strong"]
    assert stages[0].attacked > stages[1].attacked > 0
    assert stages[1].accuracy == pytest.approx(float((found.prediction[-1] == labels).double().mean()))


def test_a_state_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    images = pictures(6)
    labels = classified(Rowwise(), images)
    attack = InOrder((("weak", WEAK),), state=str(tmp_path))
    attack(Rowwise(), images, labels, epsilon=EPSILON, generator=generator())
    for change in ({"generator": generator(1)}, {"images": images.flip(0)}, {"labels": 1 - labels.clamp(max=1)}):
        options = {"images": images, "labels": labels, "generator": generator()} | change
        with pytest.raises(ValueError, match="is of another evaluation: allowed is one of the same attacks"):
            attack(Rowwise(), epsilon=EPSILON, **options)  # type: ignore[arg-type]
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read"):
        attack(Rowwise(), images, labels, epsilon=EPSILON, generator=generator())
    assert np.array_equal(path.read_bytes()[:2], b"PK")


def test_records_of_it() -> None:
    images = pictures(20).float()
    labels = classified(Rowwise(), images)
    attack = InOrder((("weak", WEAK), ("strong", STRONG)))
    records = evaluate(Rowwise(), (images, labels), {"both_linf": Planned(attack, (EPSILON,))})
    assert records.effort.item() == "weak, strong"
    assert records.sizes["restart"] == 2
    assert records.objective.item() == "margin"


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ((), "attacks = () is not allowed: one at least is"),
        ((("a", pgd("linf")), ("b", pgd("l2"))), "attacks are of the norms l2, linf: allowed is one norm for all"),
        ((("a", pgd("l2")), ("a", pgd("l2"))), "attacks are named ['a', 'a']: allowed are different names"),
    ],
)
def test_bad_configurations(attacks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        InOrder(attacks)


def test_bad_calls() -> None:
    attack = InOrder((("weak", WEAK),))
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="targets are not allowed: the attacks in order look for any wrong class"):
        attack(Rowwise(), pictures(3), labels, epsilon=0.1, generator=generator(), targets=labels)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="generator = 0 is of the wrong type"):
        attack(Rowwise(), pictures(3), labels, epsilon=0.1, generator=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model returned logits that are not finite"):
        attack(lambda x: Rowwise()(x) * torch.nan, pictures(3), labels, epsilon=0.1, generator=generator())


def test_a_state_of_another_net_is_refused(tmp_path: Path) -> None:
    images = pictures(6)
    labels = classified(Rowwise(), images)
    attack = InOrder((("weak", WEAK),), state=str(tmp_path))
    attack(Rowwise(), images, labels, epsilon=EPSILON, generator=generator())
    with pytest.raises(ValueError, match="is of another evaluation: allowed is one of the same attacks, model"):
        attack(lambda x: Rowwise()(x) * 1.01, images, labels, epsilon=EPSILON, generator=generator())
    attack(lambda x: Rowwise()(x) * (1 + 1e-7), images, labels, epsilon=EPSILON, generator=generator())  # rounding


def test_a_state_that_cannot_be_written_or_is_empty_is_refused_before_any_attack(tmp_path: Path) -> None:
    images, seen = pictures(6), Seen(WEAK)
    labels = classified(Rowwise(), images)
    (tmp_path / "file").write_text("")
    attack = InOrder((("weak", seen),), state=str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"state = '.*file' cannot be written \(File exists\): allowed is a folder"):
        attack(Rowwise(), images, labels, epsilon=EPSILON, generator=generator())
    (tmp_path / "in order_linf_0.03.npz").write_text("")
    with pytest.raises(ValueError, match="cannot be read"):
        InOrder((("weak", seen),), state=str(tmp_path))(
            Rowwise(), images, labels, epsilon=EPSILON, generator=generator()
        )
    assert not seen.given
