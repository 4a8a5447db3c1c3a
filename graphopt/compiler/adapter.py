"""Adapter of torch modules, which every other kind of models is asked before."""

from __future__ import annotations

from typing import Any

from graphopt.compiler import torch_compile
from graphopt.compiler.module import OptimizedModule
from graphopt.compiler.options import Options
from graphopt.errors import CalibrationError
from graphopt.frontend.model_check import check_model

torch_compile.register()


class ModuleAdapter:
    """Any torch module in eval mode; see `graphopt.adapters.Adapter`."""

    def takes(self, model: Any, options: Options) -> bool:
        """Everything: what is no module is refused by name."""
        check_model(model)
        if options.calibration is not None:
            raise CalibrationError("only language models of transformers are calibrated, by tokens")
        return True

    def used(self, model: Any, precision: str) -> tuple[str, set[str]]:
        """The name of the class, and what every module uses."""
        used = {"num_threads", "example_inputs", "dynamic_shapes", "strict", "check", "plan"}
        return type(model).__name__, used

    def optimize(self, model: Any, options: Options) -> OptimizedModule:
        """The module, captured and built if there are example inputs."""
        if options.plan is not None:
            options.plan.check_names(
                name for name, _ in model.named_modules(remove_duplicate=False)
            )
        module = OptimizedModule(model, options)
        if isinstance(options.example_inputs, dict):
            module.prepare(**options.example_inputs)
        elif options.example_inputs is not None:
            module.prepare(*options.example_inputs)
        return module
