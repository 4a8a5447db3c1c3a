"""Networks of convolutions over images, as torchvision and timm have them, written in torch.nn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from entry import FREE_IMAGE, IMAGE, Entry
from torch import nn

Tensor = torch.Tensor


def image(batch: int, height: int, width: int) -> tuple[Tensor]:
    return (torch.randn(batch, 3, height, width),)


def conv_norm(
    inner: int, outer: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    layers = [
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(inplace=True) if act else nn.Identity(),
    ]
    return nn.Sequential(*layers)


class ResidualNet(nn.Module):
    """A stem, residual blocks and a pooled head."""

    def __init__(self, blocks: nn.ModuleList, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.blocks, self.head = blocks, nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        same = inner == outer and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inner, outer, 1, stride, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def basic(inner: int, outer: int, stride: int) -> nn.Module:
    body = nn.Sequential(conv_norm(inner, outer, 3, stride), conv_norm(outer, outer, act=False))
    return Residual(inner, outer, stride, body)


def bottleneck(inner: int, outer: int, stride: int, groups: int = 1) -> nn.Module:
    middle = outer // 2
    body = nn.Sequential(
        conv_norm(inner, middle, 1),
        conv_norm(middle, middle, 3, stride, groups),
        conv_norm(middle, outer, 1, act=False),
    )
    return Residual(inner, outer, stride, body)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * F.hardsigmoid(self.up(F.relu(self.down(pooled))))


class InvertedResidual(nn.Module):
    def __init__(self, width: int, act: nn.Module, kernel: int = 3, excite: bool = True) -> None:
        super().__init__()
        wide = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False),
            nn.BatchNorm2d(wide, eps=1e-3),
            act,
            nn.Conv2d(wide, wide, kernel, 1, kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide, eps=1e-3),
            act,
            SqueezeExcite(wide) if excite else nn.Identity(),
            nn.Conv2d(wide, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def vgg() -> nn.Module:
    features = [conv_norm(3, 8), nn.MaxPool2d(2, 2), conv_norm(8, 16), nn.MaxPool2d(2, 2)]
    head = [nn.Linear(16 * 16, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10)]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), *head)


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2),
        nn.ReLU(inplace=True),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 24, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d((6, 6)),
        nn.Flatten(),
        nn.Linear(24 * 36, 10),
    )


class Fire(nn.Module):
    def __init__(self, inner: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inner, squeezed, 1)
        self.one = nn.Conv2d(squeezed, 2 * squeezed, 1)
        self.three = nn.Conv2d(squeezed, 2 * squeezed, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


def squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(16, 4),
        Fire(16, 8),
        nn.Conv2d(32, 10, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(16 + 8 * i),
                nn.ReLU(),
                nn.Conv2d(16 + 8 * i, 8, 3, padding=1, bias=False),
            )
            for i in range(3)
        )
        self.transition = nn.Sequential(
            nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 20, 1), nn.AvgPool2d(2, 2)
        )
        self.head = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        x = F.relu(self.transition(torch.cat(features, 1)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, 2)
        self.one = conv_norm(16, 8, 1)
        self.five = nn.Sequential(conv_norm(16, 8, 1), conv_norm(8, 8, 5))
        self.split = nn.Sequential(
            nn.Conv2d(16, 8, (1, 7), padding=(0, 3)), nn.Conv2d(8, 8, (7, 1), padding=(3, 0))
        )
        self.pooled = conv_norm(16, 8, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = self.pooled(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        x = torch.cat([self.one(x), self.five(x), self.split(x), pooled], 1)
        return self.head(x.mean([2, 3]))


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, 2)
        self.branch = nn.Sequential(
            conv_norm(8, 8, 1), conv_norm(8, 8, 3, 1, 8, act=False), conv_norm(8, 8, 1)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            kept, changed = x.chunk(2, dim=1)
            x = F.channel_shuffle(torch.cat([kept, self.branch(changed)], 1), 2)
            batch, channels, height, width = x.size()
            x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
            x = x.view(batch, channels, height, width)
        return self.head(x.mean([2, 3]))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(1e-1 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4),
        LayerNorm2d(16),
        ConvNeXtBlock(16),
        LayerNorm2d(16),
        nn.Conv2d(16, 24, 2, 2),
        ConvNeXtBlock(24),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(24),
        nn.Linear(24, 10),
    )


class GhostModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.primary, self.cheap = conv_norm(3, 8, 1), conv_norm(8, 8, 3, 1, 8)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], dim=1)[:, :12, :, :]


class RepVGG(nn.Module):
    """Three branches that are one convolution once their weights are added, here at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.one = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.three.weight + F.pad(self.one.weight, [1, 1, 1, 1])
        return F.silu(F.conv2d(x, weight, self.three.bias + self.one.bias, padding=1))


class AttentionGateCnn(nn.Module):
    """Channel and place attention (CBAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * torch.sigmoid(gate)[:, :, None, None]
        pair = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * self.place(pair).sigmoid()


class AntiAliased(nn.Module):
    """Max pooling, then a fixed blur with reflected borders."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 8)
        blur = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("blur", (blur[:, None] * blur / 16).expand(8, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2, 1)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.blur, stride=2, groups=8)


class SpatialTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(
            nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.theta, self.body = nn.Linear(32, 6), conv_norm(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(self.where(x)).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.size()), align_corners=False)
        return self.body(F.grid_sample(x, grid, align_corners=False))


def net(block: nn.Module, width: int = 16) -> nn.Module:
    return ResidualNet(nn.ModuleList([block]), width)


MODELS = {
    "resnet-basic": Entry(
        lambda: ResidualNet(nn.ModuleList([basic(16, 16, 1), basic(16, 24, 2)]), 24),
        image,
        FREE_IMAGE,
    ),
    "resnet-bottleneck": Entry(lambda: net(bottleneck(16, 32, 2), 32), image, FREE_IMAGE),
    "resnext": Entry(lambda: net(bottleneck(16, 32, 1, 4), 32), image, FREE_IMAGE),
    "wide-resnet": Entry(lambda: net(basic(16, 64, 2), 64), image, FREE_IMAGE),
    "mobilenet-v2-style": Entry(
        lambda: net(InvertedResidual(16, nn.ReLU6(), excite=False)), image, FREE_IMAGE
    ),
    "mobilenet-v3-style": Entry(
        lambda: net(InvertedResidual(16, nn.Hardswish(), 5)), image, FREE_IMAGE
    ),
    "efficientnet-style": Entry(lambda: net(InvertedResidual(16, nn.SiLU())), image, FREE_IMAGE),
    "vgg": Entry(vgg, image, IMAGE),
    "alexnet": Entry(alexnet, image, IMAGE),
    "squeezenet": Entry(squeezenet, image, FREE_IMAGE),
    "densenet": Entry(DenseNet, image, FREE_IMAGE),
    "inception": Entry(Inception, image, FREE_IMAGE),
    "shufflenet": Entry(ShuffleNet, image, FREE_IMAGE),
    "convnext-style": Entry(convnext, image, FREE_IMAGE),
    "ghostnet": Entry(GhostModule, image, FREE_IMAGE),
    "repvgg": Entry(RepVGG, image, FREE_IMAGE),
    "cbam": Entry(AttentionGateCnn, image, FREE_IMAGE),
    "antialiased-cnn": Entry(AntiAliased, image, FREE_IMAGE),
    "spatial-transformer": Entry(SpatialTransformer, image, IMAGE),
}
