"""From the weights of a decoder to something that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphopt.config import Config
from graphopt.dtype import DType
from graphopt.errors import UnknownPrecisionError
from graphopt.llm.cache import CacheShape
from graphopt.llm.calibration import calibration_inputs
from graphopt.llm.decoder import DecoderWeights, decoder_graph
from graphopt.llm.engine import Engine
from graphopt.passes.rounding import Rounding
from graphopt.pipeline import PassManager, lowering_passes
from graphopt.program import Program
from graphopt.target import Target

#: Names of what keys and values are kept as; int8 has a scale per token and head.
KV_CACHES = {"f32": DType.F32, "bf16": DType.BF16, "int8": DType.I8}
#: Names of what the head and the embedding are kept as beside int4 weights.
HEADS = ("auto", "int8", "int4", "exact")


def compile_decoder(
    weights: DecoderWeights,
    target: Target,
    precision: str,
    threads: int | None,
    group: int = 32,
    terms: int = 1,
    kv_cache: str | None = None,
    head: str = "auto",
    rounding: str = "nearest",
    calibration: Sequence[Any] | None = None,
) -> tuple[Program, Engine]:
    """Plans a decoder; it is built when it first runs.

    Args:
        weights: all of it.
        target: what to compile for.
        precision: one of `graphopt.target.PRECISIONS`.
        threads: of a run; all CPUs of the process if None.
        group: int4 weights that share a scale; 0 for a scale per channel.
        terms: int8 rows per activation, 1 or 2.
        kv_cache: how keys and values are kept, one of `KV_CACHES`; f32 if None and `precision` is
            `fp32`, else bf16.
        head: how head and embedding are kept where weights are narrow, one of `HEADS`: rows of
            int8, or int4 with the scales of the other weights (an embedding that is not tied to
            the head stays int8). `exact` keeps what int8 leaves of the head in another matrix of
            int4, and the embedding in bf16. `auto` is `exact` for `int4` with two terms, else int8.
        rounding: how weights become int4, one of `graphopt.passes.rounding.METHODS`.
        calibration: arrays of tokens that rounding looks at; `gptq` needs them.

    Raises:
        GroupSizeError: if `group` does not divide a depth.
        UnknownPrecisionError: for a `kv_cache`, `head` or `rounding` that there is not.
        CalibrationError: for calibration that is missing or makes no sense.
    """
    config = Config.from_environment()
    manager = PassManager(config)
    cache = _cache_type(kv_cache, precision)
    kept = _head(head, precision, terms)
    graph = decoder_graph(weights, cache, "int4" in precision, kept, precision != "fp32")
    manager.run(graph, lowering_passes())
    inputs = None
    if calibration is not None:
        inputs = calibration_inputs(graph, calibration, weights.shape.vocabulary)
    chosen = Rounding(rounding, inputs, kept == "int4")
    program = Program(graph, target, precision, threads, config, manager, group, terms, chosen)
    program.plan()
    shape = weights.shape
    rows = CacheShape(cache, len(weights.layers), shape.kv_heads, shape.head_dim, shape.context)
    return program, Engine(program.run, shape.vocabulary, rows)


def _head(head: str, precision: str, terms: int) -> str:
    """What `decoder_graph` calls it."""
    if head not in HEADS:
        raise UnknownPrecisionError(f"head={head}", HEADS)
    if "int4" not in precision:
        only = "int8" if "int8" in precision else "float"
        if head not in ("auto", only):
            raise UnknownPrecisionError(f"head={head} beside {precision}", ("auto", only))
        return only
    if head == "auto":
        return "exact" if terms == 2 else "int8"
    return head


def _cache_type(kv_cache: str | None, precision: str) -> DType:
    if kv_cache is None:
        return DType.F32 if precision == "fp32" else DType.BF16
    if kv_cache not in KV_CACHES:
        raise UnknownPrecisionError(f"kv_cache={kv_cache}", KV_CACHES)
    return KV_CACHES[kv_cache]
