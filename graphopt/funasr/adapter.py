"""How `graphopt.optimize` takes a `funasr.AutoModel`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphopt.compiler.options import Options
from graphopt.frontend.replaced_functions import stand_in
from graphopt.funasr.layers.pad_mask import make_pad_mask

stand_in("funasr.models.transformer.utils.nets_utils", "make_pad_mask", make_pad_mask)


class AutoModelAdapter:
    """A `funasr.AutoModel`, known without importing FunASR; see `graphopt.adapters.Adapter`."""

    def takes(self, model: Any, options: Options) -> bool:
        """An object of FunASR's class."""
        kind = type(model)
        return kind.__name__ == "AutoModel" and kind.__module__.startswith("funasr.")

    def used(self, model: Any, precision: str) -> tuple[str, set[str]]:
        """What its parts use."""
        return "a FunASR AutoModel", {"num_threads", "strict", "check"}

    def optimize(self, model: Any, options: Options) -> Any:
        """An AutoModel with compiled parts inside."""
        from graphopt.compiler.adapter import ModuleAdapter
        from graphopt.funasr.auto_model import optimize_auto_model

        modules = ModuleAdapter()

        def compile_part(part: Any, inputs: Any) -> Any:
            chosen = replace(options, example_inputs=inputs)
            assert modules.takes(part, chosen)
            return modules.optimize(part, chosen)

        return optimize_auto_model(model, compile_part)
