"""The cards of trainings: each runs whole on a CPU, goes on where it was stopped, and takes the time that it is given."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards import _ccat, _common, card
from deepcheck.data import load
from deepcheck.evaluation import Planned, attack_table, evaluate, standard_error
from deepcheck.training import recipe, train
from odeflow import load as load_result
from studies.ccat.plan import TRAININGS

CPU = torch.device("cpu")


class Clocked(Work):
    """Work by a clock on which a unit of `passes` takes a second, and everything else nothing."""

    now = 0.0

    def elapsed(self) -> float:
        return self.now


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The attacks that are run, by name; the clock of the newest work goes on with each."""
    names: list[str] = []

    def timed(network: Any, images: Any, planned: dict[str, Planned], **options: Any) -> Any:
        names.extend(planned)
        Clocked.now += sum(map(_common.passes, planned.values()))
        return evaluate(network, images, planned, **options)

    monkeypatch.setattr(f"{_common.__name__}.evaluate", timed)
    monkeypatch.setattr(Clocked, "now", 0.0)
    torch.set_num_threads(1)
    return names


def done(name: str, out: Path, seconds: float, kind: type[Work] = Clocked) -> dict[str, Any]:
    """Run a card in its quick form, with what it has found before, and return what its file says."""
    Clocked.now = 0.0
    file = out / f"{name}.json"
    earlier = json.loads(file.read_text())["found"] if file.exists() else None
    one = card(name)
    one.run(kind(one, CPU, seconds, out, quick=True, earlier=earlier))
    said: dict[str, Any] = json.loads(file.read_text())
    assert said["card"] == name
    assert said["quick"] is True
    return said


# --- whole cards ---


@pytest.mark.slow
def test_at_on_cifar10(tmp_path: Path, attacks: list[str]) -> None:
    first = done("at_cifar10", tmp_path, 100.0)
    found = first["found"]
    # PGD-20 takes 20 s, and of the suite the targeted attack would take 90
    assert not first["complete"]
    assert found["missing"] == ["targeted_linf_10"]
    assert len(attacks) == 6
    training = found["nets"]["net"]
    assert training["finished"]
    assert len(training["history"]) == training["recipe"]["epochs"] == 2
    assert training["recipe"]["precision"] == "bfloat16"
    curve = found["curve"]
    assert curve["robust_accuracy"] == [row["robust_accuracy"] for row in training["history"]]
    assert curve["best_robust_accuracy"] == max(curve["robust_accuracy"])
    assert [one["at_least"] for one in found["aims"]] == [0.81, 0.50]
    clean, robust = found["aims"]
    assert clean["found"] == found["clean_accuracy"]
    assert robust["found"] == found["pgd20"]["robust_accuracy"]
    assert robust["standard_error"] == pytest.approx(standard_error(robust["found"], 40))
    assert robust["held"] == (robust["found"] >= 0.50)
    assert found["pgd20"]["effort"] == "20 steps"
    second = done("at_cifar10", tmp_path, 1000.0)
    assert second["complete"]
    assert attacks[6:] == ["targeted_linf_10"]  # nothing else is done again, the training neither
    assert second["found"]["nets"] == found["nets"]
    records = load_result(tmp_path / "at_cifar10.nc")
    assert second["found"]["suite"][0]["robust_accuracy"] == attack_table(records).robust_accuracy.values[0]
    assert second["found"]["suite"][0]["robust_accuracy"] <= found["suite"][0]["robust_accuracy"]
    assert "targeted_linf_10" in second["found"]["table"]
    assert len(json.loads(records.attrs["parts"])) == 6
    assert (tmp_path / "at_cifar10.png").stat().st_size > 1000
    # weights that have travelled, without anything else, are attacked as they are
    shutil.rmtree(tmp_path / "work")
    third = done("at_cifar10", tmp_path, 1000.0)
    assert third["complete"]
    assert attacks[7:] == ["pgd20"]  # whose records have not travelled
    assert third["found"]["pgd20"] == found["pgd20"]


@pytest.mark.slow
def test_the_study_of_ccat_on_cifar10(tmp_path: Path, attacks: list[str]) -> None:
    first = done("ccat_cifar10", tmp_path, 1340.0)  # 741 of it for one net, and the rest is too little for another
    assert not first["complete"]
    assert first["found"]["state"] == "seed 0: ccat is being attacked"
    assert list(first["found"]["attacks"]) == ["at_0"]
    assert 21 < len(attacks) < 42
    second = done("ccat_cifar10", tmp_path, 10_000.0)
    assert second["complete"]
    assert len(attacks) == 3 * len(set(attacks))  # each once for each net
    found = second["found"]
    (said,) = found["seeds"].values()
    assert found["effort"] == [10, 1, 50]
    assert set(said["shares"]) == set(TRAININGS)
    data = dict(zip(TRAININGS, map(_part(tmp_path), TRAININGS), strict=True))
    for training, shares in said["shares"].items():
        part = data[training]
        assert shares["Err"][0] == part.test_error.item()
        share, error = shares["RErr linf 0.2"]
        assert error == pytest.approx(standard_error(share, 20))
        row = next(
            row
            for row in found["attacks"][f"{training}_0"]
            if (row["attack"], row["norm"], row["epsilon"]) == ("all", "linf", 0.2)
        )
        assert row["robust_accuracy"] == pytest.approx(1 - share)
    assert "RErr(tau) l2" in said["table"]
    assert all({"statement", "measured", "holds", "rival"} <= claim.keys() for claim in said["claims"])
    for name in ("errors", "distal"):
        assert (tmp_path / f"ccat_cifar10_{name}.png").stat().st_size > 1000


def _part(folder: Path) -> Callable[[str], Any]:
    data = load_result(folder / "ccat_cifar10.nc")
    return lambda training: data.isel(net=list(data.net.values).index(f"{training}_0"))


@pytest.mark.slow
def test_mnist_in_full(tmp_path: Path, attacks: list[str]) -> None:
    first = done("mnist_full", tmp_path, 50.0)
    assert first["found"]["state"] == "AT is being attacked on all test images"
    assert [aim["at_least"] for aim in first["found"]["aims"]] == [0.93]
    second = done("mnist_full", tmp_path, 10_000.0)
    found = second["found"]
    assert second["complete"]
    assert [aim["at_least"] for aim in found["aims"]] == [0.93, 0.91]
    assert found["aims"][1]["found"] == found["all_images"][0]["robust_accuracy"]
    assert found["aims"][1]["found"] <= found["aims"][0]["found"]
    assert {net["recipe"]["model"] for net in found["nets"].values()} == {"madry_mnist"}
    assert set(found["seeds"]) == {"0"}
    before = len(attacks)
    assert done("mnist_full", tmp_path, 10_000.0)["complete"]
    assert len(attacks) == before


# --- what they are made of ---

TINY = recipe("digits", "at", model="linear", epochs=2, attack_steps=2, validation=50)


def tiny_card() -> Card:
    return Card("tiny", "a net", print, 1, 1)


@pytest.mark.parametrize(
    ("cost", "options", "epochs", "steps"),
    [
        (10.0, {"most": 50}, 9, 40),
        (10.0, {"most": 5}, 5, 40),
        (1000.0, {"most": 50}, 1, 40),
        (10.0, {"most": 50, "shorter": (20, 10), "enough": 12}, 19, 20),  # (2 * 20 + 3) / (2 * 40 + 3) of the time
        (40.0, {"most": 50, "shorter": (20, 10), "enough": 12}, 8, 10),
    ],
)
def test_epochs_follow_from_what_one_takes(
    cost: float,
    options: dict[str, Any],
    epochs: int,
    steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Clocked(tiny_card(), CPU, 1000.0, tmp_path, quick=True)

    def measured(given: Work, *_: Any) -> float:
        Clocked.now += 2.0  # which the training does not have
        return cost

    monkeypatch.setattr(Clocked, "now", 0.0)
    monkeypatch.setattr(_common, "epoch_seconds", measured)
    found, way = _common.fitted(work, TINY.changed(attack_steps=40, step_size=0.005), load("digits"), 101.0, **options)
    attack = found.method
    assert (found.epochs, attack.attack_steps) == (epochs, steps)  # type: ignore[attr-defined]
    assert attack.step_size * steps == pytest.approx(0.2)  # type: ignore[attr-defined]
    assert bool(work.notes) == (steps < 40)
    assert way == {"channels_last": True, "graphs": True}  # on a CPU without compilation


def test_a_way_that_does_not_work_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Clocked(tiny_card(), torch.device("cuda"), 1000.0, tmp_path, quick=True)
    tried = []

    def measured(given: Work, one: Any, images: Any, way: _common.Way) -> float:
        tried.append((one.batch_size, way))
        if one.batch_size > 64:
            raise MemoryError("too large")
        if way.get("compiled"):
            raise RuntimeError("no\n compiler")
        return 1.0

    monkeypatch.setattr(_common, "epoch_seconds", measured)
    found, way = _common.fitted(work, TINY.changed(batch_size=128), load("digits"), 10.5, most=50)
    assert way == {"channels_last": True} == _common.WAYS[-1]
    assert [size for size, _ in tried] == 3 * [128, 64]
    assert (found.batch_size, found.epochs) == (64, 10)
    assert any("no compiler" in note for note in work.notes)
    monkeypatch.setattr(_common, "WAYS", _common.WAYS[:1])
    with pytest.raises(RuntimeError, match="compiler"):
        _common.fitted(work, TINY, load("digits"), 10.5, most=50, ways=_common.WAYS)


def test_what_an_epoch_takes_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which every step takes a second and the first epoch 100 more: 20 steps take 20 seconds."""
    images = load("digits")
    rows: list[int] = []
    grown: list[tuple[int, int]] = []

    def timed(given: Any, few: Any, **options: Any) -> Any:
        trained = train(given, few, **options)
        steps = (len(few.train_images) - given.validation) // given.batch_size
        rows.append(steps)
        grown.append((given.method.steps_at(0.0), given.method.attack_steps))
        for row in trained.history:
            row["seconds"] = steps + 100.0 * (row["epoch"] == 1)
        Clocked.now += sum(row["seconds"] for row in trained.history)
        return trained

    monkeypatch.setattr(f"{_common.__name__}.train", timed)
    monkeypatch.setattr(Clocked, "now", 0.0)
    work = Clocked(tiny_card(), CPU, 1000.0, tmp_path, quick=True)
    one = TINY.changed(batch_size=64)
    steps = (len(images.train_images) - 50) // 64
    assert _common.epoch_seconds(work, one, images, {}) == pytest.approx(steps)
    assert rows == [2]
    # an attack that grows from 2 to 10 steps in the first half: 7 to 23 passes there, 15 in the mean, and 23 after
    grows = one.changed(attack_steps=10, first_steps=2)
    assert _common.epoch_seconds(work, grows, images, {}) == pytest.approx(steps * (15 + 23) / 2 / 23, rel=1e-3)
    assert grown == [(2, 2), (10, 10)]


def test_a_training_goes_on_over_calls_and_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_common, "fitted", lambda _, one, *__, **___: (one.changed(epochs=4), {}))
    options: dict[str, Any] = {"seconds": 1.0, "most": 4}

    def call(seconds: float) -> tuple[_common.Net | None, Work]:
        work = Clocked(tiny_card(), CPU, seconds, tmp_path, quick=True)  # whose clock stands still
        return _common.trained(work, "net", TINY, load("digits"), **options), work

    assert call(0.0)[0] is None
    assert not (tmp_path / "tiny.json").exists()
    for epochs in (1, 2):
        net, work = call(1e-3)  # an epoch, and no more
        assert net is None
        assert len(work.found["nets"]["net"]["history"]) == epochs
        assert work.found["nets"]["net"]["finished"] is False
    shutil.rmtree(work.folder / "net")  # another machine, to which the weights have travelled
    net, work = call(100.0)
    assert net is not None
    assert len(net.history) == net.recipe.epochs == 4
    again, _ = call(0.0)  # what is there takes no time
    assert again is not None
    for name, tensor in net.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])
        assert torch.equal(tensor, tensor.bfloat16().float()), name


def test_the_hardest_effort_that_fits(tmp_path: Path) -> None:
    work = Work(tiny_card(), CPU, 1.0, tmp_path)

    def plan(*effort: int) -> dict[str, Planned]:
        return _ccat.suite_of(_setting(), effort)

    units = [sum(map(_common.passes, plan(*effort).values())) for effort in _common.EFFORTS]
    assert units == sorted(units, reverse=True)
    for effort, unit in zip(_common.EFFORTS, units, strict=True):
        assert _common.effort_that_fits(work, plan, 0.01, 0.01 * unit) == effort
    assert _common.effort_that_fits(work, plan, 1.0, 1.0) == _common.EFFORTS[-1]


def _setting() -> Any:
    from studies.ccat.plan import setting_of

    return setting_of("ccat_cifar10", "cifar10", quick=False)


def test_shares_over_seeds() -> None:
    seeds = [{"at": {"Err": [value, 0.1]}} for value in (0.1, 0.2, 0.6)]
    assert _ccat.over_seeds(seeds[:1]) == {"at": {"Err": [0.1]}}
    mean, spread = _ccat.over_seeds(seeds)["at"]["Err"]
    assert mean == pytest.approx(0.3)
    assert spread == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1))


def test_records_of_another_net_are_not_gone_on_with(tmp_path: Path, attacks: list[str]) -> None:
    images = load("digits")
    planned = _ccat.suite_of(_setting(), (10, 1, 50))
    planned = {name: planned[name] for name in ("pgd_linf", "noise_linf")}
    file = tmp_path / "records.nc"

    def call(seed: int) -> Work:
        from deepcheck import models

        work = Clocked(tiny_card(), CPU, 1000.0, tmp_path, quick=True)
        network = models.build("linear", 10, images.shape, generator=torch.Generator().manual_seed(seed)).eval()
        records, missing = _common.attacked(work, network, images, planned, file, examples=5, rate=0.0)
        assert records is not None
        assert missing == []
        return work

    assert call(0).notes == []
    assert call(0).notes == []
    assert attacks == ["pgd_linf", "noise_linf"]
    assert call(1).notes == ["records.nc is of another net, or of other images: made anew"]
    assert attacks == ["pgd_linf", "noise_linf"] * 2
