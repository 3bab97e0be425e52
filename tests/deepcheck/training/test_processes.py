"""Two processes train as one."""

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from deepcheck import checkpoint
from deepcheck.data import Images
from deepcheck.training import Recipe, loop, parallel, train
from tests.deepcheck.training.cases import LAST, saved, weights

WORKER = """
    import json
    import os
    import sys
    from dataclasses import replace
    from pathlib import Path

    import numpy as np
    import torch
    from deepcheck import checkpoint
    from deepcheck.data import Images
    from deepcheck.training import loop, recipe, train

    torch.set_num_threads(1)
    out, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    data = np.load(sys.argv[2])
    images = Images("digits", data["x"], data["y"], data["x"][:1], data["y"][:1], tuple("0123456789"), "a test")
    common = {"model": "linear", "epochs": 2, "batch_size": 32, "learning_rate": 0.05, "validation": 100}
    attack = {"epsilon": 0.1, "attack_steps": 2, "step_size": 0.06}
    recipes = {"standard": recipe("digits", "standard", **common), "ccat": recipe("digits", "ccat", **common, **attack)}
    options = recipes["standard"]
    write, runs, result = checkpoint.write, [], {"written": []}

    def recorded(path, *arguments):
        result["written"].append(str(path))
        return write(path, *arguments)

    class Kept(loop._Run):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            runs.append(self)

    checkpoint.write, loop._Run = recorded, Kept
    for method in ("standard", "ccat"):
        trained = train(recipes[method], images, out=out / method, device="cpu")
        weights = runs[-1].learner.network.state_dict()
        result[method] = {name: tensor.double().sum().item() for name, tensor in weights.items()}
        returned = trained.network.state_dict()
        assert all(torch.equal(returned[name], weights[name]) for name in weights), "another network came back"
        noise = runs[-1].noise.get_state()
    result["noise"] = sum(noise.tolist())
    again = train(recipes["ccat"], images, out=out / "ccat", device="cpu", resume=True)
    result["epochs"] = len(again.history)

    # processes that see different accuracies decide the same, and none waits for the others for ever
    Kept._accuracies = lambda run: (0.5, 0.5 if rank == 0 else 0.1 * run.epoch)
    stopped = train(replace(options, epochs=9, patience=2), images, out=out / "stopped", device="cpu")
    result["stopped"] = len(stopped.history)
    try:
        train(replace(options, batch_size=2), images, out=out / "small", device="cpu")
    except ValueError as error:
        result["error"] = str(error)
    (out / f"{rank}.json").write_text(json.dumps(result))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="gloo is not available"
)
def test_two_processes(digits: Images, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(textwrap.dedent(WORKER))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(worker), str(tmp_path), str(saved(digits, tmp_path))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            _, errors = run.communicate(timeout=600)
        finally:
            run.terminate()  # and it ends the two
    assert run.returncode == 0, errors
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(first["written"]) == 2 + 2 + 4  # last of each epoch; when it stops, of 3 epochs, and best of the first
    assert not second["written"]
    for method in ("standard", "ccat"):
        assert first[method] == second[method]
        assert all(map(math.isfinite, first[method].values()))
    assert first["noise"] != second["noise"]  # each attacks with its own random numbers
    assert first["epochs"] == second["epochs"] == 2
    assert first["stopped"] == second["stopped"] == 3
    message = "batch_size = 2 cannot be shared by 2 processes: allowed is 4 or a larger multiple of 2"
    assert first["error"] == second["error"] == message
    # the mean of the gradients of two halves is the gradient of the whole batch
    options = Recipe(model="linear", epochs=2, batch_size=32, validation=100)
    alone = train(options, digits, out=tmp_path / "alone", device="cpu")
    together = checkpoint.load_model(tmp_path / "standard" / LAST).state_dict()
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """The last of four processes of torchrun on a machine with two GPUs, as far as can be pretended: what is called."""
    calls: list[tuple[str, object]] = []
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device)))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)

    def initialised(backend: str, **options: object) -> None:
        calls.append((backend, options))

    monkeypatch.setattr(torch.distributed, "init_process_group", initialised)
    return calls


def test_every_process_has_its_gpu_before_anything_is_put_there(started: list[tuple[str, object]]) -> None:
    own = torch.device("cuda:1")
    assert parallel.place(torch.device("cuda:0")) == own
    assert parallel.group(own) == parallel.Group(3, 4)
    assert started == [("set_device", own), ("cpu:gloo,cuda:nccl", {"device_id": own})]


def test_processes_on_the_cpu_leave_gpus_alone(started: list[tuple[str, object]]) -> None:
    cpu = torch.device("cpu")
    assert parallel.place(cpu) == cpu
    assert parallel.group(cpu) == parallel.Group(3, 4)
    assert started == [("gloo", {})]


@pytest.mark.parametrize("size", [None, "1"])
def test_a_process_alone_takes_the_gpu_that_was_asked_for(
    size: str | None, started: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if size is None:
        monkeypatch.delenv("WORLD_SIZE")
    else:
        monkeypatch.setenv("WORLD_SIZE", size)
    asked = torch.device("cuda:0")
    assert parallel.place(asked) == asked
    assert parallel.group(asked) == parallel.Group()
    assert not started


def test_training_asks_for_its_gpu_first(
    started: list[tuple[str, object]], digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Allocated(Exception):
        """Something was to be put on a GPU."""

    def run(_: object, __: object, device: torch.device, group: parallel.Group, **___: object) -> None:
        assert (device, group) == (torch.device("cuda:1"), parallel.Group(3, 4))
        assert [name for name, _ in started] == ["set_device", "cpu:gloo,cuda:nccl"]
        raise Allocated

    monkeypatch.setattr(loop, "_Run", run)
    with pytest.raises(Allocated):
        train(Recipe(model="linear", epochs=1, validation=100), digits, out=tmp_path, device="cuda")
