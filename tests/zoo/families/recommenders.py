"""Recommenders, Siamese networks and networks over tables and graphs, written in torch.nn."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from entry import TEXT, Entry
from torch import nn

Tensor = torch.Tensor
BATCH = ((4,), (7,))


def row(batch: int) -> tuple[Tensor]:
    return (torch.randn(batch, 12),)


def fields(batch: int) -> tuple[Tensor]:
    return (torch.randint(0, 20, (batch, 5)),)


def numbers_and_fields(batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 6), torch.randint(0, 20, (batch, 5))


def mlp(*widths: int) -> nn.Sequential:
    layers = [
        layer for inner, outer in pairwise(widths) for layer in (nn.Linear(inner, outer), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1])


class Dlrm(nn.Module):
    """Dot products of all pairs of embeddings, the lower triangle of them."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom, self.top = mlp(6, 16, 8), mlp(8 + 15, 16, 1)
        self.tables = nn.ModuleList(nn.EmbeddingBag(20, 8, mode="sum") for _ in range(5))
        rows, columns = torch.tril_indices(6, 6, -1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, numbers: Tensor, fields: Tensor) -> Tensor:
        dense = self.bottom(numbers)
        looked = [t(fields[:, i : i + 1]) for i, t in enumerate(self.tables)]
        all_of = torch.stack([dense, *looked], 1)
        products = torch.bmm(all_of, all_of.transpose(1, 2))[:, self.rows, self.columns]
        return torch.sigmoid(self.top(torch.cat([dense, products], 1)))


class DeepFm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(100, 1), nn.Embedding(100, 8)
        self.deep, self.bias = mlp(40, 16, 1), nn.Parameter(torch.zeros(1))
        self.register_buffer("offsets", torch.arange(0, 100, 20))

    def forward(self, fields: Tensor) -> Tensor:
        fields = fields + self.offsets
        x = self.second(fields)
        pairs = 0.5 * (x.sum(1).pow(2) - x.pow(2).sum(1)).sum(1, keepdim=True)
        y = self.first(fields).sum(1) + pairs + self.deep(x.flatten(1)) + self.bias
        return y.squeeze(1).sigmoid()


class CrossNetwork(nn.Module):
    """Deep and cross network, of the second version."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))
        self.deep, self.head = mlp(12, 16, 16), nn.Linear(28, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.cross:
            y = torch.addcmul(y, x, layer(y))
        return self.head(torch.cat([y, self.deep(x)], -1))


class WideAndDeep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep = nn.Linear(100, 1), mlp(46, 16, 1)
        self.tables = nn.ModuleList(nn.Embedding(20, 8) for _ in range(5))

    def forward(self, numbers: Tensor, fields: Tensor) -> Tensor:
        hot = F.one_hot(fields, 20).float().flatten(1)
        deep = torch.cat(
            [numbers, *(t(f) for t, f in zip(self.tables, fields.unbind(1), strict=True))], 1
        )
        return (self.wide(hot) + self.deep(deep)).sigmoid()


class TwoTowers(nn.Module):
    """Users and items, by cosine, over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = mlp(6, 16, 8), nn.EmbeddingBag(20, 8, mode="mean")

    def forward(self, numbers: Tensor, fields: Tensor) -> tuple[Tensor, Tensor]:
        user, item = F.normalize(self.user(numbers)), F.normalize(self.item(fields), p=2.0, dim=-1)
        return user @ item.T / 0.07, F.cosine_similarity(user, item)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = mlp(12, 16, 8)

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.tower(one), self.tower(two)
        return F.pairwise_distance(a, b), torch.cdist(a, b)


def two_rows(batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 12), torch.randn(batch, 12)


class InterestNetwork(nn.Module):
    """What a user clicked, weighted by the candidate (DIN)."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.score, self.head = nn.Embedding(50, 8), mlp(32, 16, 1), mlp(16, 8, 1)

    def forward(self, history: Tensor, candidate: Tensor) -> Tensor:
        h, c = self.items(history), self.items(candidate)
        q = c.unsqueeze(1).expand_as(h)
        scores = self.score(torch.cat([q, h, q - h, q * h], -1)).squeeze(-1)
        scores = scores.masked_fill(history == 0, -1e4).softmax(-1)
        return self.head(torch.cat([torch.matmul(scores.unsqueeze(1), h).squeeze(1), c], 1))


def history_and_candidate(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 50, (batch, length)), torch.randint(1, 50, (batch,))


class SasRec(nn.Module):
    """Self-attention over what was clicked; the best items."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.places = nn.Embedding(50, 16, 0), nn.Embedding(32, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16, eps=1e-8)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        x = self.items(history) * 4 + self.places(torch.arange(history.shape[1]))
        mask = ~torch.tril(torch.ones(history.shape[1], history.shape[1], dtype=torch.bool))
        x = self.norm(x + self.attention(x, x, x, attn_mask=mask, need_weights=False)[0])
        scores, best = (x[:, -1] @ self.items.weight.t()).topk(5)
        return scores, best


def history(batch: int, length: int) -> tuple[Tensor]:
    return (torch.randint(0, 50, (batch, length)),)


class Tabular(nn.Module):
    """FT-Transformer: numbers and categories as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 16)), nn.Parameter(torch.randn(6, 16))
        self.table, self.cls = nn.Embedding(100, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
        self.head = nn.Linear(16, 3)
        self.register_buffer("offsets", torch.arange(0, 100, 20))

    def forward(self, numbers: Tensor, fields: Tensor) -> Tensor:
        x = numbers.unsqueeze(-1) * self.weight + self.bias
        x = torch.cat([self.cls.repeat(x.shape[0], 1, 1), x, self.table(fields + self.offsets)], 1)
        return self.head(self.layer(x)[:, 0]).softmax(-1)


class SoftTree(nn.Module):
    """A differentiable decision tree: products of sigmoids along paths."""

    def __init__(self) -> None:
        super().__init__()
        self.splits, self.leaves = nn.Linear(12, 7), nn.Parameter(torch.randn(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        right = torch.sigmoid(self.splits(x))
        both, path, first = torch.stack([1 - right, right], 2), torch.ones_like(x[:, :1]), 0
        for depth in range(3):
            path = (path.unsqueeze(-1) * both[:, first : first + 2**depth]).flatten(1)
            first += 2**depth
        return path @ self.leaves


class AutoEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 8), nn.SELU(), nn.Linear(8, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 8), nn.Mish(), nn.Linear(8, 12))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.decoder(self.encoder(x))
        return y, F.mse_loss(y, x, reduction="none").mean(-1)


class GraphConvolution(nn.Module):
    """Two layers over an adjacency matrix, normalized by degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency + torch.eye(adjacency.shape[-1])
        degree = a.sum(-1).clamp(min=1).pow(-0.5)
        a = degree.unsqueeze(-1) * a * degree.unsqueeze(-2)
        return F.log_softmax(a @ self.two(F.relu(a @ self.one(x))), -1)


class GraphAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(16, 16, bias=False)
        self.left, self.right = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.value(x).view(*x.shape[:2], 4, 4)
        left, right = (h * self.left).sum(-1), (h * self.right).sum(-1)
        scores = F.leaky_relu(left.unsqueeze(2) + right.unsqueeze(1), 0.2)
        scores = torch.where(adjacency.unsqueeze(-1) > 0, scores, torch.full_like(scores, -9e15))
        y = torch.einsum("bijh,bjhd->bihd", F.softmax(scores, 2), h)
        return F.elu(y.flatten(2))


def nodes_and_edges(batch: int, nodes: int) -> tuple[Tensor, Tensor]:
    edges = (torch.rand(batch, nodes, nodes) < 0.4).float()
    return torch.randn(batch, nodes, 16), torch.maximum(edges, edges.transpose(1, 2))


class MessagePassing(nn.Module):
    """Sums over a list of edges (GIN), and the mean over nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(16, 16), mlp(16, 16, 8)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        messages = F.relu(self.message(x[source]))
        received = torch.zeros_like(x).index_add(0, target, messages)
        return self.update(1.1 * x + received).mean(0)


def nodes_and_edge_list(nodes: int, edges: int) -> tuple[Tensor, Tensor]:
    return torch.randn(nodes, 16), torch.randint(0, nodes, (2, edges))


class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Linear(16, 9)
        self.one, self.two = (
            nn.Conv1d(3, 16, 1),
            nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16)),
        )
        self.head = nn.Linear(16, 5)

    def forward(self, points: Tensor) -> Tensor:
        matrix = self.transform(F.relu(self.one(points)).max(2)[0]).view(-1, 3, 3) + torch.eye(3)
        x = self.two(torch.bmm(points.transpose(2, 1), matrix).transpose(2, 1))
        return self.head(torch.max(x, 2, keepdim=True)[0].view(-1, 16))


def points(batch: int, count: int) -> tuple[Tensor]:
    return (torch.randn(batch, 3, count),)


class Nerf(nn.Module):
    """A field by Fourier features, and a sum along rays."""

    def __init__(self) -> None:
        super().__init__()
        self.field = mlp(24, 32, 4)
        self.register_buffer("bands", 2.0 ** torch.arange(4))

    def forward(self, places: Tensor, steps: Tensor) -> Tensor:
        angles = (places.unsqueeze(-1) * self.bands).flatten(-2)
        out = self.field(torch.cat([torch.sin(angles), torch.cos(angles)], -1))
        alpha = 1 - torch.exp(-F.softplus(out[..., 3]) * steps)
        through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], 1), 1)
        return (out[..., :3].sigmoid() * (alpha * through[:, :-1]).unsqueeze(-1)).sum(1)


def rays(batch: int, samples: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, samples, 3), torch.rand(batch, samples)


EDGES = ((6, 10), (9, 14))

MODELS = {
    "dlrm": Entry(Dlrm, numbers_and_fields, BATCH),
    "deepfm": Entry(DeepFm, fields, BATCH),
    "dcn-v2": Entry(CrossNetwork, row, BATCH),
    "wide-and-deep": Entry(WideAndDeep, numbers_and_fields, BATCH),
    "two-towers": Entry(TwoTowers, numbers_and_fields, BATCH),
    "siamese": Entry(Siamese, two_rows, BATCH),
    "din": Entry(InterestNetwork, history_and_candidate, TEXT),
    "sasrec": Entry(SasRec, history, TEXT),
    "ft-transformer": Entry(Tabular, numbers_and_fields, BATCH),
    "soft-tree": Entry(SoftTree, row, BATCH),
    "autoencoder": Entry(AutoEncoder, row, BATCH),
    "gcn": Entry(GraphConvolution, nodes_and_edges, TEXT),
    "gat": Entry(GraphAttention, nodes_and_edges, TEXT),
    "gin-edge-list": Entry(MessagePassing, nodes_and_edge_list, EDGES),
    "pointnet": Entry(PointNet, points, TEXT),
    "nerf": Entry(Nerf, rays, TEXT),
}
