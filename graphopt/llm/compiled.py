"""From the weights of a decoder to something that runs."""

from __future__ import annotations

from graphopt.compiler.options import Options
from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.compiler.program import Program
from graphopt.config import Config
from graphopt.dtype import DType
from graphopt.errors import CalibrationError, OptionError, UnknownPrecisionError
from graphopt.llm.decoder.calibration import calibration_inputs
from graphopt.llm.decoder.graph import DecoderWeights, decoder_graph
from graphopt.llm.generate.cache import CacheShape
from graphopt.llm.generate.engine import Engine
from graphopt.llm.interface.adapter import DecoderAdapter
from graphopt.llm.options import LlmOptions
from graphopt.passes.support.rounding import Rounding
from graphopt.target import find_target

#: Names of what keys and values are kept as; int8 has a scale per token and head.
KV_CACHES = {"f32": DType.F32, "bf16": DType.BF16, "int8": DType.I8}
#: Names of what the head and the embedding are kept as beside int4 weights.
HEADS = ("auto", "int8", "int4", "exact")


def compile_decoder(
    weights: DecoderWeights, options: LlmOptions, threads: int | None = None
) -> tuple[Program, Engine]:
    """Plans a decoder; it is built when it first runs.

    Args:
        weights: all of it.
        options: what to compile for.
        threads: of a run; all CPUs of the process if None.

    Raises:
        UnknownTargetError: for an unknown target.
        GroupSizeError: if the group does not divide a depth.
        UnknownPrecisionError: for a precision, or a kind of cache, of head or of rounding that
            there is not.
        CalibrationError: for calibration that is missing or makes no sense.
    """
    target = find_target(options.target)
    precision = target.precision(options.precision)
    config = Config.from_environment()
    manager = PassManager(config)
    cache = _cache_type(options.kv_cache, precision)
    kept = _head(options.head, precision, options.activation_bits)
    graph = decoder_graph(weights, cache, "int4" in precision, kept, precision != "fp32")
    manager.run(graph, lowering_passes())
    inputs = None
    if options.calibration is not None:
        inputs = calibration_inputs(graph, options.calibration, weights.shape.vocabulary)
    rounding = Rounding(options.rounding, inputs, kept == "int4")
    program = Program(
        graph,
        target,
        precision,
        threads,
        config,
        manager,
        options.group,
        options.activation_bits,
        rounding,
    )
    program.plan()
    shape = weights.shape
    rows = CacheShape(cache, len(weights.layers), shape.kv_heads, shape.head_dim, shape.context)
    return program, Engine(program.run, shape.vocabulary, rows)


def check_options(options: LlmOptions) -> None:
    """Raises for what `compile_decoder` would refuse of the options alone, without a model.

    Raises:
        UnknownTargetError, UnknownPrecisionError, CalibrationError, OptionError: naming it.
    """
    given = Options.of(
        target=options.target,
        precision=options.precision,
        group_size=options.group or None,
        activation_bits=options.activation_bits,
        rounding=options.rounding,
        calibration=options.calibration,
    )
    precision = given.precision
    _cache_type(options.kv_cache, precision)
    _head(options.head, precision, options.activation_bits)
    if options.rounding == "gptq" and options.calibration is None:
        raise CalibrationError("rounding by gptq needs text")
    kind, used = DecoderAdapter().used(None, precision)
    given.refuse_unused(used, f"{kind} in {precision}")
    if options.requantize and "int4" not in precision:
        raise OptionError("requantize", True, f"nothing becomes int4 in {precision}; leave it out")


def _head(head: str, precision: str, activation_bits: int) -> str:
    """What `decoder_graph` calls it."""
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
