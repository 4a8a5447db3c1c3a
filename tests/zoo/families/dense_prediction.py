"""Networks that say something of every place of an image, written in torch.nn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from entry import FREE_IMAGE, IMAGE, Entry
from families.convolutional import conv_norm, image
from torch import nn

Tensor = torch.Tensor


class UNet(nn.Module):
    """Down with pooling, up with transposed convolutions or interpolation."""

    def __init__(self, transposed: bool = True, norm: bool = False) -> None:
        super().__init__()
        self.down1, self.down2 = self.double(3, 8, norm), self.double(8, 16, norm)
        self.middle = self.double(16, 32, norm)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, 2) if transposed else self.upsample(32, 16)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, 2) if transposed else self.upsample(16, 8)
        self.back2, self.back1 = self.double(32, 16, norm), self.double(16, 8, norm)
        self.head = nn.Conv2d(8, 2, 1)

    @staticmethod
    def double(inner: int, outer: int, group: bool) -> nn.Module:
        norm = nn.GroupNorm(4, outer) if group else nn.BatchNorm2d(outer)
        return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), norm, nn.SiLU())

    @staticmethod
    def upsample(inner: int, outer: int) -> nn.Module:
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        return nn.Sequential(up, nn.Conv2d(inner, outer, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.up2(self.middle(F.max_pool2d(second, 2)))
        x = self.up1(self.back2(torch.cat([second, x], 1)))
        return self.head(self.back1(torch.cat([first, x], 1)))


class FeaturePyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = (
            conv_norm(3, 8, 3, 2),
            conv_norm(8, 16, 3, 2),
            conv_norm(16, 24, 3, 2),
        )
        self.l1, self.l2, self.l3 = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(24, 8, 1)
        self.out = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c1 = self.c1(x)
        c2 = self.c2(c1)
        c3 = self.c3(c2)
        p3 = self.l3(c3)
        p2 = self.l2(c2) + F.interpolate(p3, size=c2.shape[-2:], mode="nearest")
        p1 = self.l1(c1) + F.interpolate(p2, size=c1.shape[-2:], mode="nearest")
        return {"p1": self.out(p1), "p2": self.out(p2), "p3": F.max_pool2d(p3, 1, 2, 0)}


class DeepLab(nn.Module):
    """Dilated convolutions beside a pooled branch, upsampled to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, 2)
        self.rates = nn.ModuleList(
            nn.Conv2d(16, 8, 3, padding=rate, dilation=rate) for rate in (1, 2, 4)
        )
        self.pool = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        pooled = F.relu(self.pool(F.adaptive_avg_pool2d(y, 1)))
        pooled = F.interpolate(pooled, size=y.shape[-2:], mode="bilinear", align_corners=False)
        y = self.head(torch.cat([*(F.relu(c(y)) for c in self.rates), pooled], 1))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


class PyramidPooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_norm(3, 8, 3, 2), nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        levels = [F.adaptive_avg_pool2d(y, n) for n in (1, 2)]
        up = [F.interpolate(z, y.shape[2:], mode="bilinear", align_corners=True) for z in levels]
        return self.head(torch.cat([y, *up], 1)).argmax(1)


class SuperResolution(nn.Module):
    """EDSR: residual blocks and a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.tail = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        y = y + 0.1 * self.body(F.leaky_relu(y, 0.1))
        base = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return torch.clamp(base + self.tail(y), 0, 1)


class YoloHead(nn.Module):
    """Boxes and scores of three scales, decoded on a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = conv_norm(3, 16, 3, 4), conv_norm(16, 16, 3, 2)
        self.head = nn.Conv2d(16, 2 * 7, 1)
        self.register_buffer("anchors", torch.rand(1, 2, 1, 1, 2))

    def decoded(self, y: Tensor, stride: float) -> Tensor:
        batch, _, height, width = y.shape
        y = y.view(batch, 2, 7, height, width).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack((columns, rows), 2).view(1, 1, height, width, 2).float()
        centre = (y[..., 0:2] * 2.0 - 0.5 + grid) * stride
        size = (y[..., 2:4] * 2) ** 2 * self.anchors
        return torch.cat((centre, size, y[..., 4:]), -1).view(batch, -1, 7)

    def forward(self, x: Tensor) -> Tensor:
        first = self.c1(x)
        second = self.c2(first)
        return torch.cat(
            [self.decoded(self.head(first), 4.0), self.decoded(self.head(second), 8.0)], 1
        )


class SpatialPyramid(nn.Module):
    """YOLO's SPPF and C2f."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = conv_norm(3, 8, 3, 2), conv_norm(32, 16, 1)
        self.up = conv_norm(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        y1 = F.max_pool2d(x, 5, 1, 2)
        y2 = F.max_pool2d(y1, 5, 1, 2)
        y = self.out(torch.cat((x, y1, y2, F.max_pool2d(y2, 5, 1, 2)), 1))
        return F.interpolate(self.up(y), scale_factor=2.0, mode="nearest") + F.interpolate(
            x, None, 2
        )


class SsdHead(nn.Module):
    """Scores and boxes of anchors, the best of each class."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv_norm(3, 16, 3, 4)
        self.scores, self.boxes = (
            nn.Conv2d(16, 3 * 4, 3, padding=1),
            nn.Conv2d(16, 3 * 4, 3, padding=1),
        )
        self.register_buffer("anchors", torch.rand(192, 4) + 0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.body(x)
        scores = self.scores(y).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4).softmax(-1)
        deltas = self.boxes(y).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4)
        centre = self.anchors[:, :2] + deltas[..., :2] * self.anchors[:, 2:] * 0.1
        size = self.anchors[:, 2:] * torch.exp(deltas[..., 2:] * 0.2)
        boxes = torch.cat([centre - size / 2, centre + size / 2], -1).clamp(min=0, max=1)
        best, which = scores[..., 1:].max(-1)
        top, order = best.topk(5, 1)
        picked = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        return picked, top, which.gather(1, order)


class CenterNet(nn.Module):
    """Peaks of a heat map."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.heat, self.size = (
            conv_norm(3, 16, 3, 2),
            nn.Conv2d(16, 2, 1),
            nn.Conv2d(16, 2, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        heat = self.heat(y).sigmoid()
        heat = heat * (F.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, places = torch.topk(heat.flatten(1), 4)
        size = self.size(y).flatten(2).transpose(1, 2)
        places = places % (y.shape[2] * y.shape[3])
        return scores, torch.gather(size, 1, places[..., None].repeat(1, 1, 2))


class KeypointHead(nn.Module):
    """Soft argmax of heat maps."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(3, 16, 3, 2), nn.ConvTranspose2d(16, 4, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        heat = self.body(x)
        batch, joints, height, width = heat.shape
        heat = heat.view(batch, joints, -1).softmax(-1).view(batch, joints, height, width)
        across = torch.linspace(0, 1, width)
        down = torch.linspace(0, 1, height)
        return torch.stack([(heat.sum(2) * across).sum(-1), (heat.sum(3) * down).sum(-1)], -1)


class TextDetector(nn.Module):
    """DBNet's differentiable thresholds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv_norm(3, 8, 3, 2)
        up = [nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1)]
        self.shrink, self.threshold = (
            nn.Sequential(*up),
            nn.Sequential(nn.ConvTranspose2d(8, 1, 2, 2)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        p, t = self.shrink(y).sigmoid(), self.threshold(y).sigmoid()
        return torch.reciprocal(1 + torch.exp(-50 * (p - t)))


class StyleNet(nn.Module):
    """Fast style transfer: reflected borders and instance norms."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReflectionPad2d(4),
            nn.Conv2d(3, 8, 9),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.InstanceNorm2d(16),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.ReplicationPad2d(1),
            nn.Conv2d(16, 3, 3),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class OpticalFlow(nn.Module):
    """Correlation of two images and a warp."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.flow = conv_norm(3, 8), nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        a, b = self.body(one), self.body(two)
        moved = [torch.roll(b, (dy, dx), (2, 3)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        cost = torch.stack([(a * m).mean(1) for m in moved], 1)
        flow = self.flow(cost)
        rows = torch.arange(one.shape[2]).view(1, -1, 1).expand(one.shape[0], -1, one.shape[3])
        columns = torch.arange(one.shape[3]).view(1, 1, -1).expand(one.shape[0], one.shape[2], -1)
        x = 2 * (columns + flow[:, 0]) / (one.shape[3] - 1) - 1
        y = 2 * (rows + flow[:, 1]) / (one.shape[2] - 1) - 1
        return F.grid_sample(two, torch.stack((x, y), -1), "bilinear", "border", align_corners=True)


def two_images(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, height, width), torch.randn(batch, 3, height, width)


MODELS = {
    "unet": Entry(UNet, image, FREE_IMAGE),
    "unet-bilinear": Entry(lambda: UNet(transposed=False), image, FREE_IMAGE),
    "unet-groupnorm": Entry(lambda: UNet(norm=True), image, FREE_IMAGE),
    "fpn": Entry(FeaturePyramid, image, FREE_IMAGE),
    "deeplab": Entry(DeepLab, image, FREE_IMAGE),
    "pspnet": Entry(PyramidPooling, image, IMAGE),
    "edsr": Entry(SuperResolution, image, FREE_IMAGE),
    "yolo-head": Entry(YoloHead, image, FREE_IMAGE),
    "sppf": Entry(SpatialPyramid, image, FREE_IMAGE),
    "ssd-head": Entry(SsdHead, image, IMAGE),
    "centernet": Entry(CenterNet, image, FREE_IMAGE),
    "keypoints": Entry(KeypointHead, image, FREE_IMAGE),
    "dbnet": Entry(TextDetector, image, FREE_IMAGE),
    "style-transfer": Entry(StyleNet, image, FREE_IMAGE),
    "optical-flow": Entry(OpticalFlow, two_images, IMAGE),
}
