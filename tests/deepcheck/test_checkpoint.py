"""Networks in files."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deepcheck import checkpoint, models
from deepcheck.checkpoint import CheckpointError
from odeflow.provenance import SaveError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(name: str = "linear", seed: int = 0, **options: Any) -> models.Network:
    return models.build(name, 10, (1, 8, 8), generator=generator(seed), **options)


def written(folder: Path, net: models.Network) -> Path:
    tensors = {checkpoint.MODEL + name: tensor for name, tensor in net.state_dict().items()}
    return checkpoint.write(folder / "net.safetensors", tensors, {"model": net.spec})


def equal(one: models.Network, other: models.Network) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("name", "options"), [("linear", {}), ("conv_small", {"width": 2}), ("preact_resnet18", {"channels": 2})]
)
def test_there_and_back(name: str, options: dict[str, int], tmp_path: Path) -> None:
    net = network(name, **options)
    net(torch.rand(4, 1, 8, 8, generator=generator()))  # batch statistics that are not 0 and 1
    path = written(tmp_path, net)
    loaded = checkpoint.load_model(path)
    assert not loaded.training
    assert loaded.spec == net.spec
    assert equal(loaded, net)
    other = network(name, 1, **options)
    assert not equal(other, net)
    checkpoint.load_into(other, path)
    assert equal(other, net)


def test_normalisation_is_part_of_a_network(tmp_path: Path) -> None:
    net = models.build("linear", 10, (1, 8, 8), generator=generator(), mean=[0.3], std=[0.2])
    loaded = checkpoint.load_model(written(tmp_path, net))
    x = torch.rand(4, 1, 8, 8, generator=generator())
    assert torch.equal(loaded(x), net.eval()(x))


def test_memory_formats_and_gradients_do_not_matter(tmp_path: Path) -> None:
    net = network("conv_small").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert equal(checkpoint.load_model(written(tmp_path, net)), net)


def test_information_comes_back(tmp_path: Path) -> None:
    given = {"text": "é", "numbers": [1, 2.5, 1e-300], "nested": {"none": None, "yes": True}}
    path = checkpoint.write(tmp_path / "a.safetensors", {"t": torch.arange(3)}, given)
    tensors, info = checkpoint.read(path)
    assert {name: info[name] for name in given} == given
    assert torch.equal(tensors["t"], torch.arange(3))


def test_a_file_has_a_header_and_numbers_and_nothing_else(tmp_path: Path) -> None:
    net = network()
    content = written(tmp_path, net).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert json.loads(header.pop("__metadata__")["deepcheck"])["model"] == net.spec
    ends = []
    for name, tensor in net.state_dict().items():
        start, end = header.pop(checkpoint.MODEL + name)["data_offsets"]
        assert content[8 + size + start : 8 + size + end] == tensor.numpy().tobytes()
        ends.append(end)
    assert not header
    assert max(ends) == len(content) - 8 - size


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.5, -1])
def test_truncated_files(kept: float, tmp_path: Path) -> None:
    path = written(tmp_path, network())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else int(kept)])
    for load in (checkpoint.read, checkpoint.load_model, lambda path: checkpoint.load_into(network(), path)):
        with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} is no whole safetensors file")):
            load(path)


def test_a_failed_load_leaves_the_network(tmp_path: Path) -> None:
    path = written(tmp_path, network(seed=1))
    path.write_bytes(path.read_bytes()[:-1])
    net = network()
    with pytest.raises(CheckpointError):
        checkpoint.load_into(net, path)
    assert equal(net, network())


def test_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} does not exist: allowed is a checkpoint")):
            checkpoint.load_model(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="is a safetensors file, but no checkpoint of deepcheck"):
        checkpoint.load_model(path)
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="is no whole safetensors file"):
        checkpoint.load_model(path)


@pytest.mark.parametrize("info", ['{"version": 99}', "{}"])
def test_other_formats(info: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"deepcheck": info})
    found = json.loads(info).get("version")
    with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} has format {found}: allowed is 1")):
        checkpoint.read(path)


def test_no_network(tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path / "a.safetensors", {"t": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} holds no network")):
        checkpoint.load_model(path)
    with pytest.raises(CheckpointError, match="holds a network None, which does not fit into"):
        checkpoint.load_into(network(), path)


@pytest.mark.parametrize(
    "other",
    [
        lambda: network("conv_small"),
        lambda: models.build("linear", 3, (1, 8, 8)),
        lambda: models.build("linear", 10, (1, 8, 8), mean=[0.5]),
    ],
    ids=["name", "classes", "normalisation"],
)
def test_another_architecture(other: Callable[[], models.Network], tmp_path: Path) -> None:
    path, theirs = written(tmp_path, network()), other()
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    message = f"holds a network {network().spec}, which does not fit into {theirs.spec}"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        checkpoint.load_into(theirs, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_tensors_of_another_network(change: str, tmp_path: Path) -> None:
    net = network()
    tensors = {checkpoint.MODEL + name: tensor for name, tensor in net.state_dict().items()}
    name = next(iter(tensors))
    if change == "missing":
        del tensors[name]
    else:
        tensors[name if change == "shape" else "model.more"] = torch.zeros(2)
    path = checkpoint.write(tmp_path / "net.safetensors", tensors, {"model": net.spec})
    with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} does not hold the tensors of its network")):
        checkpoint.load_model(path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, network())
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SaveError if isinstance(error, OSError) else KeyboardInterrupt):
        written(tmp_path, network(seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- files of anyone ---

DEEP = "[" * 100_000 + "]" * 100_000


def linear_spec(**changes: Any) -> dict[str, Any]:
    return network().spec | changes


@pytest.mark.parametrize(
    "info", ["", "{", "nonsense", DEEP, "[1]", "3", "null", '"a"', '{"version": [1]}', '{"version": 1.5}']
)
def test_information_of_another_type_is_one_error(info: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"model.head.weight": torch.zeros(3)}, path, metadata={"deepcheck": info})
    for load in (checkpoint.read, checkpoint.load_model, lambda path: checkpoint.load_into(network(), path)):
        with pytest.raises(CheckpointError, match=re.escape(str(path))) as error:
            load(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (3, "int is no description of a network"),
        (None, "NoneType is no description"),
        ([], "list is no description"),
        ({}, "name is missing"),
        (linear_spec(name=["linear"]), "name = .* is unknown"),
        (linear_spec(name="linaer"), "name = 'linaer' is unknown"),
        (linear_spec(num_classes="ten"), "num_classes = 'ten'"),
        (linear_spec(in_shape=3), "in_shape = 3 is of the wrong type"),
        (linear_spec(in_shape=[1, 8]), r"in_shape = \[1, 8\] has 2 numbers"),
        (linear_spec(mean="no"), "mean"),
        (linear_spec(mean=[1.0, 2.0]), "mean"),
        (linear_spec(flavour=1), "option flavour = 1 is unknown"),
        (linear_spec(num_classes=10**6), "hold the tensors of its network: 2 differ: head.bias"),
        (linear_spec(num_classes=10**30), "network"),
        (linear_spec(in_shape=[1, 10**6, 10**6]), "head.weight"),
        (linear_spec(name="conv_small", width=10**6), "does not hold the tensors of its network"),
        (linear_spec(name="madry_mnist", width=10**9), "network"),
        (linear_spec(name="resnet_ccat", channels=10**6), "does not hold the tensors"),
        (linear_spec(name="resnet_ccat", blocks=10**6), "blocks = 1000000 for 2 tensors"),
        (linear_spec(name="wrn28_10", depth=6 * 10**6 + 4), "depth = 6000004 for 2 tensors"),
        (linear_spec(name="wrn28_10", depth=[4]), "depth"),
        ({"members": 3}, "network"),
        ({"members": []}, "does not hold the tensors"),
        ({"members": [linear_spec()] * 1000}, "1000 members have more than 2 tensors"),
        ({"members": [{"members": [3]}]}, "int is no description"),
    ],
)
def test_a_spec_of_another_network_is_refused_before_it_takes_memory(spec: Any, says: str, tmp_path: Path) -> None:
    """A net of width 10^6 would be terabytes: shapes are compared before there are weights."""
    net = network()
    tensors = {checkpoint.MODEL + name: tensor for name, tensor in net.state_dict().items()}
    path = checkpoint.write(tmp_path / "net.safetensors", tensors, {"model": spec})
    with pytest.raises(CheckpointError, match=says) as error:
        checkpoint.load_model(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000
    with pytest.raises(CheckpointError, match="which does not fit into"):
        checkpoint.load_into(net, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1j])
def test_weights_that_are_no_numbers_are_refused(value: Any, tmp_path: Path) -> None:
    net = network()
    tensors = {checkpoint.MODEL + name: tensor.clone() for name, tensor in net.state_dict().items()}
    name = f"{checkpoint.MODEL}head.weight"
    if isinstance(value, complex):
        tensors[name] = tensors[name] + value
    else:
        tensors[name][3, 5] = value
    path = checkpoint.write(tmp_path / "net.safetensors", tensors, {"model": net.spec})
    for load in (checkpoint.load_model, lambda path: checkpoint.load_into(network(), path)):
        with pytest.raises(CheckpointError, match=r"holds weights that are (not finite|complex): head\.weight"):
            load(path)


def test_an_ensemble_has_the_shapes_that_it_describes(tmp_path: Path) -> None:
    net = models.Ensemble([network("conv_small"), network("linear", 1)])
    shapes = models.shapes_of(net.spec, tensors=len(net.state_dict()))
    assert shapes == {name: tensor.shape for name, tensor in net.state_dict().items()}
    assert equal(checkpoint.load_model(written(tmp_path, net)), net)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_network_has_the_shapes_that_it_describes(name: str) -> None:
    options = {"width": 1, "depth": 10} if name == "wrn28_10" else {"channels": 2} if "resnet" in name else {}
    net = network(name, **options)
    expected = {key: tensor.shape for key, tensor in net.state_dict().items()}
    assert models.shapes_of(net.spec, tensors=len(expected)) == expected
