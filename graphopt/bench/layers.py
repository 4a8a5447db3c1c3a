"""How far int8 takes Paraformer-large from torch fp32, block by block, beside its peers' int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from graphopt.bench import paraformer
from graphopt.bench.engines import (
    Call,
    Engine,
    Graphopt,
    Stage,
    TorchDynamicInt8,
    TorchFp32,
    Workload,
)
from graphopt.bench.onnx_engines import FUNASR, OnnxRuntime
from graphopt.dependencies import require

Errors = Mapping[str, Mapping[str, float]]  # by engine, by output

_STEP = 5  # of the blocks in the table

NOTE = (
    "Error of all that a block makes: Euclidean norm of the difference to torch fp32 over that of "
    "torch fp32. Weights, features and acoustic embeddings are the same for every engine; its "
    "decoder hears its own encoder, so that errors add up from block to block. encoder_output is "
    "behind the last norm, decoder_output the scores of tokens."
)


def own_engines() -> list[Engine]:
    """Graphopt at the precisions that have int8 products."""
    return [Graphopt("int8"), Graphopt("int8+bf16")]


def peers() -> list[Engine]:
    """int8 of others."""
    return [TorchDynamicInt8(), OnnxRuntime(FUNASR)]


def engines() -> list[Engine]:
    """Torch fp32 as the reference, then graphopt and its peers."""
    return [TorchFp32(), *own_engines(), *peers()]


def workload(folder: Path, frames: int, blocks: int, decoder_blocks: int) -> Workload:
    """One utterance through encoder and decoder, with what every block makes as an output.

    Args:
        folder: Where engines export to.
        frames: Frames of the utterance, 60 ms each.
        blocks: Encoder blocks.
        decoder_blocks: Decoder blocks.
    """
    plain = paraformer.workload(folder, frames, blocks, decoder_blocks)
    stages = [_tapped(stage) for stage in plain.stages]

    def run(calls: dict[str, Call]) -> dict[str, np.ndarray[Any, Any]]:
        made: dict[str, np.ndarray[Any, Any]] = {}

        def noting(stage: Stage) -> Call:
            def call(*arrays: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
                found = zip(stage.output_names, calls[stage.name](*arrays), strict=True)
                last, *blocks = found
                made.update([*blocks, last])
                return [last[1]]

            return call

        plain.run({stage.name: noting(stage) for stage in stages})
        return made

    return replace(plain, stages=stages, run=run)


def table(title: str, errors: Errors) -> Table:
    """Every fifth block of encoder and decoder, what comes behind them, and the largest error."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("output")
    for engine in errors:
        shown.add_column(engine, justify="right")
    for output in filter(_is_shown, next(iter(errors.values()))):
        shown.add_row(output, *(f"{found[output]:.2e}" for found in errors.values()))
    shown.add_row("largest", *(f"{max(found.values()):.2e}" for found in errors.values()))
    return shown


def verdict(own: str, errors: Errors) -> str:
    """Whether a peer's error is smaller than that of an engine of ours at some output."""
    others = [peer.name for peer in peers() if peer.name in errors]
    larger = [
        f"{output} ({other})"
        for other in others
        for output, error in errors[own].items()
        if error > errors[other][output]
    ]
    count, names = len(errors[own]), " and ".join(others)
    if larger:
        return f"{own}: error larger than a peer's at {', '.join(larger)}"
    return f"{own}: error no larger than that of {names} at each of {count} outputs"


def _is_shown(output: str) -> bool:
    number = output.rpartition("_")[2]
    return not number.isdecimal() or int(number) == 1 or int(number) % _STEP == 0


def _tapped(stage: Stage) -> Stage:
    """A stage with what each block makes as further outputs, behind its own first one."""
    module = _with_taps(stage.module)
    blocks = [f"{stage.name}_block_{i + 1}" for i in range(len(module.taps))]
    names = [f"{stage.name}_output", *blocks]
    axes = dict.fromkeys(names, stage.dynamic_axes[stage.output_names[0]])
    return replace(
        stage,
        module=module,
        output_names=names,
        dynamic_axes={**{name: stage.dynamic_axes[name] for name in stage.input_names}, **axes},
    )


def _with_taps(module: Any) -> Any:
    """FunASR's export form of an encoder or decoder; its blocks are wrapped in place."""
    nn = require("torch.nn", "the benchmark")

    class Tap(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, block: Any) -> None:
            super().__init__()
            self.block = block
            self.made: list[Any] = []

        def forward(self, *inputs: Any) -> Any:
            outputs = self.block(*inputs)
            self.made.append(outputs[0])
            return outputs

    class WithTaps(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.taps: list[Tap] = []
            for name in ("encoders0", "encoders", "decoders", "decoders3"):
                sequence = getattr(module.model, name, [])
                for i, block in enumerate(sequence):
                    sequence[i] = Tap(block)
                self.taps += sequence

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            last = self.module(*inputs)[0]
            return last, *(tap.made.pop() for tap in self.taps)

    return WithTaps().eval()
