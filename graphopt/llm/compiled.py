"""From the weights of a decoder to something that runs."""

from __future__ import annotations

from graphopt.config import Config
from graphopt.dtype import DType
from graphopt.llm.decoder import DecoderWeights, decoder_graph
from graphopt.llm.engine import CacheShape, Engine
from graphopt.pipeline import PassManager, lowering_passes
from graphopt.program import Program
from graphopt.target import Target


def compile_decoder(
    weights: DecoderWeights,
    target: Target,
    precision: str,
    threads: int | None,
    group: int = 32,
    terms: int = 1,
) -> tuple[Program, Engine]:
    """Plans a decoder; it is built when it first runs.

    Args:
        weights: all of it.
        target: what to compile for.
        precision: one of `graphopt.target.PRECISIONS`; the cache is f32 for `fp32`, else bf16.
        threads: of a run; all CPUs of the process if None.
        group: int4 weights that share a scale; 0 for a scale per channel.
        terms: int8 rows per activation, 1 or 2; with 2 the embedding is kept in bf16, and the
            head of weights that come quantized exactly.

    Raises:
        GroupSizeError: if `group` does not divide a depth.
    """
    config = Config.from_environment()
    manager = PassManager(config)
    cache = DType.F32 if precision == "fp32" else DType.BF16
    int8_head = terms == 1 and ("int4" in precision or "int8" in precision)
    graph = decoder_graph(weights, cache, "int4" in precision, int8_head)
    manager.run(graph, lowering_passes())
    program = Program(graph, target, precision, threads, config, manager, group, terms)
    program.plan()
    shape = weights.shape
    rows = CacheShape(cache, len(weights.layers), shape.kv_heads, shape.head_dim, shape.context)
    return program, Engine(program.run, shape.vocabulary, rows)
