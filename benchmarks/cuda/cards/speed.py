"""Images a second of passes, attacks and steps of AT, in each way of running a net, beside other libraries."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards._others import others
from benchmarks.cuda.clock import Timed, timed
from benchmarks.timing import table
from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.attacks.base import frozen
from deepcheck.attacks.draws import keys
from deepcheck.device import exact_float32
from deepcheck.graphs import Captured
from deepcheck.training import recipe
from deepcheck.training.parallel import Group
from deepcheck.training.step import Learner

__all__ = ["CARD", "markdown"]

EPSILON, STEP_SIZE = 8 / 255, 2 / 255
BATCHES = (512, 128)
COMPILING = 60.0
"""Seconds that a compilation may take, and its measurements: none is begun with less time left."""


@dataclass(frozen=True)
class Net:
    """A net to measure."""

    label: str
    name: str
    shape: tuple[int, int, int]
    options: dict[str, int]
    small: dict[str, int]
    """Options of the quick form."""

    def made(self, work: Work) -> models.Network:
        """Return it with random weights, in eval mode, on the device."""
        options = self.small if work.quick else self.options
        net = models.build(self.name, 10, self.shape, generator=torch.Generator().manual_seed(0), **options)
        return net.to(work.device).eval()


NETS = (
    Net("PreAct-ResNet-18", "preact_resnet18", (3, 32, 32), {}, {"channels": 2}),
    Net("small net", "conv_small", (1, 28, 28), {}, {}),
    Net("ResNet [3, 3, 3], 64 channels", "resnet_ccat", (3, 32, 32), {}, {"channels": 2, "blocks": 1}),
    Net("ResNet-20", "resnet_ccat", (3, 32, 32), {"channels": 16}, {"channels": 2, "blocks": 1}),
)


@dataclass(frozen=True)
class Way:
    """How a net is run."""

    label: str
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    graph: bool = False
    compiled: bool = False

    @contextmanager
    def precision(self, device: torch.device) -> Iterator[None]:
        """Compute in its precision; float32 is not TF32."""
        half = self.dtype is not torch.float32
        with exact_float32(), torch.autocast(device.type, self.dtype) if half else nullcontext():
            yield


EAGER = Way("eager, float32")
BF16, LAST = Way("eager, bfloat16", torch.bfloat16), Way("channels_last, bfloat16", torch.bfloat16, True)
GRAPH = Way("CUDA graph, float32", graph=True)
BEST = Way("CUDA graph, channels_last, bfloat16", torch.bfloat16, True, graph=True)
COMPILED = Way("compiled, channels_last, bfloat16", torch.bfloat16, True, compiled=True)
WAYS = (EAGER, BF16, LAST, GRAPH, BEST)


def steps_of(work: Work) -> int:
    """Return the steps of PGD."""
    return 2 if work.quick else 10


def clock(work: Work, seconds: float) -> dict[str, Any]:
    """Return the options of `timed`, for so many seconds."""
    return {"seconds": 0.0, "sample": 0.0, "least": 1} if work.quick else {"seconds": seconds}


def run(work: Work) -> None:
    """Measure without a compiler, then beside other libraries, then what is compiled, as the time allows."""
    limits = {str(dtype): matmul_limit(work, dtype) for dtype in (torch.float32, torch.bfloat16)}
    work.save(matmul_flops_per_second=limits, steps=steps_of(work), rows=[], others=[])
    rows: list[dict[str, Any]] = []
    flops: dict[str, int] = {}

    def measure(net: Net, ways: tuple[Way, ...], batch: int) -> None:
        for way in ways:
            rows.extend(work.halving(batch, lambda size: _rows(work, net, way, size)))  # noqa: B023
        for row in rows:
            row |= _shares(row, rows, flops[row["net"]], limits, steps_of(work))
        work.save(rows=rows)

    for net in NETS:
        flops[net.label] = _flops(net.made(work), net.shape, work.device)
    batches = (8, 4) if work.quick else BATCHES
    missing = []
    for batch in batches:
        for net in NETS:
            if work.left() < 20 and not work.quick:
                missing.append(f"{net.label} in batches of {batch}")
                continue
            measure(net, WAYS, batch)
    beside = [_beside(work, net, batches[0]) for net in (NETS[:2] if work.left() > 30 or work.quick else ())]
    work.save(others=[row for found in beside for row in found])
    uncompiled = []
    for net in NETS[1:2] if work.quick else (NETS[1], NETS[0], *NETS[2:]):  # the quickest first
        if work.left() < COMPILING and not work.quick:
            uncompiled.append(f"{net.label} compiled")
            continue
        measure(net, (COMPILED,), batches[0])
    if missing or uncompiled:
        work.note(f"no time for {', '.join([*missing, *uncompiled])}")
    work.save(headline=headline(work.found, batches[0]))
    work.picture(figure(rows, batches[0]))
    work.save(complete=not missing)


def _rows(work: Work, net: Net, way: Way, batch: int) -> list[dict[str, Any]]:
    """Return what a net takes for bare passes, for PGD and for steps of AT in one way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        return [
            {"net": net.label, "way": way.label, "what": what, "batch": batch, **asdict(found)}
            | {"images_per_second": batch / found.seconds}
            for what, found in _timed(work, net, way, batch).items()
        ]


def _timed(work: Work, net: Net, way: Way, batch: int) -> dict[str, Timed]:
    device = work.device
    memory = torch.channels_last if way.channels_last else torch.contiguous_format
    network = net.made(work).to(memory_format=memory)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((batch, *net.shape), generator=generator).to(device).contiguous(memory_format=memory)
    y = torch.randint(10, (batch,), generator=generator).to(device)
    model: nn.Module = network
    if way.compiled:
        model = torch.compile(network, dynamic=False, backend="eager" if work.quick else "inductor")  # type: ignore[assignment]
    attack = PGD(
        "linf", "cross_entropy", steps=steps_of(work), step_size=STEP_SIZE, keep="last", stop_when_reached=False
    )
    options = clock(work, 0.3)

    def pass_(x: Tensor, y: Tensor) -> Tensor:
        return bare_pass(model, x, y)

    def pgd(x: Tensor, y: Tensor, key: Tensor) -> Tensor:
        return attack.perturb_with(model, x, y, EPSILON, key)

    key = keys(generator, torch.arange(batch, device=device))
    found = {}
    with way.precision(device):
        with frozen(network):
            if way.graph:
                pass_, pgd = Captured(pass_, nets=[network]), Captured(pgd, nets=[network])  # type: ignore[assignment]
            found["pass"] = timed(lambda: pass_(x, y), device, **options)
            found["pgd"] = timed(lambda: pgd(x, y, key), device, **options)
        network.train()
        found["training pass"] = timed(lambda: F.cross_entropy(model(x).float(), y).backward(), device, **options)
    learner = _learner(work, net, network, way, batch)
    # the step sets its own precision
    with exact_float32():
        found["at"] = timed(lambda: learner.step(model, x, y, 0.5), device, **options)
    return found


def _learner(work: Work, net: Net, network: models.Network, way: Way, batch: int) -> Learner:
    """Return what takes steps of AT."""
    name = "mnist" if net.shape[0] == 1 else "cifar10"
    half = way.dtype is torch.bfloat16
    plan = recipe(name, "at", model=net.name).changed(
        batch_size=batch, attack_steps=steps_of(work), epsilon=EPSILON, step_size=STEP_SIZE, learning_rate=1e-6,
        precision="bfloat16" if half else "float32", ramp=0.0, average=0.0,
    )  # fmt: skip
    noise = torch.Generator().manual_seed(0)
    return Learner(plan, network, noise, Group(), graphs=way.graph)


def bare_pass(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Do what no attack can do without: a pass forward, and one backward to the images."""
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(F.cross_entropy(model(z).float(), y, reduction="sum"), z)[0]


def matmul_limit(work: Work, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large product of square matrices, what arithmetic the device can do in practice."""
    size = 128 if work.quick else 8192
    a = torch.rand((size, size), device=work.device, dtype=dtype)
    with exact_float32():
        return 2 * size**3 / timed(lambda: a @ a, work.device, **clock(work, 0.4)).seconds


def _flops(net: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    """Return the operations of a pass forward and backward to the images, for one image."""
    z = torch.rand((2, *shape), device=device).requires_grad_()
    # by backward: the counter's hooks refuse torch.autograd.grad by a leaf
    with frozen(net), FlopCounterMode(display=False) as counter:
        net(z).sum().backward()
    return int(counter.get_total_flops()) // 2


def _shares(
    row: dict[str, Any], rows: list[dict[str, Any]], flops: int, limits: dict[str, float], steps: int
) -> dict[str, float | None]:
    """Return a row's share of the arithmetic, and what it takes over the sum of its passes."""
    same = {one["what"]: one["seconds"] for one in rows if all(one[key] == row[key] for key in ("net", "way", "batch"))}
    if row["what"] == "pass":
        rate = flops * row["batch"] / row["seconds"]
        limit = limits[str(torch.bfloat16 if "bfloat16" in row["way"] else torch.float32)]
        return {"flops_per_second": rate, "share_of_matmul": rate / limit}
    passes = {"pgd": steps * same["pass"], "at": steps * same["pass"] + same["training pass"]}
    return {"over_passes": row["seconds"] / passes[row["what"]]} if row["what"] in passes else {}


def _beside(work: Work, net: Net, batch: int) -> list[dict[str, Any]]:
    """Return what the same PGD takes here, eager and as a graph, and in the other libraries that are installed."""
    network, device, steps = net.made(work), work.device, steps_of(work)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((batch, *net.shape), generator=generator).to(device)
    y = torch.randint(10, (batch,), generator=generator).to(device)
    attack = PGD("linf", "cross_entropy", steps=steps, step_size=STEP_SIZE, keep="last", stop_when_reached=False)
    captured = Captured(lambda x, y, key: attack.perturb_with(network, x, y, EPSILON, key), nets=[network])

    def graph() -> Tensor:
        found = captured(x, y, keys(generator, torch.arange(batch, device=device)))
        assert isinstance(found, Tensor)
        return found

    theirs, broken = others(network, x, y, epsilon=EPSILON, step_size=STEP_SIZE, steps=steps)
    for one in broken:
        if one not in work.notes:
            work.note(one)
    works: dict[str, Callable[[], object]] = {
        "deepcheck": lambda: attack(network, x, y, epsilon=EPSILON, generator=generator, batch_size=batch),
        "deepcheck, CUDA graph": graph,
        **theirs,
    }
    rows = []
    for name, one in works.items():
        # the graph is of the net with its parameters frozen, as the others of ours freeze them by themselves
        with exact_float32(), frozen(network) if name == "deepcheck, CUDA graph" else nullcontext():
            found = timed(one, device, **clock(work, 1.0))
        rows.append({"net": net.label, "library": name, "batch": batch, **asdict(found)})
    ours = rows[0]["seconds"]
    return [row | {"over_deepcheck": row["seconds"] / ours} for row in rows]


def headline(found: dict[str, Any], batch: int) -> dict[str, Any]:
    """Return the numbers that answer the aims: at most 1.05 over the passes, and ahead of each library."""
    over = [row["over_passes"] for row in found["rows"] if row.get("over_passes") and row["batch"] == batch]
    best = max((row["images_per_second"] for row in found["rows"] if row["what"] == "at"), default=0.0)
    beside = [row["over_deepcheck"] for row in found["others"] if not row["library"].startswith("deepcheck")]
    return {
        "largest over passes": max(over, default=None),
        "AT, images/s at most": best,
        **({"fastest library over deepcheck": min(beside)} if beside else {}),
    }


def figure(rows: list[dict[str, Any]], batch: int) -> Any:
    """Draw images per second of passes and of steps of AT, by net and way."""
    from odeflow.plot import new_figure

    drawn, axes = new_figure(1, 2, width=9.0, height=3.6)
    ways = [way.label for way in (*WAYS, COMPILED)]
    for axis, what, title in zip(axes[0], ("pass", "at"), ("passes to the images", "steps of AT"), strict=True):
        for place, way in enumerate(ways):
            heights = [
                next((row["images_per_second"] for row in rows if _is(row, net.label, way, what, batch)), 0.0)
                for net in NETS
            ]
            axis.bar([i + (place - 2.5) / 7 for i in range(len(NETS))], heights, 1 / 7, label=way)
        axis.set_xticks(range(len(NETS)), [net.label.split(",")[0].replace("ResNet [3", "ResNet") for net in NETS])
        axis.tick_params(axis="x", labelsize=7)
        axis.set_yscale("log")
        axis.set(title=title, ylabel="images per second" if what == "pass" else "")
    axes[0][0].legend(fontsize=6)
    return drawn


def _is(row: dict[str, Any], net: str, way: str, what: str, batch: int) -> bool:
    return bool(row["net"] == net and row["way"] == way and row["what"] == what and row["batch"] == batch)


def markdown(found: dict[str, Any]) -> str:
    """Return tables of what has been measured, for a page."""
    limits = ", ".join(
        f"{limit / 1e12:.3g} TFLOP/s in {dtype.removeprefix('torch.')}"
        for dtype, limit in found["matmul_flops_per_second"].items()
    )
    rows = [
        [row["net"], row["way"], row["what"], str(row["batch"]), f"{row['images_per_second']:.0f}"]
        + [
            f"{row[name]:.2f}" if row.get(name) is not None else ""
            for name in ("share_of_matmul", "over_passes", "host")
        ]
        for row in found["rows"]
    ]
    beside = [
        [row["net"], row["library"], str(row["batch"]), f"{row['seconds'] * 1e3:.1f}", f"{row['over_deepcheck']:.2f}"]
        for row in found["others"]
    ]
    head = [
        "net",
        "way",
        "what",
        "batch",
        "images/s",
        "share of the matrix product",
        "over its passes",
        "processor busy",
    ]
    return "\n\n".join(
        [
            f"A large matrix product: {limits}. PGD and AT take {found['steps']} steps.",
            table(head, rows),
            table(["net", f"PGD-{found['steps']} of", "batch", "ms", "over deepcheck"], beside),
        ]
    )


CARD = Card(
    "speed",
    "Images a second of passes, PGD-10 and AT steps of four nets in six ways, over their passes and beside three libraries",
    run,
    least=2.0,
    most=4.5,
)
