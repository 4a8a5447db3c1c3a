"""Engines that read ONNX: onnxruntime in fp32 and int8, OpenVINO in fp32 and at its default.

Export and quantization use the settings of FunASR's own recipe (funasr/utils/export_utils.py,
1.4.16), unless another is given: opset 14, dynamic batch and length; int8 of MatMul only, per
channel, unsigned weights, nodes whose name contains "output", "bias_encoder" or "bias_decoder"
left in fp32.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench.engines import Arrays, Call, Engine, Stage, Workload
from graphopt.dependencies import require

OPSET = 14


@dataclass(frozen=True)
class Recipe:
    """What onnxruntime quantizes, with dynamic scales of activations.

    Attributes:
        ops: Operators of ONNX.
        kept_float: Words in the names of nodes that are left in fp32.
    """

    ops: tuple[str, ...]
    kept_float: tuple[str, ...] = ()


FUNASR = Recipe(("MatMul",), ("output", "bias_encoder", "bias_decoder"))
#: What onnxruntime has fast kernels for; its quantized convolutions are a recipe of their own.
PRODUCTS = Recipe(("MatMul", "Gemm", "Attention", "LSTM"))
CONVOLUTIONS = Recipe((*PRODUCTS.ops, "Conv"))


def export_onnx(stage: Stage, workload: Workload) -> Path:
    """Export a stage, unless an engine has done so.

    Raises:
        MissingDependencyError: If onnx is not installed.
    """
    path = workload.folder / f"{stage.name}.onnx"
    if not path.exists():
        torch = require("torch", "exporting to ONNX")
        require("onnx", "exporting to ONNX")
        with _complete(path) as partial, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns about each shape it reads
            torch.onnx.export(
                _named(stage),
                stage.inputs,
                str(partial),
                opset_version=OPSET,
                do_constant_folding=True,
                input_names=list(stage.input_names),
                output_names=list(stage.output_names),
                dynamic_axes=stage.dynamic_axes,
                dynamo=False,
            )
    return path


def quantize_onnx(stage: Stage, workload: Workload, recipe: Recipe = FUNASR) -> Path:
    """Quantize an exported stage, per channel, with unsigned weights, unless it has been done.

    Args:
        stage: What to quantize.
        workload: In whose folder files are.
        recipe: Which nodes.

    Raises:
        MissingDependencyError: If onnx or onnxruntime is not installed.
    """
    path = workload.folder / f"{stage.name}_{'_'.join(recipe.ops)}.onnx"
    if not path.exists():
        onnx = require("onnx", "quantizing ONNX")
        quantization = require("onnxruntime.quantization", "quantizing ONNX")
        source = export_onnx(stage, workload)
        names = [node.name for node in onnx.load(source, load_external_data=False).graph.node]
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # onnxruntime recommends a pre-processing FunASR does not do
        try:
            with _complete(path) as partial:
                quantization.quantize_dynamic(
                    model_input=str(source),
                    model_output=str(partial),
                    op_types_to_quantize=list(recipe.ops),
                    per_channel=True,
                    reduce_range=False,
                    weight_type=quantization.QuantType.QUInt8,
                    nodes_to_exclude=[
                        n for n in names if any(word in n for word in recipe.kept_float)
                    ],
                )
        finally:
            root.setLevel(level)
    return path


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Where to write a file that is there when the block ends, and not if its process dies."""
    partial = path.with_suffix(".partial")
    yield partial
    partial.rename(path)


class OnnxRuntime(Engine):
    """onnxruntime's CPU provider.

    Its threads spin while a pass runs, as by default, and stop when it ends
    (``session.force_spinning_stop``), so that they do not slow the engine that runs next.

    Args:
        recipe: What is quantized; all in fp32 if None.
    """

    package = "onnxruntime"

    def __init__(self, recipe: Recipe | None = None) -> None:
        self.recipe = recipe
        convolutions = " of convolutions" * (recipe is not None and "Conv" in recipe.ops)
        self.name = f"onnxruntime {'int8' if recipe else 'fp32'}{convolutions}"

    def load(self, stage: Stage, workload: Workload) -> Call:
        """Export, quantize where asked, and open a session."""
        ort = require("onnxruntime", self.name)
        if self.recipe is None:
            path = export_onnx(stage, workload)
        else:
            path = quantize_onnx(stage, workload, self.recipe)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]

        def call(*arrays: np.ndarray[Any, Any]) -> Arrays:
            outputs: Arrays = session.run(None, _feeds(stage, names, arrays))
            return outputs

        return call

    def details(self) -> str:
        """The recipe."""
        ops = self.recipe and f"per-channel QUInt8 {', '.join(self.recipe.ops)}"
        return f"{ops or f'opset {OPSET}'}, spinning during the pass"


class OpenVino(Engine):
    """OpenVINO's CPU plugin with the latency hint.

    Args:
        precision: ``f32`` to compute in fp32, ``None`` for OpenVINO's own choice (bf16 where the
            CPU has it).
    """

    package = "openvino"

    def __init__(self, precision: str | None) -> None:
        self.precision = precision
        self.name = "openvino fp32" if precision == "f32" else "openvino default"
        self._chosen = ""

    def load(self, stage: Stage, workload: Workload) -> Call:
        """Compile the exported stage."""
        openvino = require("openvino", self.name)
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "CPU_DENORMALS_OPTIMIZATION": True,
        }
        if self.precision:
            config["INFERENCE_PRECISION_HINT"] = self.precision
        path = export_onnx(stage, workload)
        compiled = openvino.Core().compile_model(str(path), "CPU", config)
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        used = compiled.get_property("INFERENCE_NUM_THREADS")
        self._chosen = f"{hint.to_string()}, {used} threads"
        request = compiled.create_infer_request()
        names = [value.get_any_name() for value in compiled.inputs]

        def call(*arrays: np.ndarray[Any, Any]) -> Arrays:
            result = request.infer(_feeds(stage, names, arrays), share_inputs=True)
            return [result[port] for port in compiled.outputs]

        return call

    def details(self) -> str:
        """The precision and thread count that OpenVINO reports."""
        return self._chosen


def _named(stage: Stage) -> Any:
    """The module as a child called by its stage's name, taking the example inputs only.

    Node names then read as in FunASR's export of the whole model ("/decoder/output_layer/MatMul"),
    and the tracer does not turn the defaults of other arguments into tensors.
    """
    nn = require("torch.nn", "exporting to ONNX")

    class Named(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *inputs: Any) -> Any:
            return getattr(self, stage.name)(*inputs)

    named = Named()
    named.add_module(stage.name, stage.module)
    return named.eval()


def _feeds(
    stage: Stage, names: list[str], arrays: tuple[np.ndarray[Any, Any], ...]
) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs by name; an exporter drops inputs that reach no output."""
    given = dict(zip(stage.input_names, arrays, strict=True))
    return {name: given[name] for name in names}
