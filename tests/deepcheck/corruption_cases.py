"""Images to corrupt, of the three sizes that corruptions are for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck.corruptions import CORRUPTIONS
from deepcheck.data import load
from tests.deepcheck.devices import here

SHAPES = {"grey": (1, 28, 28), "colour": (3, 32, 32), "small": (1, 8, 8)}
CASES = [
    (name, kind)
    for name, one in CORRUPTIONS.items()
    for kind in SHAPES
    if not (one.grey is None and SHAPES[kind][0] == 1)
]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(kind: str, count: int, *, seed: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return images: of coloured ones smooth patches from 0 to 1, of grey ones digits, as they are or 20 high in a black frame."""
    if kind == "colour":
        rough = torch.rand(count, 3, 9, 9, generator=draw(seed), dtype=torch.float64)
        x = F.interpolate(rough, (32, 32), mode="bilinear", align_corners=True)
        least, most = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        return ((x - least) / (most - least)).clamp(0, 1).to(dtype).to(here())
    x = torch.tensor(load("digits").test_images[:count], device="cpu").double() / 255
    if kind == "grey":
        x = F.pad(F.interpolate(x, (20, 20), mode="bilinear", align_corners=True), (4, 4, 4, 4))
    return x.to(dtype).to(here())


def flat(kind: str, count: int, value: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return images of one grey."""
    return torch.full((count, *SHAPES[kind]), value, dtype=dtype).to(here())
