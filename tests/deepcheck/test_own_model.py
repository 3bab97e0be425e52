"""Nets of one's own: found by their names, filled from safetensors, tried before any attack, refused in one line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deepcheck import cli
from deepcheck.checkpoint import CheckpointError
from deepcheck.data import load
from deepcheck.evaluation import checked
from deepcheck.own_model import InBounds, load_own, tried
from odeflow import load as load_result

SOURCE = '''
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(self.dropout(x.flatten(1)))

def make():
    return Net()

class Centred(Net):
    """For pixels in [-1, 1]."""

    def forward(self, x):
        assert x.min() < 0
        return super().forward((x + 1) / 2)

def function():
    net = Net().eval()
    return lambda x: net(x)

def in_train_mode():
    net = Net()
    return lambda x: net(x)

class Stubborn(Net):
    def train(self, mode=True):
        return super().train(True)

class Random(Net):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))

class Normalised(Net):
    """As batch norm in train mode: what it says of an image depends on the other images."""
    def forward(self, x):
        return super().forward(x - x.mean(0))

def defended():
    from deepcheck.defences import GaussianNoise
    return GaussianNoise(Net(), sigma=0.1, passes=2)

instance = Net()
number = 3
too_few = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
flat = lambda: (lambda x: x.flatten(1).sum(1))
nan = lambda: (lambda x: float("nan") * x.flatten(1)[:, :10])
none = lambda: None
other_size = lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def fails():
    raise RuntimeError("no weights\\nat all")

def needs(argument):
    return Net()
'''


@pytest.fixture(autouse=True)
def _in_a_folder_with_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("ownlab").mkdir()
    Path("ownlab/__init__.py").touch()
    Path("ownlab/nets.py").write_text(SOURCE)
    Path("ownlab/broken.py").write_text("import there_is_no_such_module\n")
    Path("ownlab/wrong.py").write_text("1 / 0\n")
    generator = torch.Generator().manual_seed(0)
    state = {"linear.weight": torch.randn(10, 64, generator=generator), "linear.bias": torch.zeros(10)}
    save_file(state, "net.safetensors")
    yield
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "ownlab"]:
        del sys.modules[name]


def status_of(arguments: str) -> int:
    try:
        return cli.main(arguments.split())
    except SystemExit as end:
        return int(end.code or 0)


OWN = "--model ownlab.nets:make --weights net.safetensors --dataset digits --device cpu"


def test_its_weights_are_those_of_the_file_and_it_is_in_eval_mode() -> None:
    net = load_own("ownlab.nets:make", "net.safetensors")
    assert isinstance(net, nn.Module)
    assert not any(module.training for module in net.modules())
    x = torch.rand(3, 1, 8, 8)
    weight = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), x.flatten(1) @ weight.T)
    assert load_own("ownlab.nets:Net") is not load_own("ownlab.nets:Net")  # a class is a factory
    instance = load_own("ownlab.nets:instance", "net.safetensors")
    torch.testing.assert_close(instance(x), net(x))
    function = load_own("ownlab.nets:function")
    assert function(x).shape == (3, 10)


def test_bounds_are_those_of_the_net_and_not_of_the_attacks() -> None:
    x = torch.rand(3, 1, 8, 8)
    plain = load_own("ownlab.nets:make", "net.safetensors")
    centred = load_own("ownlab.nets:Centred", "net.safetensors", bounds=(-1, 1))
    torch.testing.assert_close(centred(x), plain(x), rtol=1e-4, atol=1e-5)
    for bounds in ((1, 0), (0, 0), (0, float("inf"))):
        with pytest.raises(ValueError, match=r"bounds = .* is not allowed: two"):
            load_own("ownlab.nets:make", bounds=bounds)


def test_attack_evaluate_and_distal_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"attack {OWN} --steps 2 --epsilon 0.1 --examples 30 --out a.nc") == 0
    records = load_result("a.nc")
    checked(records)
    options = json.loads(records.attrs["configuration"])["options"]
    assert options["model"] == "ownlab.nets:make"
    assert options["weights"] == "net.safetensors"
    assert options["data"]["name"] == "digits"
    net, images = load_own("ownlab.nets:make", "net.safetensors"), load("digits")
    with torch.no_grad():
        expected = net(torch.tensor(images.test_images[:30]).float() / 255).argmax(1)
    np.testing.assert_array_equal(records.clean_prediction, expected)
    few = "--steps 10 --restarts 1 --queries 50 --examples 10 --suite linf"
    assert status_of(f"evaluate {OWN} {few} --out b.nc") in (0, 1)  # a random net may fail the checks
    assert load_result("b.nc").sizes["example"] == 10
    assert status_of(f"distal {OWN} --count 3 --steps 2 --out c.nc") == 0
    assert load_result("c.nc").noise_image.shape[1:] == (1, 8, 8)
    capsys.readouterr()
    scaled = OWN.replace("make", "Centred") + " --bounds -1 1"
    assert status_of(f"attack {scaled} --steps 2 --epsilon 0.1 --examples 30 --out d.nc") == 0
    np.testing.assert_allclose(load_result("d.nc").confidence, records.confidence, rtol=1e-3)


def test_a_random_defence_may_be_random(capsys: pytest.CaptureFixture[str]) -> None:
    command = "attack --model ownlab.nets:defended --dataset digits --device cpu --steps 1 --epsilon 0.1 --examples 5"
    assert status_of(command) == 0
    assert "linf 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ownlab.nets", "model = 'ownlab.nets' is not allowed: package.module:factory is, such as mylab.nets:make"),
        ("nolab.nets:make", "there is no module 'nolab' in the current folder or installed"),
        ("ownlab.nests:make", "there is no module 'ownlab.nests' in the current folder"),
        ("ownlab.broken:make", "importing ownlab.broken failed: ModuleNotFoundError: No module named 'there_is_no"),
        ("ownlab.wrong:make", "importing ownlab.wrong failed: ZeroDivisionError: division by zero"),
        ("ownlab.nets:mak", "ownlab.nets has no 'mak' (did you mean 'make'?)"),
        ("ownlab.nets:number", "model = 'ownlab.nets:number' is an int, which is not callable"),
        ("ownlab.nets:none", "returned a NoneType, which is not callable"),
        ("ownlab.nets:fails", "model = 'ownlab.nets:fails' failed: RuntimeError: no weights at all"),
        ("ownlab.nets:needs", "TypeError: needs() missing 1 required positional argument: 'argument'"),
        ("ownlab.nets:Stubborn", "stays in train mode after eval(), in Stubborn, dropout, linear"),
        (
            "ownlab.nets:in_train_mode",
            "returned other logits for the same image in another call or batch, as a net in tr",
        ),
        ("ownlab.nets:Random", "returned other logits for the same image"),
        ("ownlab.nets:Normalised", "returned other logits for the same image"),
        (
            "ownlab.nets:flat",
            "returned (2,) for images of shape (2, 1, 8, 8): allowed are logits of shape (2, K) with K >= 10",
        ),
        ("ownlab.nets:too_few", "returned (2, 3) for images of shape (2, 1, 8, 8)"),
        ("ownlab.nets:nan", "returned logits that are not finite"),
        ("ownlab.nets:other_size", "failed on images of shape (2, 1, 8, 8): RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_what_is_no_net_is_refused_in_one_line(model: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"attack --model {model} --dataset digits --device cpu --out a.nc") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("deepcheck: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not Path("a.nc").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"linear.bias": None},
            "do not fit model = 'ownlab.nets:make': missing: linear.bias; allowed are the 2 tensors",
        ),
        ({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, "unexpected: a, b, c and 2 more; allowed"),
        ({"linear.bias": None, "linear.b": 10}, "missing: linear.bias; unexpected: linear.b;"),
        ({"linear.bias": 11}, "of another shape: linear.bias (11,) for (10,);"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    change: dict[str, int | None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"linear.weight": torch.zeros(10, 64), "linear.bias": torch.zeros(10)}
    for name, size in change.items():
        if size is None:
            del state[name]
        else:
            state[name] = torch.zeros(size)
    save_file(state, "net.safetensors")
    assert status_of(f"evaluate {OWN}") == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_weights_that_are_no_safetensors_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'none\.safetensors' does not exist: allowed is a safetensors file"):
        load_own("ownlab.nets:make", "none.safetensors")
    torch.save({"linear.bias": torch.zeros(10)}, "net.pt")
    with pytest.raises(CheckpointError, match=r"'net\.pt' is no whole safetensors file"):
        load_own("ownlab.nets:make", "net.pt")
    with pytest.raises(TypeError, match=r"returned a function, which takes no weights: allowed is a torch\.nn\.Module"):
        load_own("ownlab.nets:function", "net.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "attack",
            "CHECKPOINT is missing from deepcheck attack: allowed is what `deepcheck train` has left, or a net of",
        ),
        ("evaluate", "CHECKPOINT is missing from deepcheck evaluate"),
        ("distal", "CHECKPOINT is missing from deepcheck distal"),
        (f"distal run {OWN}", "model = 'ownlab.nets:make' with a checkpoint 'run': allowed is one of the two"),
        ("attack run --weights a.safetensors", "weights = a.safetensors with a checkpoint is not allowed"),
        ("attack run --bounds 0 1", "bounds = (0.0, 1.0) with a checkpoint is not allowed"),
        ("attack run --dataset mnist", "dataset = mnist with a checkpoint is not allowed: it goes with --model"),
        ("attack --model ownlab.nets:make", "dataset is missing with model = 'ownlab.nets:make': allowed is mnist, "),
        (f"attack {OWN} --bounds 1 0", "bounds = (1.0, 0.0) is not allowed: two numbers, the lower first, are"),
        ("attack --model ownlab.nets:make --dataset svhn", "svhn"),
    ],
)
def test_flags_that_do_not_go_together(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_scaled_net_passes_gradients_on() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(InBounds(lambda z: z, (0, 255))(x).sum(), x)
    assert torch.equal(gradient, torch.full((2, 3), 255.0))


def test_a_net_with_more_classes_than_the_data_is_tried() -> None:
    net: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    tried(net, torch.rand(2, 1, 8, 8), 10, name="net")
