"""From the weights of a decoder to something that runs."""

from __future__ import annotations

from graphopt.compiler.options import Options
from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.compiler.program import Program
from graphopt.compiler.report import node_reports
from graphopt.config import Config
from graphopt.dtype import DType
from graphopt.errors import UnknownPrecisionError
from graphopt.llm.decoder.calibration import calibration_inputs
from graphopt.llm.decoder.graph import DecoderWeights, decoder_graph
from graphopt.llm.generate.cache import CacheShape
from graphopt.llm.generate.engine import Engine
from graphopt.passes.support.rounding import Rounding

#: What errors call these models.
KIND = "a language model"
#: Names of what keys and values are kept as; int8 has a scale per token and head.
KV_CACHES = {"f32": DType.F32, "bf16": DType.BF16, "int8": DType.I8}
#: Names of what the head and the embedding are kept as beside int4 weights.
HEADS = ("auto", "int8", "int4", "exact")


def compile_decoder(weights: DecoderWeights, options: Options) -> tuple[Program, Engine]:
    """Plans a decoder; it is built when it first runs.

    Args:
        weights: all of it.
        options: what to compile for.

    Raises:
        GroupSizeError: if the group does not divide a depth.
        UnknownPrecisionError: for an unknown kind of cache or of head.
        CalibrationError: for calibration that is missing or makes no sense.
        PlanError: for an entry of the plan that decides nothing.
    """
    manager = PassManager(Config.from_environment(), keep=True)
    cache, kept = check_kinds(options)
    narrow = options.precision != "fp32"
    graph = decoder_graph(weights, cache, "int4" in options.precision, kept, narrow)
    manager.run(graph, lowering_passes())
    inputs = None
    if options.calibration is not None:
        inputs = calibration_inputs(graph, options.calibration, weights.shape.vocabulary)
    rounding = Rounding(options.rounding, inputs, kept == "int4")
    program = Program(graph, options, manager, rounding)
    program.plan()
    if options.plan is not None:
        options.plan.check(node_reports(graph))
    shape = weights.shape
    rows = CacheShape(cache, len(weights.layers), shape.kv_heads, shape.head_dim, shape.context)
    return program, Engine(program.run, shape.vocabulary, rows)


def check_options(options: Options) -> None:
    """Raises for options that make no sense where files are compiled, without a model.

    Raises:
        UnknownPrecisionError, OptionError: naming it.
    """
    reads = {"requantize"} if "int4" in options.precision else set()
    options.refuse_unused(used_of(options.precision) | reads, f"{KIND} in {options.precision}")
    check_kinds(options)


def used_of(precision: str) -> set[str]:
    """Options of any language model: how it is kept, and calibration where weights are rounded."""
    return {"kv_cache", "head", "context", "plan"} | (
        {"calibration"} if "int4" in precision else set()
    )


def check_kinds(options: Options) -> tuple[DType, str]:
    """What keys and values are stored as, and what `decoder_graph` calls the kind of head.

    Raises:
        UnknownPrecisionError: for an unknown kind, or one that the precision does not have.
    """
    cache = _cache_type(options.kv_cache, options.precision)
    return cache, _head(options.head, options.precision, options.activation_bits)


def _head(head: str, precision: str, activation_bits: int) -> str:
    if head not in HEADS:
        raise UnknownPrecisionError(f"head={head}", HEADS)
    if "int4" not in precision:
        only = "int8" if "int8" in precision else "float"
        if head not in ("auto", only):
            raise UnknownPrecisionError(f"head={head} beside {precision}", ("auto", only))
        return only
    if head == "auto":
        return "exact" if activation_bits == 16 else "int8"
    return head


def _cache_type(kv_cache: str | None, precision: str) -> DType:
    if kv_cache is None:
        return DType.F32 if precision == "fp32" else DType.BF16
    if kv_cache not in KV_CACHES:
        raise UnknownPrecisionError(f"kv_cache={kv_cache}", KV_CACHES)
    return KV_CACHES[kv_cache]
