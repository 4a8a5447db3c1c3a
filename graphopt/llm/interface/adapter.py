"""How `graphopt.optimize` takes a language model of transformers."""

from __future__ import annotations

from typing import Any

from graphopt.compiler.options import Options
from graphopt.frontend.model_check import check_model
from graphopt.llm.readers.transformers_model import (
    is_causal_model,
    is_decoder,
    refuse_other_decoder,
)


class DecoderAdapter:
    """A causal model of transformers without example inputs; see `graphopt.adapters.Adapter`."""

    def takes(self, model: Any, options: Options) -> bool:
        """One that can be read; another is a module like any, unless asked for what these have.

        Raises:
            UnsupportedDecoderError: for such options with a causal model that cannot be read.
        """
        if options.example_inputs is not None:
            return False
        if is_decoder(model):
            check_model(model)
            return True
        asked = ("int4" in options.asked, options.kv_cache is not None, options.head != "auto")
        if (any(asked) or options.calibration is not None) and is_causal_model(model):
            check_model(model)
            refuse_other_decoder(model)
        return False

    def used(self, model: Any, precision: str) -> tuple[str, set[str]]:
        """What says how it is kept and run; calibration where weights are rounded."""
        from graphopt.llm.compiled import KIND, used_of

        return KIND, {"num_threads", "check"} | used_of(precision)

    def optimize(self, model: Any, options: Options) -> Any:
        """An `OptimizedDecoder`."""
        from graphopt.llm.interface.generation import OptimizedDecoder

        return OptimizedDecoder(model, options)
