"""`optimize`: the options, checked, and the adapter that takes the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphopt.adapters import adapters
from graphopt.compiler.options import Options
from graphopt.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import torch

    from graphopt.compiler.precision_plan import PrecisionPlan


def optimize(
    model: torch.nn.Module | str | Path | onnx.ModelProto,
    target: str | Target = "native",
    example_inputs: tuple[Any, ...] | dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    precision: str = "auto",
    num_threads: int | None = None,
    strict: bool = False,
    group_size: int | None = 32,
    activation_bits: int = 8,
    kv_cache: str | None = None,
    head: str = "auto",
    rounding: str = "nearest",
    calibration: Sequence[Any] | None = None,
    context: int | None = None,
    check: bool = True,
    faithful: bool = False,
    plan: PrecisionPlan | Mapping[str, Any] | str | Path | None = None,
) -> Any:
    """Compiles a model for a target and returns a module that is called like it.

    A causal language model of transformers without example inputs gives an `OptimizedDecoder`
    (graphopt/llm/interface/generation.py), whose `generate` is that of transformers; a
    `funasr.AutoModel` gives an AutoModel with compiled parts inside; an ONNX model, which needs no
    torch, an `OptimizedOnnx` (graphopt/onnx/module.py); any other module an `OptimizedModule`.

    Args:
        model: any module in eval mode, or an ONNX model: the path of a `.onnx` file, or a
            `ModelProto`. It keeps its weights; the result does not follow changes.
        target: `native`, `neoverse-n2`, ... (`graphopt targets` lists them).
        example_inputs: positional arguments (tuple) or keyword arguments (dict); the model is
            captured at once. Without them it is captured at the first call, and again for a call of
            another structure, or with more where an axis behind the first had size 1.
        dynamic_shapes: sizes that vary, in the format of torch.export. By default the first axis of
            every tensor and every other one that the model leaves open.
        precision: `fp32`, `bf16`, `int8`, `int8+bf16`, `int4`, or `auto`: the fastest without int4
            that the target has matrix instructions for.
        num_threads: threads of a run; all CPUs that this process may use if None.
        strict: refuse a model of which a node would stay in torch, or a module run in Python.
        group_size: int4 weights that share a scale, a multiple of 32 up to 1024; None for one
            scale per channel.
        activation_bits: of activations where weights are int8 or int4: 8, or 16 for two int8 rows
            each, at twice the multiplications but reading the weights once.
        kv_cache: how a language model keeps keys and values: `f32`, `bf16`, or `int8` with a scale
            per token and head; by default f32 for `fp32` and bf16 otherwise.
        head: how a language model in int4 keeps its head and the embedding: `int8`, rows of 8 bits;
            `int4` with the scales of the other weights (an embedding that is not tied to the head
            stays int8); `exact`, what int8 leaves of the head in another matrix of int4, and the
            embedding in bf16; or `auto`, which is `exact` with 16-bit activations, else `int8`. One
            that serves as both is stored once.
        rounding: how weights become int4: `nearest`; `scale-search`, which chooses the scale of
            each block among many; or `gptq`, which makes up for errors in later weights. `report()`
            says what it cost.
        calibration: arrays of tokens for a language model, a few thousand in all: `gptq` needs
            them, `scale-search` weighs errors by what they excite.
        context: largest number of positions of a language model; all if None. A window of
            attention, or frequencies, that begin behind it are none.
        check: run the inputs of every capture through the model once and through what was compiled,
            and compare (`graphopt/compiler/example_check.py`). A plan for another architecture runs
            in numpy for that. A language model without example inputs is compared on a dozen tokens
            (`graphopt/llm/interface/logits_check.py`). `report()` says what was found.
        faithful: compute an ONNX model that came quantized exactly as it says, such as with one
            scale for all activations of a tensor, and everything in fp32. By default int8 and int4
            take its weights as they are, and a scale for each row of activations.
        plan: precisions of layers by their path in the model: a TOML file as `graphopt tune` writes
            it (graphopt/compiler/precision_plan.py), or what it holds, `{"layers": {"head":
            "fp32"}}`. What it does not name has its precision, or else that of the option.

    Raises:
        ModelError: if it is no module that can be captured, such as a file name.
        TrainingModeError, UnknownTargetError, UnknownPrecisionError, ThreadCountError: naming
            what is wrong.
        OptionError: for an option that the model does not use, or a value that it cannot have.
        PlanError: for an entry of the plan that names no layer, or a precision that it cannot have.
        CalibrationError: if calibration is missing, or makes no sense.
        CaptureError: if the model cannot be captured; names the line.
        OnnxModelError: if an ONNX model is damaged, or contradicts itself.
        OnnxNodesError: if nodes of it cannot be compiled, listing all with reasons.
        UnsupportedNodesError: with `strict`, listing the nodes and the reasons.
        ExampleMismatchError: if `check` finds other results; names the first node that departs.
        NondeterministicModelError: if it finds that the model does not agree with itself.
    """
    options = Options.of(
        target=target,
        precision=precision,
        num_threads=num_threads,
        example_inputs=example_inputs,
        dynamic_shapes=dynamic_shapes,
        strict=strict,
        group_size=group_size,
        activation_bits=activation_bits,
        kv_cache=kv_cache,
        head=head,
        rounding=rounding,
        calibration=calibration,
        context=context,
        check=check,
        faithful=faithful,
        plan=plan,
    )
    adapter = next(a for a in adapters() if a.takes(model, options))
    kind, used = adapter.used(model, options.precision)
    options.refuse_unused(used, f"{kind} in {options.precision}")
    return adapter.optimize(model, options)
