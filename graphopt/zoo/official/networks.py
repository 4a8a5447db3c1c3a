"""Networks that neither transformers nor FunASR has, as their papers describe them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BiLstm(nn.Module):
    """Three bidirectional layers of 512 units, as in speech and tagging.

    Takes f32[B, T, features] and returns f32[B, T, 2 * width].
    """

    def __init__(self, features: int = 512, width: int = 512, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.LSTM(features, width, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states of both directions side by side."""
        y: Tensor = self.layers(x)[0]
        return y


def _convolution(
    inner: int, outer: int, kernel: int, stride: int, groups: int, act: type[nn.Module] | None
) -> nn.Sequential:
    parts: list[nn.Module] = [
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer, eps=1e-3),
    ]
    if act:
        parts.append(act(inplace=True))
    return nn.Sequential(*parts)


class _SqueezeExcite(nn.Module):
    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, narrow, 1), nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


#: Kernel, expanded channels, channels, whether squeezed, activation, stride: table 1 of the paper.
_BLOCKS = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)


def _of_eighths(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class MobileNetV3(nn.Module):
    """MobileNetV3-Large: f32[B, 3, H, W] to scores of 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 16, 3, 2, 1, nn.Hardswish)
        self.blocks = nn.ModuleList(self._blocks())
        self.last = _convolution(160, 960, 1, 1, 1, nn.Hardswish)
        self.head = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(inplace=True), nn.Linear(1280, 1000)
        )

    @staticmethod
    def _blocks() -> Iterator[nn.Module]:
        inner = 16
        for kernel, wide, outer, squeezed, act, stride in _BLOCKS:
            parts = [_convolution(inner, wide, 1, 1, 1, act)] if wide != inner else []
            parts.append(_convolution(wide, wide, kernel, stride, wide, act))
            if squeezed:
                parts.append(nn.Sequential(_SqueezeExcite(wide, _of_eighths(wide / 4))))
            parts.append(_convolution(wide, outer, 1, 1, 1, None))
            yield nn.Sequential(*parts)
            inner = outer

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes, f32[B, 1000]."""
        x = self.stem(x)
        for block in self.blocks:
            y = block(x)
            x = x + y if y.shape == x.shape else y
        scores: Tensor = self.head(self.last(x).mean((2, 3)))
        return scores


class UNet(nn.Module):
    """Five levels of 64 to 1024 channels: f32[B, 3, H, W] to a mask f32[B, 2, H, W].

    Convolutions are padded, so that height and width, multiples of 16, stay.
    """

    def __init__(self, width: int = 64, levels: int = 5) -> None:
        super().__init__()
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            self._double(inner, outer) for inner, outer in zip([3, *widths], widths, strict=False)
        )
        falling = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in falling)
        self.merge = nn.ModuleList(self._double(a, b) for a, b in falling)
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _double(inner: int, outer: int) -> nn.Sequential:
        first = _convolution(inner, outer, 3, 1, 1, nn.ReLU)
        return nn.Sequential(first, _convolution(outer, outer, 3, 1, 1, nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of two classes for each pixel."""
        skipped = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skipped.append(x)
        skipped.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skipped.pop(), up(x)], 1))
        mask: Tensor = self.head(x)
        return mask
