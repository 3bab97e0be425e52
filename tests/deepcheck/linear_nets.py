"""Linear nets of two classes, and the least perturbations in the box that turn them, in closed form."""

import torch
from torch import Tensor, nn

__all__ = ["Linear", "least", "near", "reach"]


class Linear(nn.Module):
    """Logits of two classes, -f/2 and f/2 with f = w x - b, all in one row of arithmetic for each image."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w.double()), b

    def forward(self, x: Tensor) -> Tensor:
        f = (x.flatten(1) * self.w.to(x.dtype)).sum(1) - self.b
        return torch.stack([-f / 2, f / 2], 1)


def near(n: int, D: int = 24, *, edges: bool, width: float = 0.1, seed: int = 0) -> tuple[Linear, Tensor, Tensor]:
    """Return a linear net, images near its boundary, some with pixels at the edge of the box, and their classes."""
    draw = torch.Generator().manual_seed(seed)
    w = torch.randn(D, generator=draw, dtype=torch.float64)
    spread = 1.6 if edges else width
    images = (0.5 + spread * (torch.rand(n, 1, 4, D // 4, generator=draw, dtype=torch.float64) - 0.5)).clamp(0, 1)
    net = Linear(w, float(0.5 * w.sum()))
    with torch.no_grad():
        return net, images, net(images).argmax(1)


def reach(net: Linear, images: Tensor, labels: Tensor, confidence: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each image what has to be gained, m, and slopes and rooms of the pixels, (n, D), in the way that gains."""
    x = images.flatten(1).double()
    w = net.w.detach()[None] * torch.where(labels == 0, 1.0, -1.0)[:, None].double()
    m = ((net(images).diff(dim=1).squeeze(1).abs()) + confidence).detach()
    return m, w.abs(), torch.where(w > 0, 1 - x, x)


def least(norm: str, m: Tensor, w: Tensor, room: Tensor) -> Tensor:
    """Return the least length of a perturbation d, 0 <= d <= room, with w d = m; infinite where there is none."""
    reachable = (w * room).sum(1) > m
    if norm in ("l2", "linf"):
        low, high = torch.zeros_like(m), torch.full_like(m, 1e4)
        for _bisection in range(200):
            middle = (low + high) / 2
            d = torch.minimum(middle[:, None] * (w if norm == "l2" else torch.ones_like(w)), room)
            enough = (w * d).sum(1) >= m
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        d = torch.minimum(high[:, None] * (w if norm == "l2" else torch.ones_like(w)), room)
        length = torch.linalg.vector_norm(d, ord=2 if norm == "l2" else float("inf"), dim=1)
    else:
        gain = w * room
        order = (w if norm == "l1" else gain).argsort(dim=1, descending=True)
        w, room, gain = (one.gather(1, order) for one in (w, room, gain))
        before = torch.cat([torch.zeros_like(m)[:, None], gain.cumsum(1)[:, :-1]], 1)
        if norm == "l1":
            length = torch.minimum((m[:, None] - before).clamp(min=0) / w, room).sum(1)
        else:
            length = (before < m[:, None]).sum(1).double()
    return torch.where(reachable, length, torch.inf)
