"""Transfer: closed forms for linear nets, a target that is seen through its answers alone, and the matrix."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import DeepFool, Square, Substitute, Transfer, bim, pgd
from deepcheck.attacks.registry import within_budget
from deepcheck.evaluation import Planned, evaluate, transfer_matrix
from deepcheck.models import build
from deepcheck.plot_transfer import plot_transfer
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net

pytestmark = on_every_device

UNBOUNDED = (-float("inf"), float("inf"))
EPSILON = 0.2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Logits W x."""

    def __init__(self, seed: int, K: int = 2, D: int = 24) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(K, D, generator=generator(seed), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.W.T


class _Blind(torch.autograd.Function):
    """The identity, of which nobody may ask for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx, gradients
        raise AssertionError("the target was asked for its gradient")


class Blind(nn.Module):
    """A net that answers and gives no gradient; it keeps what it is asked."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return torch.as_tensor(self.net(_Blind.apply(x)))  # type: ignore[no-untyped-call]


def another_net(seed: int = 5, images: int = 700) -> nn.Module:
    """A net for the digits that was trained from other weights, on the first training images."""
    digits = digits_as_tensors()
    net = build("conv_small", 10, (1, 8, 8), generator=generator(seed))
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(12):
        for rows in torch.randperm(images, generator=generator(seed + 1)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(digits.x[rows]), digits.y[rows]).backward()
            optimiser.step()
    net.zero_grad()
    return net.eval()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_between_linear_nets_the_target_moves_by_what_the_surrogates_direction_means_to_it(norm: str) -> None:
    target, surrogate = Linear(1), Linear(2)
    x = torch.randn(40, 1, 4, 6, generator=generator(3), dtype=torch.float64)
    y = (torch.arange(40) % 2).to(x.device)
    attack = Transfer(replace(bim(norm), objective="margin", bounds=UNBOUNDED), surrogate)
    result = attack(target, x, y, epsilon=EPSILON, generator=generator())
    with torch.no_grad():
        w, u = target.W[1] - target.W[0], surrogate.W[1] - surrogate.W[0]
        d = u.sign() if norm == "linf" else u / torch.linalg.vector_norm(u)
        sign = 1.0 - 2.0 * y  # towards the other class
        expected = sign * (x.flatten(1) @ w) + EPSILON * (w @ d)
    torch.testing.assert_close(result.objective, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(result.prediction[0] != y, expected > 0)
    assert result.length.max() <= EPSILON * (1 + 1e-12)


def test_on_itself_it_is_the_attack() -> None:
    net, digits = trained_net(), digits_as_tensors()
    x, y = digits.test[:30], digits.labels[:30]
    for attack in (pgd(steps=5, restarts=2), Square(queries=20), DeepFool("linf", steps=3)):
        direct = Transfer(attack, net)(net, x, y, epsilon=[0.05, 0.1], generator=generator())
        alone = within_budget(attack)(net, x, y, epsilon=[0.05, 0.1], generator=generator())
        assert torch.equal((direct.prediction != y).any(1), (alone.prediction != y).any(1))


def test_it_goes_on_when_the_surrogate_is_fooled() -> None:
    """What just fools one net seldom fools another."""
    target, surrogate, digits = trained_net(), another_net(), digits_as_tensors()
    x, y = digits.test[:150], digits.labels[:150]
    attack = pgd(steps=20)
    assert attack.stop_when_reached
    options: dict[str, Any] = {"epsilon": EPSILON, "generator": generator()}
    stopped = attack(surrogate, x, y, **options).images
    on = Transfer(attack, surrogate)(target, x, y, epsilon=EPSILON, generator=generator())
    with torch.no_grad():
        few = float((target(stopped).argmax(1) != y).double().mean())
    assert float((on.prediction[0] != y).double().mean()) > few + 0.1


@pytest.mark.parametrize("attack", [pgd(steps=5), DeepFool("l2", steps=5), Substitute(epochs=3, rounds=1)], ids=repr)
def test_the_target_is_seen_through_its_answers_alone(attack: Any) -> None:
    digits = digits_as_tensors()
    target = Blind(trained_net())
    with pytest.raises(AssertionError, match="asked for its gradient"):
        pgd(steps=1)(target, digits.test[:5], digits.labels[:5], epsilon=0.1, generator=generator())
    if isinstance(attack, Substitute):
        ready = attack.prepare(target, digits.x[:60], digits.y[:60], epsilon=EPSILON, generator=generator())
    else:
        ready = Transfer(attack, another_net())
    target.asked.clear()
    x, y = digits.test[:50], digits.labels[:50]
    found = ready(target, x, y, epsilon=[0.1, 0.3], generator=generator())
    assert sum(map(len, target.asked)) == 1 + 2 * 50  # a check, and what was found at each epsilon
    assert torch.equal(torch.cat(target.asked[1:]), found.images.flatten(0, 1))


@pytest.mark.parametrize("rounds", [0, 2])
def test_queries_of_a_substitute_are_counted_and_its_labels_are_the_targets(rounds: int) -> None:
    """Whatever labels come with the images: the answers of the target, of which every class is shifted, are learned."""
    digits = digits_as_tensors()
    net = trained_net()
    target = Blind(nn.Sequential(net, _Rolled()))
    attack = Substitute(rounds=rounds, epochs=30 if not rounds else 10)
    count = 400 if not rounds else 100
    ready = attack.prepare(target, digits.x[:count], digits.y[:count], epsilon=EPSILON, generator=generator())
    assert ready.queries == count * 2**rounds
    asked = torch.cat(target.asked[1:])  # after a check
    assert len(asked) == ready.queries
    assert torch.equal(asked[:count], digits.x[:count])
    for k in range(rounds):  # the set and the set moved by 0.1 along signs, in the box
        half = count * 2**k
        before, moved = asked[:half], asked[half : 2 * half]
        change = (moved - before).abs()
        at_edge = (moved == 0) | (moved == 1)
        assert ((change < 1e-6) | ((change - 0.1).abs() < 1e-6) | at_edge).all()
        assert (change > 0.05).double().mean() > 0.3
    with torch.no_grad():
        agree = (ready.surrogate(digits.test).argmax(1) == target(digits.test).argmax(1)).double().mean()
    assert agree > (0.85 if not rounds else 0.6)


class _Rolled(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits.roll(3, dims=1)


@pytest.mark.slow
def test_a_substitute_breaks_the_target_and_the_better_the_more_it_has_asked() -> None:
    net, digits = trained_net(), digits_as_tensors()
    x, y = digits.test, digits.labels
    options: dict[str, Any] = {"epsilon": EPSILON, "generator": generator(1)}
    shares = []
    for count, epochs in ((30, 40), (700, 20)):
        attack = Substitute(epochs=epochs)
        ready = attack.prepare(net, digits.x[:count], digits.y[:count], epsilon=EPSILON, generator=generator())
        again = attack.prepare(
            net, digits.x[:count], 9 - digits.y[:count], epsilon=0.1, generator=generator(), batch_size=7
        )
        for mine, its in zip(
            ready.surrogate.state_dict().values(),  # type: ignore[attr-defined]
            again.surrogate.state_dict().values(),  # type: ignore[attr-defined]
            strict=True,
        ):
            assert torch.equal(mine, its)
        found = ready(net, x, y, **options | {"generator": generator(1)})
        shares.append(float((found.prediction[0] != y).double().mean()))
    noise = EPSILON * torch.randn(x.shape, generator=generator(2)).sign()
    with torch.no_grad():
        by_noise = float((net((x + noise).clamp(0, 1)).argmax(1) != y).double().mean())
    assert shares[1] > shares[0] + 0.1
    assert shares[1] > by_noise + 0.2


def test_the_matrix_is_what_each_pair_gives() -> None:
    digits = digits_as_tensors()
    nets = {"first": trained_net(), "second": another_net(), "third": another_net(seed=11, images=200)}
    x, y = digits.test[:120], digits.labels[:120]
    attack = pgd(steps=10)
    matrix = transfer_matrix(nets, x, y, attack, [0.1, EPSILON], seed=3)
    assert matrix["accuracy"].dims == ("epsilon", "attacker", "target")
    assert matrix["attacker"].values.tolist() == matrix["target"].values.tolist() == list(nets)
    for name, net in nets.items():
        with torch.no_grad():
            right = net(x).argmax(1) == y
        assert float(matrix["clean_accuracy"].sel(target=name)) == pytest.approx(float(right.double().mean()))
        direct = attack(net, x, y, epsilon=EPSILON, generator=generator())
        found = matrix.sel(attacker=name, target=name, epsilon=EPSILON)
        assert float(found["accuracy"]) == pytest.approx(float((direct.prediction[0] == y).double().mean()), abs=0.04)
        # an attack on the net itself is the strongest
        column = matrix["success"].sel(target=name)
        assert (column.sel(attacker=name) >= column).all()
        others = column.sel(epsilon=EPSILON).drop_sel(attacker=name)
        assert (others > 0.1).all()
        assert (others < column.sel(epsilon=EPSILON, attacker=name)).any()
    share, error = matrix["accuracy"].values, matrix["standard_error"].values
    np.testing.assert_allclose(error, np.sqrt(share * (1 - share) / 120))
    one = transfer_matrix(nets, x, y, attack, EPSILON, seed=3, batch_size=70)
    assert one["accuracy"].dims == ("attacker", "target")
    np.testing.assert_allclose(one["accuracy"], matrix["accuracy"].sel(epsilon=EPSILON), atol=0.011)
    assert one.attrs["seed"] == "3"
    assert "PGD(" in one.attrs["configuration"]


def test_success_counts_what_the_target_got_right() -> None:
    """Of 10 images the target is wrong on 4 from the beginning; of the 6 others the attack breaks 3."""
    margins = torch.tensor([-1.0, -0.5, -0.2, -0.1, 0.05, 0.06, 0.07, 0.5, 0.6, 0.7]).double()
    net = Linear(1)
    w = (net.W[0] - net.W[1]).detach()
    x = torch.full((10, 1, 4, 6), 0.5, dtype=torch.float64)
    x += ((margins - x.flatten(1) @ w) / w.abs().sum())[:, None].mul(w.sign()).view(10, 1, 4, 6)
    y = torch.zeros(10, dtype=torch.int64, device=x.device)
    epsilon = 0.1 / float(w.abs().sum())
    matrix = transfer_matrix({"net": net}, x, y, pgd(steps=10), epsilon)
    assert matrix["accuracy"].item() == pytest.approx(0.3)
    assert matrix["success"].item() == pytest.approx(0.5)
    none = transfer_matrix({"net": net}, x[:4], y[:4], pgd(steps=2), epsilon)
    assert np.isnan(none["success"].values).all()


def test_the_figure_has_the_numbers_and_frames_the_diagonal() -> None:
    digits = digits_as_tensors()
    nets = {"one": trained_net(), "two": build("linear", 10, (1, 8, 8), generator=generator()).eval()}
    matrix = transfer_matrix(nets, digits.test[:50], digits.labels[:50], pgd(steps=3), [0.05, 0.1])
    for variable in ("accuracy", "success"):
        figure = plot_transfer(matrix, variable)
        panels = [ax for ax in figure.axes if ax.images]
        assert len(panels) == 2
        for panel, values in zip(panels, 100 * matrix[variable].values, strict=True):
            assert [text.get_text() for text in panel.texts] == [f"{value:.1f}" for value in values.ravel()]
            assert len(panel.patches) == 2
            np.testing.assert_allclose(np.asarray(panel.images[0].get_array()), values)
    assert len([ax for ax in plot_transfer(matrix.isel(epsilon=0)).axes if ax.images]) == 1
    with pytest.raises(ValueError, match="matrix lacks accuracy by attacker and target"):
        plot_transfer(matrix.isel(target=0))
    with pytest.raises(ValueError, match="variable = 'acuracy' is unknown"):
        plot_transfer(matrix, "acuracy")


def test_records_of_a_transfer() -> None:
    digits = digits_as_tensors()
    planned = {"moved": Planned(Transfer(pgd(steps=5), another_net()), (0.1, 0.2))}
    records = evaluate(trained_net(), (digits.test[:60], digits.labels[:60]), planned, device=digits.x.device)
    assert records["norm"].values.tolist() == ["linf"]
    assert records["effort"].values.tolist() == ["5 steps"]
    assert records.sizes["restart"] == 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: Substitute(rounds=-1), "rounds = -1 is out of range"),
        (lambda: Substitute(epochs=0), "epochs = 0 is out of range"),
        (lambda: Substitute(reach=0.0), "reach = 0.0 is out of range"),
        (lambda: Substitute(net="conv_smal"), "name = 'conv_smal' is unknown (did you mean 'conv_small'?)"),
        (lambda: Substitute(objective="targeted_margin"), "is not allowed for Substitute: one without targets is"),
        (
            lambda: Substitute().prepare(
                Linear(1), torch.rand(3, 24), torch.zeros(3).long(), epsilon=0.1, generator=generator()
            ),
            "images have the shape (3, 24): allowed is (n, channels, height, width), as nets take them",
        ),
        (lambda: Transfer(pgd(), Linear(1), queries=-1), "queries = -1 is out of range"),
        (lambda: called(generator=0), "generator = 0 is of the wrong type: allowed is a torch.Generator"),
        (lambda: called(labels=torch.full((3,), 7)), "labels have the value 7, but the model has 2 classes"),
        (
            lambda: transfer_matrix({}, torch.zeros(1, 1), torch.zeros(1).long(), pgd(), 0.1),
            "models = {} is not allowed",
        ),
        (
            lambda: transfer_matrix({"a": Linear(1)}, torch.zeros(0, 24), torch.zeros(0).long(), pgd(), 0.1),
            "images are none: allowed is one image or more",
        ),
    ],
)
def test_bad_input(what: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        what()


def called(**options: Any) -> object:
    def never(x: Tensor) -> Tensor:
        raise AssertionError

    labels = options.pop("labels", torch.zeros(3, dtype=torch.int64))
    given = {"generator": generator(), **options}
    return Transfer(pgd(), never)(Linear(1), torch.rand(3, 24).double(), labels, epsilon=0.1, **given)
