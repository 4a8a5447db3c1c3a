"""How `graphopt.optimize` compiles an ONNX model; imports neither onnx, torch nor the compiler."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.dependencies import require
from graphopt.errors import CalibrationError, ModelError, OptionError

if TYPE_CHECKING:
    from graphopt.compiler.options import Options

ENDING = ".onnx"


def is_onnx(model: Any) -> bool:
    """Whether something is a `ModelProto`, or the name of an ONNX file."""
    if isinstance(model, str | Path):
        return Path(model).suffix == ENDING
    kind = type(model)
    return kind.__name__ == "ModelProto" and kind.__module__.partition(".")[0] == "onnx"


class OnnxAdapter:
    """ONNX models; see `graphopt.adapters.Adapter`."""

    def takes(self, model: Any, options: Options) -> bool:
        """Files by their ending, and models in memory."""
        if not is_onnx(model):
            if isinstance(model, bytes) or hasattr(model, "SerializeToString"):
                what = f"a {type(model).__name__} is no model"
                raise ModelError(what, "give an onnx.ModelProto, or the path of a .onnx file")
            return False
        if options.calibration is not None:
            raise CalibrationError("only language models of transformers are calibrated, by tokens")
        return True

    def used(self, model: Any, precision: str) -> tuple[str, set[str]]:
        """What ONNX models use; sizes that vary are those that the model leaves open."""
        return "an ONNX model", {
            "num_threads",
            "example_inputs",
            "strict",
            "check",
            "faithful",
            "plan",
        }

    def optimize(self, model: Any, options: Options) -> Any:
        """The model, imported, planned and built; in parts where onnxruntime runs some of it."""
        require("onnx", "an ONNX model")
        from graphopt.onnx.files import open_model
        from graphopt.onnx.parts import optimized

        if options.faithful:
            if options.asked not in ("auto", "fp32"):
                remedy = f"it computes in fp32, not in {options.asked}; leave out precision"
                raise OptionError("faithful", True, remedy)
            if options.plan is not None:
                raise OptionError("faithful", True, "it computes in fp32; leave out plan")
            options = dataclasses.replace(options, precision="fp32")
        fast = optimized(open_model(model), options)
        if options.plan is not None:
            options.plan.check(fast.report())
        return fast
