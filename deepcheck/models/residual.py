"""Residual networks for images of about 32 x 32 pixels: no convolution and no pooling before the first stage shrinks them.

All consist of stages of blocks. Every stage but the first halves the image in its first block and doubles the channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BasicBlock", "GlobalAverage", "PreActivationBlock", "preact_resnet18", "resnet_ccat", "wrn28_10"]


class BasicBlock(nn.Module):
    """relu(shortcut(x) + f(x)) with f = norm, convolution, relu, norm, convolution (He et al., CVPR 2016).

    Where the shape changes, the shortcut is a convolution of 1 x 1 pixel and a norm (their option B); else it is x.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(in_channels, channels, stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            _convolution(channels, channels),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(_convolution(in_channels, channels, stride, size=1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the next activations, shape (n, channels, height / stride, width / stride)."""
        return F.relu(self.shortcut(x) + self.residual(x))


class PreActivationBlock(nn.Module):
    """x + f(h) with h = relu(norm(x)), f = convolution, relu, norm, convolution (He et al., ECCV 2016).

    Where the shape changes, a convolution of 1 x 1 pixel, applied to h, stands in place of x.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.residual = nn.Sequential(
            _convolution(in_channels, channels, stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            _convolution(channels, channels),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = _convolution(in_channels, channels, stride, size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next activations, shape (n, channels, height / stride, width / stride)."""
        h = self.activation(x)
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(h)
        residual: Tensor = self.residual(h)
        return shortcut + residual


class GlobalAverage(nn.Module):
    """Average over the pixels: nn.AdaptiveAvgPool2d, but for its gradient on CUDA, which is not deterministic."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the averages, shape (n, channels)."""
        return x.mean((2, 3))


def resnet_ccat(in_shape: tuple[int, int, int], *, channels: int = 64, blocks: int = 3) -> tuple[nn.Module, int]:
    """Return the features of the ResNet-20 of CCAT, and their number.

    The network of He et al. (CVPR 2016, section 4.2) with 64 instead of 16 channels, as used by Stutz et al. (ICML
    2020): a convolution with norm and relu, three stages of three basic blocks with 64, 128 and 256 channels, the
    average over all pixels. Chosen here: convolutions have no bias, and where the shape changes the shortcut is a
    convolution of 1 x 1 pixel with a norm. On CIFAR-10, 4,327,754 weights with the head.

    Parameters
    ----------
    in_shape
        Channels, height, width of an image; at least 4 x 4 pixels.
    channels
        Channels of the first stage.
    blocks
        Blocks per stage; the depth is 6 blocks + 2.
    """
    widths = (channels, 2 * channels, 4 * channels)
    body = nn.Sequential(
        _convolution(in_shape[0], channels),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        *_stages(BasicBlock, channels, widths, blocks),
        GlobalAverage(),
    )
    return body, widths[-1]


def preact_resnet18(in_shape: tuple[int, int, int], *, channels: int = 64) -> tuple[nn.Module, int]:
    """Return the features of a ResNet-18 of pre-activation blocks, and their number.

    He et al. (ECCV 2016), with a stem for small images: one convolution of 3 x 3 pixels, then four stages of two
    blocks with 64, 128, 256 and 512 channels, norm, relu, and the average over all pixels. On CIFAR-10, 11,172,170
    weights with the head; a common variant without the last norm has 11,171,146.

    Parameters
    ----------
    in_shape
        Channels, height, width of an image; at least 8 x 8 pixels.
    channels
        Channels of the first stage.
    """
    widths = (channels, 2 * channels, 4 * channels, 8 * channels)
    return _pre_activation(in_shape[0], channels, widths, blocks=2)


def wrn28_10(in_shape: tuple[int, int, int], *, depth: int = 28, width: int = 10) -> tuple[nn.Module, int]:
    """Return the features of a wide ResNet without dropout, and their number.

    Zagoruyko and Komodakis (BMVC 2016): a convolution with 16 channels, three stages of (depth - 4) / 6 pre-activation
    blocks with 16, 32 and 64 times `width` channels, norm, relu, and the average over all pixels. On CIFAR-10,
    36,479,194 weights with the head.

    Parameters
    ----------
    in_shape
        Channels, height, width of an image; at least 4 x 4 pixels.
    depth
        Number of convolutions, those of the three shortcuts included: 6 k + 4 with k = 1, 2, ...
    width
        Factor of the channels of the stages.

    Raises
    ------
    ValueError
        If there is no such depth.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth = {depth} is not possible: allowed is 6 k + 4 with k = 1, 2, ...: 10, 16, 22, 28, ...")
    return _pre_activation(in_shape[0], 16, (16 * width, 32 * width, 64 * width), blocks)


def _pre_activation(in_channels: int, stem: int, widths: Sequence[int], blocks: int) -> tuple[nn.Module, int]:
    body = nn.Sequential(
        _convolution(in_channels, stem),
        *_stages(PreActivationBlock, stem, widths, blocks),
        nn.BatchNorm2d(widths[-1]),
        nn.ReLU(),
        GlobalAverage(),
    )
    return body, widths[-1]


def _stages(
    block: type[BasicBlock | PreActivationBlock], in_channels: int, widths: Sequence[int], blocks: int
) -> list[nn.Module]:
    """Return the blocks of all stages, `blocks` for each."""
    modules: list[nn.Module] = []
    for stage, channels in enumerate(widths):
        for index in range(blocks):
            modules.append(block(in_channels, channels, stride=2 if stage > 0 and index == 0 else 1))
            in_channels = channels
    return modules


def _convolution(in_channels: int, channels: int, stride: int = 1, *, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, size, stride=stride, padding=size // 2, bias=False)
