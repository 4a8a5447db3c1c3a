"""Networks over time: recurrent, dilated, attending; written in torch.nn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from entry import TEXT, Entry
from torch import nn
from torch.nn.utils import parametrizations

Tensor = torch.Tensor


def frames(batch: int, length: int) -> tuple[Tensor]:
    return (torch.randn(batch, length, 16),)


def channels(batch: int, length: int) -> tuple[Tensor]:
    return (torch.randn(batch, 16, length),)


def tokens(batch: int, length: int) -> tuple[Tensor]:
    return (torch.randint(0, 50, (batch, length)),)


def frames_and_lengths(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, length, 16), torch.randint(1, length + 1, (batch,))


class Recurrent(nn.Module):
    """A recurrent layer and a head over every frame."""

    def __init__(self, rnn: nn.Module, width: int) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.head(self.rnn(x)[0]), -1)


class LstmClassifier(nn.Module):
    """An embedding, an LSTM in both directions, and its last states."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, 12, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(24, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embedding(tokens))
        return self.head(torch.cat([hidden[-2], hidden[-1]], 1))


class LstmWithStates(nn.Module):
    """A language model's step: states come in and go out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(50, 16), nn.LSTM(16, 16, 2)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, states = self.lstm(self.embedding(tokens.t()), (h, c))
        return self.head(y), states


def lstm_states(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    states = torch.randn(2, batch, 16), torch.randn(2, batch, 16)
    return torch.randint(0, 50, (batch, length)), *states


class GruCellDecoder(nn.Module):
    """Five steps of a decoder that attends to what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.cell = nn.GRU(16, 16, batch_first=True), nn.GRUCell(32, 16)
        self.query, self.head = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        read, state = self.encoder(x)
        state, last, steps = state[0], torch.zeros_like(x[:, 0]), []
        for _ in range(5):
            weights = torch.bmm(read, self.query(state).unsqueeze(2)).squeeze(2).softmax(1)
            context = torch.bmm(weights.unsqueeze(1), read).squeeze(1)
            state = self.cell(torch.cat([last, context], 1), state)
            last = torch.tanh(self.head(state))
            steps.append(last)
        return torch.stack(steps, 1)


class PointerNet(nn.Module):
    """Which input comes next, by additive attention; inputs that were taken are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.cell = nn.LSTM(16, 12, batch_first=True), nn.LSTMCell(16, 12)
        self.left, self.right, self.out = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        read, (h, c) = self.encoder(x)
        h, c, chosen, taken = h[0], c[0], x[:, 0], torch.zeros_like(x[..., 0])
        picks = []
        for _ in range(3):
            h, c = self.cell(chosen, (h, c))
            scores = self.out(torch.tanh(self.left(read) + self.right(h)[:, None])).squeeze(-1)
            scores = scores.masked_fill(taken > 0, float("-inf"))
            pick = scores.argmax(1)
            taken = taken.scatter(1, pick.unsqueeze(1), 1.0)
            chosen = x[torch.arange(x.shape[0]), pick]
            picks.append(scores.softmax(1))
        return torch.stack(picks, 1)


class BiLstmCtc(nn.Module):
    """Convolutions over an image of text, its columns through LSTMs (CRNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            nn.Conv2d(16, 16, (4, 2)),
        )
        self.lstm, self.head = nn.LSTM(16, 8, bidirectional=True), nn.Linear(16, 20)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).squeeze(2).permute(2, 0, 1)
        return F.log_softmax(self.head(self.lstm(y)[0]), 2)


def text_image(batch: int, width: int) -> tuple[Tensor]:
    return (torch.randn(batch, 1, 16, width),)


class TemporalBlock(nn.Module):
    """Two causal dilated convolutions with normalized weights (TCN)."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.one, self.two = (
            parametrizations.weight_norm(nn.Conv1d(16, 16, 3, padding=self.pad, dilation=dilation))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x)[:, :, : -self.pad])
        y = F.relu(self.two(y)[:, :, : -self.pad].contiguous())
        return F.relu(x + y)


class WaveNet(nn.Module):
    """Gated dilated convolutions with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 16, 1)
        self.layers = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 16, 1), nn.ReLU(), nn.Conv1d(16, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), torch.zeros(())
        for i, (layer, skip) in enumerate(zip(self.layers, self.skips, strict=True)):
            filtered, gate = layer(F.pad(x, (2**i, 0))).chunk(2, 1)
            y = skip(torch.tanh(filtered) * torch.sigmoid(gate))
            total, x = total + y, x + y
        return self.head(total)


def wave(batch: int, samples: int) -> tuple[Tensor]:
    return (torch.randn(batch, 1, samples),)


class QuasiRecurrent(nn.Module):
    """A leaky sum over time, as cumulative sums in log space (minGRU)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        log_z, log_keep = -F.softplus(-gate), -F.softplus(gate)
        log_value = torch.where(x >= 0, (F.relu(x) + 0.5).log(), -F.softplus(-x))
        a = F.pad(torch.cumsum(log_keep, 1), (0, 0, 1, 0))[:, 1:]
        return torch.exp(a + torch.logcumsumexp(log_z + log_value - a, dim=1))


class TransformerTagger(nn.Module):
    """nn.TransformerEncoder with a mask of padding, and sines for places."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 6)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        angles = places[:, None] * torch.exp(torch.arange(0, 16, 2) * -0.5)
        x = x + torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        padding = places[None, :] >= lengths[:, None]
        return self.head(self.encoder(x, src_key_padding_mask=padding))


class Seq2Seq(nn.Module):
    """nn.Transformer with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(50, 16), nn.Embedding(50, 16)
        self.transformer = nn.Transformer(16, 4, 1, 1, 32, batch_first=True)
        self.head = nn.Linear(16, 50)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        y = self.transformer(
            self.source(source), self.target(target), tgt_mask=mask, tgt_is_causal=True
        )
        return self.head(y)


def two_texts(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 50, (batch, length)), torch.randint(0, 50, (batch, length - 2))


class AttentivePooling(nn.Module):
    """Weighted mean and deviation over time (ECAPA-TDNN's end)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv1d(16, 16, 5, padding=2, dilation=1)
        self.attention = nn.Sequential(nn.Conv1d(48, 8, 1), nn.Tanh(), nn.Conv1d(8, 16, 1))
        self.head = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.body(x))
        mean, std = x.mean(2, keepdim=True), torch.sqrt(x.var(2, keepdim=True).clamp(min=1e-4))
        wide = torch.cat((x, mean.repeat(1, 1, x.shape[-1]), std.expand(-1, -1, x.size(-1))), 1)
        w = torch.softmax(self.attention(wide), 2)
        mu = torch.sum(x * w, 2)
        sigma = torch.sqrt((torch.sum((x**2) * w, 2) - mu**2).clamp(min=1e-4))
        return F.normalize(self.head(torch.cat((mu, sigma), 1)), dim=1)


class CrfScores(nn.Module):
    """The partition function of a linear chain, and its best labels."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.moves = nn.Linear(16, 5), nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(x)
        alpha = best = scores[:, 0]
        back = []
        for step in range(1, 6):
            alpha = torch.logsumexp(alpha[:, :, None] + self.moves, 1) + scores[:, step]
            best, which = torch.max(best.unsqueeze(2) + self.moves, 1)
            best = best + scores[:, step]
            back.append(which)
        label = best.argmax(1)
        labels = [label]
        for which in reversed(back):
            label = which.gather(1, label[:, None])[:, 0]
            labels.append(label)
        return alpha.logsumexp(1), torch.stack(labels[::-1], 1)


class TextCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 8, k) for k in (2, 3, 4))
        self.head = nn.Linear(24, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).transpose(1, 2)
        return self.head(torch.cat([F.relu(c(x)).max(dim=2).values for c in self.convs], 1))


class CharWordTagger(nn.Module):
    """Words from characters: a convolution per word, then LSTMs."""

    def __init__(self) -> None:
        super().__init__()
        self.chars, self.conv = nn.Embedding(40, 8), nn.Conv1d(8, 12, 3, padding=1)
        self.lstm = nn.LSTM(12, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 5)

    def forward(self, chars: Tensor) -> Tensor:
        batch, words, letters = chars.shape
        x = self.chars(chars).view(batch * words, letters, 8).transpose(1, 2)
        x = F.adaptive_max_pool1d(torch.relu(self.conv(x)), 1).view(batch, words, 12)
        return self.head(self.lstm(x)[0]).argmax(-1)


def characters(batch: int, words: int) -> tuple[Tensor]:
    return (torch.randint(0, 40, (batch, words, 6)),)


class PackedLstm(nn.Module):
    """Padded sequences: states stop at each length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, y.size(2))
        return self.head(y.gather(1, last).squeeze(1))


class TdnnF(nn.Module):
    """Splicing of frames by unfold, and half-steps."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(48, 8, bias=False), nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        spliced = x.unfold(1, 3, 1).flatten(2)
        y = self.norm(F.relu(self.up(self.down(spliced))).transpose(1, 2)).transpose(1, 2)
        return y + 0.66 * x[:, 1:-1]


class LinearAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (4, 4)) for t in self.qkv(x).chunk(3, -1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        kv = torch.einsum("bthd,bthe->bhde", k, v)
        norm = torch.einsum("bthd,bhd->bth", q, k.sum(1)).reciprocal()
        return self.out(torch.einsum("bthd,bhde,bth->bthe", q, kv, norm).flatten(2))


class Retention(nn.Module):
    """RetNet's parallel form: decay by distance, a norm per head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm = nn.Linear(16, 48), nn.GroupNorm(4, 16)
        self.gate = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (t.view(batch, length, 4, 4).transpose(1, 2) for t in self.qkv(x).split(16, -1))
        place = torch.arange(length)
        gap = place[:, None] - place[None]
        decay = torch.where(gap >= 0, 0.9 ** gap.clamp(min=0).float(), 0.0)
        y = (q @ k.mT * decay) @ v
        y = self.norm(y.transpose(1, 2).reshape(-1, 16)).view(batch, length, 16)
        return F.silu(self.gate(x)) * y


class StateSpace(nn.Module):
    """A diagonal state space as a long convolution (S4D), by FFT."""

    def __init__(self) -> None:
        super().__init__()
        self.log_dt, self.decay = nn.Parameter(torch.rand(16)), nn.Parameter(torch.rand(16, 4))
        self.mix, self.skip = nn.Parameter(torch.randn(16, 4)), nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        a = -torch.exp(self.decay) * torch.exp(self.log_dt)[:, None]
        kernel = torch.einsum(
            "hn,hnl->hl", self.mix, torch.exp(a[..., None] * torch.arange(length))
        )
        spectrum = torch.fft.rfft(kernel, n=2 * length) * torch.fft.rfft(x, n=2 * length)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length] + x * self.skip[:, None]


class RelativeAttention(nn.Module):
    """Transformer-XL's shift by padding and reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.places = nn.Linear(16, 48), nn.Linear(16, 16)
        self.u, self.v = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 4, 4).unbind(2)
        angles = torch.outer(torch.arange(length - 1, -1, -1.0), 0.1 ** torch.arange(8))
        r = self.places(torch.cat([angles.sin(), angles.cos()], -1)).view(length, 4, 4)
        content = torch.einsum("bihd,bjhd->bhij", q + self.u, k)
        place = torch.einsum("bihd,jhd->bhij", q + self.v, r)
        place = F.pad(place, (1, 0)).view(batch, 4, length + 1, length)[:, :, 1:].view_as(place)
        scores = (content + place) / 2
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -1e9)
        return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(batch, length, 16)


class MixtureOfExperts(nn.Module):
    """Two of four experts for each frame, all of them computed."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.up, self.down = (
            nn.Parameter(torch.randn(4, 16, 32)),
            nn.Parameter(torch.randn(4, 32, 16)),
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = torch.topk(self.router(x).softmax(-1), 2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        gates = (F.one_hot(chosen, 4) * weights.unsqueeze(-1)).sum(-2)
        y = torch.einsum("btd,edf->btef", x, self.up).relu()
        return torch.einsum("btef,efd,bte->btd", y, self.down, gates)


MODELS = {
    "lstm": Entry(lambda: Recurrent(nn.LSTM(16, 12, 2, batch_first=True), 12), frames, TEXT),
    "bilstm": Entry(
        lambda: Recurrent(nn.LSTM(16, 12, 2, batch_first=True, bidirectional=True), 24),
        frames,
        TEXT,
    ),
    "lstm-projected": Entry(
        lambda: Recurrent(nn.LSTM(16, 12, batch_first=True, proj_size=8), 8), frames, TEXT
    ),
    "gru": Entry(lambda: Recurrent(nn.GRU(16, 12, 2, batch_first=True), 12), frames, TEXT),
    "bigru": Entry(lambda: Recurrent(nn.GRU(16, 12, bidirectional=True), 24), frames, TEXT),
    "rnn": Entry(lambda: Recurrent(nn.RNN(16, 12, nonlinearity="relu"), 12), frames, TEXT),
    "lstm-classifier": Entry(LstmClassifier, tokens, TEXT),
    "lstm-states": Entry(LstmWithStates, lstm_states, TEXT),
    "gru-cell-decoder": Entry(GruCellDecoder, frames, TEXT),
    "pointer-net": Entry(PointerNet, frames, TEXT),
    "bilstm-ctc": Entry(BiLstmCtc, text_image, ((2, 32), (3, 48))),
    "lstm-lengths": Entry(PackedLstm, frames_and_lengths, TEXT),
    "tcn": Entry(
        lambda: nn.Sequential(TemporalBlock(1), TemporalBlock(2), nn.Conv1d(16, 4, 1)),
        channels,
        TEXT,
    ),
    "wavenet": Entry(WaveNet, wave, ((2, 40), (3, 64))),
    "min-gru": Entry(QuasiRecurrent, frames, TEXT),
    "transformer-tagger": Entry(TransformerTagger, frames_and_lengths, TEXT),
    "seq2seq-transformer": Entry(Seq2Seq, two_texts, TEXT),
    "attentive-pooling": Entry(AttentivePooling, channels, TEXT),
    "crf": Entry(CrfScores, frames, TEXT),
    "text-cnn": Entry(TextCnn, tokens, TEXT),
    "char-word-tagger": Entry(CharWordTagger, characters, TEXT),
    "tdnn-f": Entry(TdnnF, frames, TEXT),
    "linear-attention": Entry(LinearAttention, frames, TEXT),
    "retention": Entry(Retention, frames, TEXT),
    "s4d": Entry(StateSpace, channels, TEXT),
    "transformer-xl-attention": Entry(RelativeAttention, frames, TEXT),
    "dense-moe": Entry(MixtureOfExperts, frames, TEXT),
}
