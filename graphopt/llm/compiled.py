"""From the weights of a decoder to something that runs."""

from __future__ import annotations

from graphopt.config import Config
from graphopt.dtype import DType
from graphopt.errors import UnknownPrecisionError
from graphopt.llm.cache import CacheShape
from graphopt.llm.decoder import DecoderWeights, decoder_graph
from graphopt.llm.engine import Engine
from graphopt.pipeline import PassManager, lowering_passes
from graphopt.program import Program
from graphopt.target import Target

#: Names of what keys and values are kept as; int8 has a scale per token and head.
KV_CACHES = {"f32": DType.F32, "bf16": DType.BF16, "int8": DType.I8}


def compile_decoder(
    weights: DecoderWeights,
    target: Target,
    precision: str,
    threads: int | None,
    group: int = 32,
    terms: int = 1,
    kv_cache: str | None = None,
) -> tuple[Program, Engine]:
    """Plans a decoder; it is built when it first runs.

    Args:
        weights: all of it.
        target: what to compile for.
        precision: one of `graphopt.target.PRECISIONS`.
        threads: of a run; all CPUs of the process if None.
        group: int4 weights that share a scale; 0 for a scale per channel.
        terms: int8 rows per activation, 1 or 2; with 2 the embedding is kept in bf16, and the
            head of weights that come quantized exactly.
        kv_cache: how keys and values are kept, one of `KV_CACHES`; f32 if None and `precision` is
            `fp32`, else bf16.

    Raises:
        GroupSizeError: if `group` does not divide a depth.
        UnknownPrecisionError: for a `kv_cache` that there is not.
    """
    config = Config.from_environment()
    manager = PassManager(config)
    cache = _cache_type(kv_cache, precision)
    int8_head = terms == 1 and ("int4" in precision or "int8" in precision)
    narrow = precision != "fp32"
    graph = decoder_graph(weights, cache, "int4" in precision, int8_head, narrow)
    manager.run(graph, lowering_passes())
    program = Program(graph, target, precision, threads, config, manager, group, terms)
    program.plan()
    shape = weights.shape
    rows = CacheShape(cache, len(weights.layers), shape.kv_heads, shape.head_dim, shape.context)
    return program, Engine(program.run, shape.vocabulary, rows)


def _cache_type(kv_cache: str | None, precision: str) -> DType:
    if kv_cache is None:
        return DType.F32 if precision == "fp32" else DType.BF16
    if kv_cache not in KV_CACHES:
        raise UnknownPrecisionError(f"kv_cache={kv_cache}", KV_CACHES)
    return KV_CACHES[kv_cache]
