"""Small torch models that tests optimize, each with one trait."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def network(width: int = 48, seed: int = 0) -> nn.Module:
    """f32[B, T, width] -> f32[B, T, 24]."""
    torch.manual_seed(seed)
    layers = [nn.Linear(width, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 24)]
    return nn.Sequential(*layers).eval()


class Nested(nn.Module):
    """Takes nested arguments and a constant; returns a nested result with a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 16)

    def forward(
        self,
        pair: tuple[torch.Tensor, dict[str, torch.Tensor]],
        bias: torch.Tensor | None = None,
        *,
        scale: float = 1.0,
    ) -> Any:
        x, named = pair
        y = self.linear(x) * scale + named["add"]
        if bias is not None:
            y = y + bias
        return {"sum": y, "parts": [named["add"] * 2, (named["count"] + 1,)], "kind": "linear"}


def nested_arguments(batch: int = 2) -> tuple[Any, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    x, add, bias = (torch.randn(batch, 3, 16, generator=generator) for _ in range(3))
    return (x, {"add": add, "count": torch.arange(batch)}), bias


class Caching(nn.Module):
    """Keeps the last frames of its input in a dict of its argument, and counts in a list there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, cache: dict[str, Any]) -> torch.Tensor:
        joined = torch.cat([cache["past"], x], 1)
        cache["past"] = joined[:, -2:]
        cache["seen"][0] = cache["seen"][0] + x[:, :, 0].sum()
        cache["input"] = x
        return self.linear(joined)


def empty_cache(batch: int = 1) -> dict[str, Any]:
    return {"past": torch.zeros(batch, 2, 8), "seen": [torch.zeros(())], "kept": torch.ones(1)}


class Partly(nn.Module):
    """special.i0e stays in torch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0e(self.linear(x)).relu() + self.linear(x)


class Lookup(nn.Module):
    """i64[B, T] -> f32[B, T, 8]; indices 0 to 9."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 8)
        self.linear = nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.linear(self.table(tokens))
