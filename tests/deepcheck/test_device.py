"""Choice of the device, and advice where memory is short."""

import re
from typing import Any

import pytest
import torch

from deepcheck.attacks import PGD, Square
from deepcheck.device import choose, describe, exact_float32, memory_advice


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with so many GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_auto_falls_back_to_the_cpu_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert choose("auto") == torch.device("cpu")
    assert caplog.messages == ["no CUDA device is available: running on the CPU"]


@pytest.mark.parametrize("gpus", [2], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_auto_takes_the_first_gpu(caplog: pytest.LogCaptureFixture) -> None:
    assert choose("auto") == choose("cuda") == torch.device("cuda:0")
    assert choose("cuda:1") == torch.device("cuda:1")
    assert choose("cpu") == torch.device("cpu")
    assert not caplog.messages


@pytest.mark.parametrize(
    ("gpus", "name", "allowed"),
    [
        (0, "cuda", "auto, cpu"),
        (0, "cuda:0", "auto, cpu"),
        (0, "gpu", "auto, cpu"),
        (0, "", "auto, cpu"),
        (2, "cuda:2", "auto, cpu, cuda:0, cuda:1"),
        (2, "cuda:-1", "auto, cpu, cuda:0, cuda:1"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_absent_devices(name: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"device = {name!r} is not available")) as caught:
        choose(name)
    assert str(caught.value).endswith(f": allowed here are {allowed}")


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_a_build_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(ValueError, match=re.escape(f"(torch {torch.__version__} is built without CUDA)")):
        choose("cuda")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    with pytest.raises(ValueError, match="is not available: allowed"):
        choose("cuda")


def test_the_cpu_needs_no_description() -> None:
    assert describe(torch.device("cpu")) is None


def test_a_gpu_is_described_with_how_it_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
    outside = describe(torch.device("cuda"))
    assert outside is not None
    assert outside.startswith("cuda: H100, float32: ")
    assert outside.removeprefix("cuda: H100, float32: ").split(", ") == tf32()
    with exact_float32():
        assert describe(torch.device("cuda")) == "cuda: H100, float32: ieee"


@pytest.mark.parametrize(("batch_size", "advice"), [(500, "250"), (3, "1"), (1, "device = 'cpu'")])
def test_short_memory_names_a_batch_size_to_try(batch_size: int, advice: str) -> None:
    message = f"batch_size = {batch_size} needs more memory than the GPU has: try {advice}"
    with pytest.raises(MemoryError, match=re.escape(message) + "$") as caught, memory_advice(batch_size):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_pass() -> None:
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else") as caught, memory_advice(8):
        raise error
    assert caught.value is error
    with memory_advice(8):
        pass


def tf32() -> list[str]:
    """How float32 is multiplied on a GPU: in products of matrices, and in convolutions."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(cudnn, "conv") and hasattr(cuda, "fp32_precision"):
        parts: list[Any] = [cuda, cudnn.conv, cudnn.rnn]
        return [part.fp32_precision for part in parts]
    return ["tf32" if part.allow_tf32 else "ieee" for part in (cuda, cudnn)]


def test_float32_is_not_tf32_and_torch_is_left_as_it_was() -> None:
    before = tf32()
    with exact_float32():
        assert set(tf32()) == {"ieee"}
    assert tf32() == before

    @exact_float32()
    def failing() -> int:
        return int("x")

    with pytest.raises(ValueError, match="invalid literal"):
        failing()
    assert tf32() == before
    with exact_float32(), exact_float32():
        pass
    assert tf32() == before


@pytest.mark.parametrize("attack", [PGD("linf", steps=2, relative_step_size=1.0), Square("linf", queries=2)], ids=repr)
def test_an_attack_is_in_float32_forwards_and_backwards(attack: PGD | Square) -> None:
    seen: list[set[str]] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            seen.append(set(tf32()))
            return x.clone()

        @staticmethod
        def backward(_: Any, *gradients: Any) -> Any:
            seen.append(set(tf32()))
            return gradients[0]

    images, before = torch.rand(3, 1, 2, 2), tf32()
    attack(
        lambda x: Watched.apply(x).flatten(1),  # type: ignore[no-untyped-call]
        images,
        torch.tensor([0, 1, 2]),
        epsilon=0.1,
        generator=torch.Generator(),
    )
    assert len(seen) >= 2
    assert all(one == {"ieee"} for one in seen)
    assert tf32() == before
