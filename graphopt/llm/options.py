"""What a language model is compiled for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.target import Target


@dataclass(frozen=True)
class LlmOptions:
    """What to compile a language model for.

    Attributes:
        target: a target, or its name as for `graphopt.optimize`.
        precision: as for `graphopt.optimize`.
        group: int4 weights that share a scale; 0 for a scale per channel.
        activation_bits: of activations where weights are narrow: 8, or 16 for two int8 rows.
        requantize: whether weights that come quantized are made f32 when they are read; otherwise
            `int4` takes those in blocks of 4 bits as they are.
        kv_cache: how keys and values are kept, one of `graphopt.llm.compiled.KV_CACHES`; f32 if
            None and `precision` is `fp32`, else bf16.
        head: how head and embedding are kept where weights are narrow, one of
            `graphopt.llm.compiled.HEADS`: rows of int8, or int4 with the scales of the other
            weights (an embedding that is not tied to the head stays int8). `exact` keeps what int8
            leaves of the head in another matrix of int4, and the embedding in bf16. `auto` is
            `exact` for `int4` with 16-bit activations, else int8.
        rounding: how weights become int4, one of `graphopt.passes.support.rounding.METHODS`.
        calibration: arrays of tokens that rounding looks at, or for `compile_llm`, which has the
            tokenizer, text; `gptq` needs them.
        context: largest number of positions, of those that a file says; all if None. A window of
            attention, or frequencies, that begin behind it are none.
    """

    target: str | Target = "native"
    precision: str = "int4"
    group: int = 32
    activation_bits: int = 8
    requantize: bool = False
    kv_cache: str | None = None
    head: str = "auto"
    rounding: str = "nearest"
    calibration: str | Sequence[Any] | None = None
    context: int | None = None

    @property
    def as_blocks(self) -> bool:
        """Whether weights that come quantized stay so when they are read."""
        return "int4" in self.precision and not self.requantize
