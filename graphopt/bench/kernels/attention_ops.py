"""Workloads around attention: attention itself, and the step that rotates and caches for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.bench.kernels.workloads import LIMITS, Array, Label, Step, Workload
from graphopt.kernels import reference, reference_ops
from graphopt.kernels.arguments import BF16, F32, AttentionArgs, RopeArgs
from graphopt.kernels.host_case import At, Case
from graphopt.kernels.scratch import attention_scratch_bytes


def _stored(scheme: str, x: Array) -> tuple[int, Array, Array]:
    """The element type of a scheme, the array in it, and the values that this leaves."""
    if scheme == "f32":
        return F32, x, x
    bits = reference.bf16_from_f32(x)
    return BF16, bits, reference.f32_from_bf16(bits)


@dataclass(frozen=True)
class Attention:
    """Attention of ``heads`` heads of ``dim`` over ``time`` steps, [time, heads, dim].

    Attributes:
        scheme: f32 or bf16.
        time: keys, and queries where nothing else is said.
        heads: of the queries.
        dim: of a head.
        queries: how many there are.
        kv_heads: heads of keys and values; as many as of queries if None.
        causal: the queries are the last steps and see no step behind their own.
    """

    scheme: str
    time: int
    heads: int
    dim: int
    queries: int | None = None
    kv_heads: int | None = None
    causal: bool = False

    @property
    def name(self) -> str:
        """Scheme and sizes."""
        queries = f"{self.queries}:" if self.queries else ""
        shared = f"/{self.kv_heads}" if self.kv_heads else ""
        sizes = f"{self.heads}{shared}x{self.dim} T={queries}{self.time}"
        return f"attention {self.scheme} {sizes}{' causal' * self.causal}"

    def build(self, arch: str, threads: int) -> Workload:
        """Random normal queries, keys and values, rounded to bf16 where the scheme says so."""
        rng = np.random.default_rng(0)
        queries, kv_heads = self.queries or self.time, self.kv_heads or self.heads
        shapes = [(queries, self.heads), *[(self.time, kv_heads)] * 2]
        stored, values = [], []
        for shape in shapes:
            x = rng.standard_normal((*shape, self.dim), dtype=np.float32)
            dtype, bits, rounded = _stored(self.scheme, x)
            stored.append(bits)
            values.append(rounded)
        q, k, v = (x[None] for x in values)
        q_stride, kv_stride = (
            (steps * heads * self.dim, heads * self.dim, self.dim) for steps, heads in shapes[:2]
        )
        args = AttentionArgs(
            batch=1,
            heads=self.heads,
            kv_heads=kv_heads,
            tq=queries,
            tk=self.time,
            dim=self.dim,
            dim_v=self.dim,
            scale=self.dim**-0.5,
            causal=self.causal,
            dtype=dtype,
            q_stride=q_stride,
            k_stride=kv_stride,
            v_stride=kv_stride,
            dst_stride=q_stride,
            dst_dtype=dtype,
        )
        scratch = attention_scratch_bytes(1, kv_heads, self.time, self.dim, self.dim, threads)
        pointers = dict(zip("qkv", stored, strict=True)) | {
            "dst": np.zeros_like(stored[0]),
            "scratch": np.zeros(scratch, np.uint8),
        }
        seen = np.arange(1, queries + 1) + self.time - queries
        pairs = int(seen.sum()) if self.causal else queries * self.time
        plain = self.queries is None and self.kv_heads is None and not self.causal
        op = "attention" if plain else "cached_attention"
        return Workload(
            Label(self.name, op, self.scheme, queries, self.time, self.dim),
            2 * self.heads * pairs * self.dim,
            sum(x.size for x in stored),
            None,
            Step("go_attention", Case(args, pointers, ("dst", "scratch"))),
            dict(zip("qkv", values, strict=True)),
            reference_ops.attention(q, k, v, self.dim**-0.5, causal=self.causal)[0],
            LIMITS[self.scheme],
        )


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of ``time`` new tokens, whose keys and values go to a cache.

    Attributes:
        scheme: f32 or bf16: of rotated queries and of the cache.
        time: tokens.
        heads: of the queries.
        kv_heads: of keys and values.
        dim: of a head.
    """

    scheme: str
    time: int
    heads: int
    kv_heads: int
    dim: int

    @property
    def name(self) -> str:
        """Scheme and sizes."""
        return f"rope {self.scheme} {self.time}x{self.heads}/{self.kv_heads}x{self.dim}"

    def build(self, arch: str, threads: int) -> Workload:
        """Random normal rows and angles."""
        rng = np.random.default_rng(0)
        half = self.dim // 2
        q, k, v = (
            rng.standard_normal((self.time, heads, self.dim), dtype=np.float32)
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        )
        angles = rng.standard_normal((self.time, 1, half), dtype=np.float32)
        cos, sin = np.cos(angles), np.sin(angles)
        wide, kept = ((x.shape[1] * self.dim, self.dim) for x in (q, k))
        args = RopeArgs(
            batch=1,
            time=self.time,
            heads=self.heads,
            kv_heads=self.kv_heads,
            dim=self.dim,
            q_stride=(q.size, *wide),
            k_stride=(k.size, *kept),
            v_stride=(k.size, *kept),
            dst_stride=(q.size, *wide),
            cache_stride=(k.size, *kept),
            dst_dtype=F32 if self.scheme == "f32" else BF16,
        )
        made = [np.zeros_like(_stored(self.scheme, x)[1]) for x in (q, k, v)]
        pointers: dict[str, Array | At] = {"q": q, "k": k, "v": v, "cos": cos, "sin": sin}
        pointers["position"] = np.zeros(1, np.int64)
        pointers |= dict(zip(("dst", "keys", "values"), made, strict=True))
        first, second = q[..., :half], q[..., half:]
        exact = np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
        return Workload(
            Label(self.name, "rope", self.scheme, self.time, self.heads, self.dim),
            0,
            q.size + k.size + v.size,
            None,
            Step("go_rope", Case(args, pointers, ("dst", "keys", "values"))),
            {"q": q, "k": k, "v": v},
            exact.astype(np.float64),
            LIMITS[self.scheme],
        )
