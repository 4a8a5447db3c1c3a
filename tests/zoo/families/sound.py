"""Vocoders, codecs, enhancement and features of sound, written in torch.nn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from entry import TEXT, Entry
from families.sequences import wave
from torch import nn
from torch.nn.utils import parametrizations

Tensor = torch.Tensor
WAVE = ((2, 256), (3, 320))


def signal(batch: int, samples: int) -> tuple[Tensor]:
    return (torch.randn(batch, samples),)


def mel(batch: int, frames: int) -> tuple[Tensor]:
    return (torch.randn(batch, 16, frames),)


class HifiGan(nn.Module):
    """Transposed convolutions and residual dilated ones, with normalized weights."""

    def __init__(self) -> None:
        super().__init__()
        norm = parametrizations.weight_norm
        self.first = norm(nn.Conv1d(16, 16, 7, padding=3))
        self.up = nn.ModuleList(
            norm(nn.ConvTranspose1d(16 // 2**i, 8 // 2**i, 8, 4, padding=2)) for i in range(2)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(norm(nn.Conv1d(w, w, 3, padding=d, dilation=d)) for d in (1, 3))
            for w in (8, 4)
        )
        self.last = norm(nn.Conv1d(4, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for up, block in zip(self.up, self.blocks, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            for conv in block:
                x = x + conv(F.leaky_relu(x, 0.1))
        return torch.tanh(self.last(F.leaky_relu(x)))


class Snake(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)


class CodecWithCodebook(nn.Module):
    """Strided convolutions, the nearest code of two codebooks in turn, and back (DAC)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, 8, 7, padding=3), Snake(8), nn.Conv1d(8, 16, 8, 4, padding=2)
        )
        self.codebooks = nn.Parameter(torch.randn(2, 32, 16))
        self.decoder = nn.Sequential(
            nn.ConvTranspose1d(16, 8, 8, 4, padding=2), Snake(8), nn.Conv1d(8, 1, 7, padding=3)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rest = self.encoder(x).transpose(1, 2)
        total, codes = torch.zeros_like(rest), []
        for book in self.codebooks:
            gaps = rest.pow(2).sum(-1, keepdim=True) - 2 * rest @ book.t() + book.pow(2).sum(-1)
            code = gaps.argmin(-1)
            chosen = F.embedding(code, book)
            rest, total = rest - chosen, total + chosen
            codes.append(code)
        return self.decoder(total.transpose(1, 2)), torch.stack(codes, 1)


class ConvTasNet(nn.Module):
    """Masks on a learned basis, global norms, overlapping frames back by transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (
            nn.Conv1d(1, 16, 16, 8, bias=False),
            nn.ConvTranspose1d(16, 1, 16, 8),
        )
        self.norm, self.act = nn.GroupNorm(1, 16, eps=1e-8), nn.PReLU()
        self.body = nn.Sequential(
            nn.Conv1d(16, 16, 3, padding=2, dilation=2, groups=16),
            nn.PReLU(16),
            nn.Conv1d(16, 32, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        coded = self.encoder(x)
        masks = torch.sigmoid(self.body(self.act(self.norm(coded)))).view(x.shape[0], 2, 16, -1)
        made = (masks * coded.unsqueeze(1)).view(x.shape[0] * 2, 16, -1)
        return self.decoder(made).view(x.shape[0], 2, -1)


class Demucs(nn.Module):
    """A U-Net over samples with gated units and an LSTM in its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv1d(1, 8, 8, 4, padding=2)
        self.gate, self.ungate = nn.Conv1d(8, 16, 1), nn.Conv1d(8, 16, 1)
        self.lstm, self.linear = nn.LSTM(8, 8, bidirectional=True), nn.Linear(16, 8)
        self.up = nn.ConvTranspose1d(8, 1, 8, 4, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.std(dim=-1, keepdim=True) + 1e-3
        skip = F.glu(self.gate(F.gelu(self.down(x / scale))), dim=1)
        y = self.linear(self.lstm(skip.permute(2, 0, 1))[0]).permute(1, 2, 0)
        return self.up(F.glu(self.ungate(y + skip), 1)) * scale


class LogMel(nn.Module):
    """Framed samples, a Fourier transform as a real matrix, mel filters, logarithm, mean."""

    def __init__(self) -> None:
        super().__init__()
        n = torch.arange(64)
        angles = 2 * torch.pi * n[:, None] * torch.arange(33) / 64
        window = torch.hann_window(64)[:, None]
        self.register_buffer("basis", torch.cat([angles.cos() * window, angles.sin() * window], 1))
        self.register_buffer("filters", torch.rand(33, 16))

    def forward(self, x: Tensor) -> Tensor:
        frames = F.pad(x.unsqueeze(1), (32, 32), mode="reflect").squeeze(1).unfold(-1, 64, 16)
        real, imaginary = (frames @ self.basis).chunk(2, -1)
        energy = (real.square() + imaginary.square()) @ self.filters
        logs = torch.log10(torch.clamp(energy, min=1e-10))
        logs = torch.maximum(logs, logs.amax((1, 2), keepdim=True) - 8.0)
        return (logs + 4.0) / 4.0


class StftMask(nn.Module):
    """torch.stft, a mask on its magnitude, and torch.istft."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.mask = nn.Sequential(nn.Linear(33, 33), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 64, 16, window=self.window, return_complex=True)
        mask = self.mask(spectrum.abs().transpose(1, 2)).transpose(1, 2)
        return torch.istft(spectrum * mask, 64, 16, window=self.window, length=x.shape[-1])


class SpectrogramCnn(nn.Module):
    """A spectrogram in decibels, batch norm, convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.body = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 8, 3, 2), nn.ELU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(
            x, 64, 16, window=self.window, center=True, return_complex=True, pad_mode="reflect"
        )
        power = torch.view_as_real(spectrum).pow(2).sum(-1)
        return self.head(self.body(10 * power.clamp(min=1e-5).log10().unsqueeze(1)).mean((2, 3)))


class Vocos(nn.Module):
    """ConvNeXt blocks over frames, then a spectrum by magnitude and phase to samples."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.depthwise = (
            nn.Conv1d(16, 16, 7, padding=3),
            nn.Conv1d(16, 16, 7, padding=3, groups=16),
        )
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 66)
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.gelu(self.up(self.norm(self.depthwise(x).mT)))).mT
        magnitude, phase = self.head(x.transpose(1, 2)).transpose(1, 2).chunk(2, 1)
        spectrum = torch.exp(magnitude).clip(max=1e2) * (torch.cos(phase) + 1j * torch.sin(phase))
        return torch.istft(spectrum, 64, 16, 64, self.window, center=True)


class SincNet(nn.Module):
    """Band-pass filters of which the edges are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.band = nn.Parameter(torch.rand(8, 1)), nn.Parameter(torch.rand(8, 1))
        self.register_buffer("n", torch.arange(-16, 0).float()[None] / 32)
        self.register_buffer("window", torch.hamming_window(16)[None])

    def forward(self, x: Tensor) -> Tensor:
        low = 1 + torch.abs(self.low)
        high = torch.clamp(low + 1 + torch.abs(self.band), 1, 8)
        left = (torch.sin(high * self.n) - torch.sin(low * self.n)) / (self.n / 2) * self.window
        filters = torch.cat([left, 2 * (high - low), torch.flip(left, dims=[1])], 1)
        y = F.conv1d(x, (filters / (2 * (high - low))).view(8, 1, 33), stride=2)
        return torch.abs(F.max_pool1d(y, 3))


class SileroStyle(nn.Module):
    """Voice activity: strided convolutions, an LSTM cell with states as inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 8, 64, 16), nn.ReLU(), nn.Conv1d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.cell, self.head = nn.LSTMCell(16, 16), nn.Conv1d(16, 1, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, c = self.cell(self.body(x).mean(-1), (h, c))
        return self.head(F.relu(h).unsqueeze(-1)).sigmoid().squeeze(-1), h, c


def chunk_and_states(batch: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(batch, 1, samples), torch.randn(batch, 16), torch.randn(batch, 16)


class LengthRegulator(nn.Module):
    """FastSpeech: tokens repeated by given durations, as a product with an alignment."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.pitch = nn.Embedding(40, 16), nn.Conv1d(16, 1, 3, padding=1)
        self.head = nn.Linear(16, 8)

    def forward(self, tokens: Tensor, durations: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x * (1 + self.pitch(x.transpose(1, 2)).transpose(1, 2))
        ends = durations.cumsum(1)
        frame = torch.arange(24)
        path = (frame[None, None] < ends[:, :, None]) & (frame >= (ends - durations).unsqueeze(-1))
        return self.head(path.float().transpose(1, 2) @ x)


def text_and_durations(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 40, (batch, length)), torch.randint(0, 3, (batch, length))


MODELS = {
    "hifi-gan": Entry(HifiGan, mel, TEXT),
    "codec": Entry(CodecWithCodebook, wave, WAVE),
    "conv-tasnet": Entry(ConvTasNet, wave, WAVE),
    "demucs": Entry(Demucs, wave, WAVE),
    "log-mel": Entry(LogMel, signal, WAVE),
    "stft-mask": Entry(StftMask, signal, WAVE),
    "spectrogram-cnn": Entry(SpectrogramCnn, signal, WAVE),
    "vocos": Entry(Vocos, mel, TEXT),
    "sincnet": Entry(SincNet, wave, WAVE),
    "silero-style": Entry(SileroStyle, chunk_and_states, ((2, 256), (3, 256))),
    "length-regulator": Entry(LengthRegulator, text_and_durations, TEXT),
}
