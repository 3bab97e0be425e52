"""Weights that travel: alone, in half precision, in small files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepcheck import checkpoint, models
from deepcheck.checkpoint import CheckpointError
from tests.deepcheck.cli.commands import status_of

MIB = 2**20


def network(name: str = "preact_resnet18", seed: int = 0, **options: Any) -> models.Network:
    """A network in eval mode whose running statistics are those of some images."""
    net = models.build(name, 10, (3, 8, 8), generator=torch.Generator().manual_seed(seed), mean=[0.3] * 3, **options)
    net(torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))
    return net.eval()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("dtype", "digits"), [("bfloat16", 8), ("float16", 11), ("float32", 24)])
def test_weights_are_rounded_and_statistics_are_not(dtype: str, digits: int, tmp_path: Path) -> None:
    net = network(channels=2)
    checkpoint.write_shards(tmp_path / "small", net, {"epoch": 3}, dtype=dtype)
    back = checkpoint.load_model(tmp_path / "small")
    assert not back.training
    assert back.spec == net.spec
    weights = dict(net.named_parameters())
    for name, tensor in back.state_dict().items():
        assert tensor.dtype == net.state_dict()[name].dtype
        if name in weights:  # half a unit in the last place, or the smallest number of float16
            torch.testing.assert_close(tensor, weights[name].detach(), rtol=2.0**-digits, atol=2.0**-25)
        else:
            assert torch.equal(tensor, net.state_dict()[name])
    x = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        torch.testing.assert_close(back(x), net(x), rtol=0, atol=40 * 2.0**-digits)
    # the numbers of the file are of that precision
    stored = load_file(tmp_path / "small" / "weights-1-of-1.safetensors")
    assert stored["model.head.weight"].dtype is getattr(torch, dtype)
    assert {tensor.dtype for name, tensor in stored.items() if "running" in name} == {torch.float32}


def test_preact_resnet18_travels_in_two_files_of_less_than_16_mib(tmp_path: Path) -> None:
    net = models.build("preact_resnet18", 10, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    history = [{"epoch": k, "loss": 1 / (k + 1), "clean_accuracy": 0.8123, "seconds": 10.25} for k in range(100)]
    written = checkpoint.write_shards(tmp_path / "small", net, {"history": history})
    assert [path.name for path in written] == ["weights-1-of-2.safetensors", "weights-2-of-2.safetensors"]
    assert files(tmp_path / "small") == [path.name for path in written]
    sizes = [path.stat().st_size for path in written]
    assert max(sizes) <= 16 * MIB
    assert sum(sizes) < 2.02 * net.num_weights
    back = checkpoint.load_model(written[1])  # any of them stands for all
    assert all(
        torch.equal(mine, its.bfloat16().float()) for mine, its in zip(back.parameters(), net.parameters(), strict=True)
    )
    assert checkpoint.read(tmp_path / "small")[1]["history"] == history


@pytest.mark.parametrize("most", [100_000, 50_000, 25_000])
def test_no_file_is_larger_than_it_may_be_and_none_is_needed_less(most: int, tmp_path: Path) -> None:
    net = network(channels=4)
    info = {"text": 'many "quoted" words, é ' * 100}
    written = checkpoint.write_shards(tmp_path / "small", net, info, most=most)
    sizes = [path.stat().st_size for path in written]
    assert max(sizes) <= most
    tensors = [load_file(path) for path in written]
    assert sum(map(len, tensors)) == len(net.state_dict())
    firsts = [max(tensor.nbytes for tensor in part.values()) for part in tensors[1:]]
    slack = 1000 + 160 * max(map(len, tensors))
    assert all(size + first + slack > most for size, first in zip(sizes, firsts, strict=False))  # as full as can be
    assert {name: info[name] for name in info} == {"text": checkpoint.read(written[0])[1]["text"]}
    assert checkpoint.load_model(tmp_path / "small").spec == net.spec


def test_a_network_that_is_there_takes_the_weights(tmp_path: Path) -> None:
    net, other = network(channels=2), network(seed=1, channels=2)
    checkpoint.write_shards(tmp_path / "small", net, {}, dtype="float32", most=50_000)
    checkpoint.load_into(other, tmp_path / "small")
    assert all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))


# --- what is refused ---


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return checkpoint.write_shards(tmp_path / "small", network(channels=4), {"epoch": 3}, most=50_000)


def refused(path: Path, says: str) -> None:
    for load in (checkpoint.read, checkpoint.load_model):
        with pytest.raises(CheckpointError, match=says) as error:
            load(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_missing_shard_is_named(k: int, shards: list[Path]) -> None:
    shards[k].unlink()
    for path in (shards[0].parent, shards[2 - k // 2]):
        refused(path, re.escape(repr(str(shards[k]))) + " does not exist")


@pytest.mark.parametrize("k", [0, 1])
def test_a_truncated_shard_is_named(k: int, shards: list[Path]) -> None:
    shards[k].write_bytes(shards[k].read_bytes()[:-100])
    refused(shards[0].parent, re.escape(repr(str(shards[k]))) + " is no whole safetensors file")


@pytest.mark.parametrize("k", [0, 1])
def test_a_damaged_shard_is_named(k: int, shards: list[Path]) -> None:
    content = bytearray(shards[k].read_bytes())
    content[-1] ^= 1
    shards[k].write_bytes(content)
    refused(shards[0].parent, re.escape(repr(str(shards[k]))) + " is damaged")


@pytest.mark.parametrize(("seed", "info"), [(1, {"epoch": 3}), (0, {"epoch": 4})])
def test_a_shard_of_other_weights_or_another_epoch_is_named(
    seed: int, info: dict[str, Any], shards: list[Path], tmp_path: Path
) -> None:
    others = checkpoint.write_shards(tmp_path / "other", network(seed=seed, channels=4), info, most=50_000)
    assert len(others) == len(shards)
    shards[1].write_bytes(others[1].read_bytes())
    refused(shards[0], re.escape(repr(str(shards[1]))) + " is a shard of other weights")


def test_shards_in_the_wrong_order_are_refused(shards: list[Path]) -> None:
    first, second = (path.read_bytes() for path in shards[:2])
    shards[0].write_bytes(second)
    shards[1].write_bytes(first)
    refused(shards[0].parent, "weights-1-of-.* is a shard of other weights")


def test_a_foreign_file_among_them_is_named(shards: list[Path], tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, shards[1])
    refused(
        shards[0].parent, re.escape(repr(str(shards[1]))) + " is a safetensors file, but no checkpoint of deepcheck"
    )
    checkpoint.write(shards[1], {"weight": torch.zeros(3)}, {"epoch": 3})
    refused(shards[0].parent, re.escape(repr(str(shards[1]))) + " is no shard, or does not say which one")


@pytest.mark.parametrize(
    "shard",
    [3, [], {}, {"count": "1"}, {"count": 1}, {"count": True, "whole": ""}, {"number": 1, "count": 1, "whole": 3}],
    ids=str,
)
def test_what_a_shard_says_of_itself_may_be_anything(shard: Any, tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path / "weights-1-of-1.safetensors", {"a": torch.zeros(1)}, {"shard": shard})
    refused(path, "weights-1-of-1.safetensors' is no shard, or does not say which one")


@pytest.mark.parametrize("count", [-1, 0, 10**15])
def test_a_number_of_shards_of_anyone_ends_at_once(count: int, tmp_path: Path) -> None:
    shard = {"number": 1, "count": count, "whole": "", "digest": ""}
    path = checkpoint.write(tmp_path / "weights-1-of-1.safetensors", {"a": torch.zeros(1)}, {"shard": shard})
    refused(path, "damaged" if count <= 0 else "does not exist")


def test_what_cannot_be_written_is_refused_before_anything_is(shards: list[Path], tmp_path: Path) -> None:
    net, folder = network(channels=2), tmp_path / "new"
    with pytest.raises(ValueError, match=r"dtype = 'bf16' is unknown .*: allowed is one of bfloat16, float16, float32"):
        checkpoint.write_shards(folder, net, {}, dtype="bf16")
    with pytest.raises(ValueError, match=r"most = 2000 is out of range: .* which model\.\S+ alone needs"):
        checkpoint.write_shards(folder, net, {}, most=2000)
    with pytest.raises(FileNotFoundError, match="cannot be made: its folder"):
        checkpoint.write_shards(tmp_path / "no" / "folder", net, {})
    with pytest.raises(ValueError, match="is a file: allowed is a folder"):
        checkpoint.write_shards(shards[0], net, {})
    with torch.no_grad():
        net.head.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"dtype = 'float16' cannot hold model\.head\.weight"):
        checkpoint.write_shards(folder, net, {}, dtype="float16")
    assert not folder.exists()


def test_shards_are_replaced_where_this_is_asked_for(shards: list[Path]) -> None:
    folder, before = shards[0].parent, [path.read_bytes() for path in shards]
    with pytest.raises(ValueError, match=r"holds weights-1-of-\d.safetensors already: .* overwrite=True"):
        checkpoint.write_shards(folder, network(channels=2), {})
    assert [path.read_bytes() for path in shards] == before
    checkpoint.write_shards(folder, network(channels=2), {}, overwrite=True)
    assert files(folder) == ["weights-1-of-1.safetensors"]
    assert checkpoint.load_model(folder).spec["channels"] == 2


# --- commands ---


def test_export(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = "--dataset digits --epochs 2 --device cpu --model linear"
    assert status_of(f"train {few} --out net") == 0
    assert status_of("export net --out small") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "small/weights-1-of-1.safetensors  0.0 MiB"
    tensors, info = checkpoint.read("small")
    assert {"recipe", "history", "dataset", "train_images"} <= info.keys()
    assert info["epoch"] == 2
    assert {name.split(".")[0] for name in tensors} == {"model"}
    assert tensors["model.head.weight"].dtype is torch.bfloat16
    for command in ("evaluate", "attack", "distal"):
        count = "--count 5" if command == "distal" else "--examples 20"
        more = "--steps 10 --restarts 1 --queries 50 --suite linf" if command == "evaluate" else "--steps 2"
        assert status_of(f"{command} small --device cpu {count} {more}") in (0, 1)
        assert "deepcheck:" not in capsys.readouterr().err
    assert status_of("export net --out small") == 2
    error = (
        "deepcheck: folder = 'small' holds weights-1-of-1.safetensors already: allowed is another folder, or overwrite"
    )
    assert capsys.readouterr().err.startswith(error)
    assert status_of("export small --out again --dtype float16") == 0  # what has travelled can go on
    assert checkpoint.read("again")[1]["dtype"] == "float16"
    assert status_of("export small --out net --overwrite") == 2  # its own checkpoint would go before the weights
    assert "out = 'net' holds a training" in capsys.readouterr().err
    assert status_of("export nowhere --out other") == 2
    assert "'nowhere' does not exist" in capsys.readouterr().err
    assert not Path("other").exists()


def test_the_best_weights_are_exported_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = "--dataset digits --epochs 2 --device cpu --model linear"
    assert status_of(f"train {few} --patience 2 --out net") == 0
    best, about = checkpoint.read("net/best.safetensors")
    checkpoint.write("net/best.safetensors", {name: -tensor for name, tensor in best.items()}, about)
    assert status_of("export net --out small --dtype float32") == 0
    assert torch.equal(checkpoint.read("small")[0]["model.head.weight"], -best["model.head.weight"])
    assert status_of("export net/last.safetensors --out last --dtype float32") == 0
    assert not torch.equal(checkpoint.read("last")[0]["model.head.weight"], -best["model.head.weight"])
    assert json.dumps(checkpoint.read("small")[1]["recipe"]) == json.dumps(about["recipe"])
