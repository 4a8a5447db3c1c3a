"""Generators, diffusion, forecasters and mixers, written in torch.nn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from entry import FREE_IMAGE, IMAGE, TEXT, Entry
from families.convolutional import image
from families.sequences import frames
from torch import nn
from torch.nn.utils import spectral_norm

Tensor = torch.Tensor
BATCH = ((2,), (3,))


def noise(batch: int) -> tuple[Tensor]:
    return (torch.randn(batch, 16),)


class DcGan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(16, 16, 4, 1, 0, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(True),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z[:, :, None, None])


class Discriminator(nn.Module):
    """Convolutions with spectral norms."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            spectral_norm(nn.Conv2d(3, 8, 4, 2, 1)),
            nn.LeakyReLU(0.2, inplace=True),
            spectral_norm(nn.Conv2d(8, 1, 4, 2, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean((1, 2, 3))


class StyleGan(nn.Module):
    """Weights modulated by a style and normalized, grouped over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(16, 16), nn.LeakyReLU(0.2), nn.Linear(16, 8))
        self.constant, self.weight = (
            nn.Parameter(torch.randn(1, 8, 4, 4)),
            nn.Parameter(torch.randn(6, 8, 3, 3)),
        )

    def forward(self, z: Tensor) -> Tensor:
        batch = z.shape[0]
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        weight = self.weight[None] * (self.mapping(z) + 1)[:, None, :, None, None]
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = F.interpolate(self.constant.expand(batch, -1, -1, -1), scale_factor=2, mode="bilinear")
        x = F.conv2d(
            x.reshape(1, batch * 8, 8, 8), weight.view(batch * 6, 8, 3, 3), padding=1, groups=batch
        )
        return x.view(batch, 6, 8, 8)


class Vae(nn.Module):
    """Mean, deviation and what is drawn, with the noise given."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Softplus(), nn.Flatten())
        self.mean, self.log_var = nn.Linear(8 * 256, 4), nn.Linear(8 * 256, 4)
        self.decoder = nn.Sequential(
            nn.Linear(4, 64), nn.Unflatten(1, (4, 4, 4)), nn.ConvTranspose2d(4, 3, 3, 2, 1, 1)
        )

    def forward(self, x: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        y = self.encoder(x)
        mean, log_var = self.mean(y), self.log_var(y)
        kl = -0.5 * torch.sum(1 + log_var - mean**2 - log_var.exp(), 1)
        return self.decoder(mean + epsilon * torch.exp(0.5 * log_var)), kl


def image_and_noise(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, height, width), torch.randn(batch, 4)


class DiffusionUNet(nn.Module):
    """Steps as sines, group norms, attention over places."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))
        self.first, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1)
        self.norm1, self.norm2 = nn.GroupNorm(4, 16), nn.GroupNorm(4, 16, affine=False)
        self.qkv, self.out = nn.Conv1d(16, 48, 1), nn.Conv1d(16, 16, 1)
        self.last = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        frequencies = torch.exp(-torch.arange(8) * 0.5)
        angles = step[:, None].float() * frequencies[None]
        time = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], -1))
        skip = self.first(x)
        y = self.norm1(self.down(F.silu(skip))) + time[..., None, None]
        batch, width, height, across = y.shape
        q, k, v = (
            self.qkv(self.norm2(y).reshape(batch, width, -1)).view(batch * 2, 24, -1).split(8, 1)
        )
        scores = torch.einsum("bct,bcs->bts", q, k).mul(8**-0.5).softmax(-1)
        z = torch.einsum("bts,bcs->bct", scores, v).reshape(batch, width, -1)
        y = y + self.out(z).reshape(batch, width, height, across)
        return self.last(torch.cat([skip, F.interpolate(y, scale_factor=2.0)], 1))


def image_and_step(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, height, width), torch.randint(0, 1000, (batch,))


class DiffusionTransformer(nn.Module):
    """Patches, and norms modulated by a condition (DiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.classes = nn.Conv2d(3, 16, 8, 8), nn.Embedding(10, 16)
        self.norm = nn.LayerNorm(16, elementwise_affine=False, eps=1e-6)
        self.modulate, self.attention = (
            nn.Linear(16, 96),
            nn.MultiheadAttention(16, 4, batch_first=True),
        )
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 16))
        self.last = nn.Linear(16, 8 * 8 * 3)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.patch(x).flatten(2).transpose(1, 2)
        parts = self.modulate(F.silu(self.classes(label))).chunk(6, dim=1)
        a, b, c, d, e, f = (p.unsqueeze(1) for p in parts)
        y = self.norm(x) * (1 + a) + b
        x = x + c * self.attention(y, y, y)[0]
        x = self.last(x + d * self.mlp(self.norm(x) * (1 + e) + f))
        x = x.reshape(batch, 4, 4, 8, 8, 3)
        return torch.einsum("nhwpqc->nchpwq", x).reshape(batch, 3, 32, 32)


def image_and_label(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, height, width), torch.randint(0, 10, (batch,))


class RealNvp(nn.Module):
    """Coupling layers of a flow, and the logarithm of its determinant."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(x.shape[0])
        for net in self.nets:
            kept, moved = x[:, ::2], x[:, 1::2]
            scale, shift = net(kept).chunk(2, 1)
            scale = torch.tanh(scale)
            x = torch.cat([moved * torch.exp(scale) + shift, kept], 1)
            total = total + scale.sum(1)
        return x, total


class MlpMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm1, self.norm2 = (
            nn.Conv2d(3, 16, 8, 8),
            nn.LayerNorm(16),
            nn.LayerNorm(16),
        )
        self.places = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.features = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.features(self.norm2(x))).mean(dim=1))


class PatchTransformer(nn.Module):
    """A ViT in torch.nn with a class token; unfold makes the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Linear(192, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, "gelu", batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(F.unfold(x, 8, stride=8).transpose(1, 2))
        x = torch.cat((self.token.expand(x.size(0), -1, -1), x), 1) + self.places
        return self.head(self.encoder(x)[:, 0])


class WindowAttention(nn.Module):
    """Shifted windows with a bias by distance (Swin's block)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.qkv, self.out = (
            nn.Conv2d(3, 16, 4, 4),
            nn.Linear(16, 48),
            nn.Linear(16, 16),
        )
        self.table = nn.Parameter(torch.randn(49, 2))
        places = torch.stack(
            torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        ).flatten(1)
        gaps = (places[:, :, None] - places[:, None, :] + 3).permute(1, 2, 0)
        self.register_buffer("index", (gaps[..., 0] * 7 + gaps[..., 1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(self.patch(x).permute(0, 2, 3, 1), shifts=(-2, -2), dims=(1, 2))
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, 16, channels)
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 2, 8).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].view(16, 16, 2).permute(2, 0, 1)
        y = ((q @ k.transpose(-2, -1)) * 8**-0.5 + bias.unsqueeze(0)).softmax(-1) @ v
        y = self.out(y.transpose(1, 2).reshape(-1, 16, channels))
        y = y.view(batch, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        return torch.roll(y.reshape(batch, height, width, channels), (2, 2), (1, 2))


class NBeats(nn.Module):
    """Blocks that explain a series and forecast it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(2)
        )
        places = torch.linspace(0, 1, 18)
        self.register_buffer("basis", torch.stack([places**i for i in range(4)]))

    def forward(self, x: Tensor) -> Tensor:
        forecast = torch.zeros(x.shape[0], 6)
        for block in self.blocks:
            back, fore = block(x).split([4, 4], -1)
            x = x - torch.einsum("bp,pt->bt", back, self.basis[:, :12])
            forecast = forecast + torch.einsum("bp,pt->bt", fore, self.basis[:, 12:])
        return forecast


def series(batch: int) -> tuple[Tensor]:
    return (torch.randn(batch, 12),)


class DLinear(nn.Module):
    """A trend by a moving mean with repeated ends, and what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(5, 1)
        self.trend, self.season = nn.Linear(12, 6), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True).detach()
        std = torch.sqrt(torch.var(x, dim=1, keepdim=True, unbiased=False) + 1e-5)
        x = (x - mean) / std
        front, end = x[:, 0:1, :].repeat(1, 2, 1), x[:, -1:, :].repeat(1, 2, 1)
        trend = self.pool(torch.cat([front, x, end], 1).permute(0, 2, 1))
        y = self.trend(trend) + self.season(x.permute(0, 2, 1) - trend)
        return y.permute(0, 2, 1) * std + mean


def many_series(batch: int) -> tuple[Tensor]:
    return (torch.randn(batch, 12, 3),)


class TimesNetBlock(nn.Module):
    """A series folded by periods, circular borders, two-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(16, 8, 3, padding=1, padding_mode="circular", bias=False)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.permute(0, 2, 1))
        batch, width, length = x.shape
        folded = F.pad(x, (0, 16 - length)).reshape(batch, width, 4, 4)
        return x + F.gelu(self.conv(folded)).reshape(batch, width, -1)[:, :, :length]


class SlotAttention(nn.Module):
    """Slots that compete for inputs, updated by a GRU cell."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(1, 3, 16))
        self.k, self.v, self.q = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.cell, self.norm = nn.GRUCell(16, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        slots, k, v = self.slots.expand(x.shape[0], -1, -1), self.k(x), self.v(x)
        for _ in range(2):
            scores = torch.einsum("bid,bjd->bij", self.q(self.norm(slots)), k) / 4
            weights = scores.softmax(dim=1) + 1e-8
            weights = weights / weights.sum(dim=-1, keepdim=True)
            update = torch.einsum("bij,bjd->bid", weights, v)
            slots = self.cell(update.reshape(-1, 16), slots.reshape(-1, 16)).view_as(slots)
        return slots


class Hypernetwork(nn.Module):
    """A network that makes the weights of another for every row."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(16, 4 * 12 + 4)

    def forward(self, z: Tensor) -> Tensor:
        weight, bias = self.make(z).split([48, 4], -1)
        x = z[:, :12].unsqueeze(1)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.view(-1, 12, 4)).squeeze(1)


MODELS = {
    "dcgan": Entry(DcGan, noise, BATCH),
    "spectral-discriminator": Entry(Discriminator, image, FREE_IMAGE),
    "stylegan": Entry(StyleGan, noise, BATCH),
    "vae": Entry(Vae, image_and_noise, IMAGE),
    "diffusion-unet": Entry(DiffusionUNet, image_and_step, FREE_IMAGE),
    "dit": Entry(DiffusionTransformer, image_and_label, IMAGE),
    "real-nvp": Entry(RealNvp, noise, BATCH),
    "mlp-mixer": Entry(MlpMixer, image, IMAGE),
    "patch-transformer": Entry(PatchTransformer, image, IMAGE),
    "window-attention": Entry(WindowAttention, image, IMAGE),
    "n-beats": Entry(NBeats, series, BATCH),
    "d-linear": Entry(DLinear, many_series, BATCH),
    "times-net": Entry(TimesNetBlock, frames, TEXT),
    "slot-attention": Entry(SlotAttention, frames, TEXT),
    "hypernetwork": Entry(Hypernetwork, noise, BATCH),
}
