"""What ``graphopt demo`` shows: two FunASR models before and after, here and for Neoverse N2."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from graphopt.bench.engines import relative_error
from graphopt.bench.profile import (
    module_table,
    modules_of,
    op_table,
    profile_compiled,
    profile_torch,
    profile_torch_modules,
)
from graphopt.compiler.program import OtherMachineWarning
from graphopt.dependencies import require
from graphopt.errors import MissingEmulatorError
from graphopt.output_files import make_folder
from graphopt.progress import show_progress
from graphopt.runtime.cpus import usable_cpus
from graphopt.zoo import fsmn_vad, paraformer
from graphopt.zoo.fsmn_vad import Segment

ARM_TARGET = "neoverse-n2"
SPOKEN = ("en/counting.wav", "zh/jishu.wav", "ja/kazoeru.wav")
PAUSE_SECONDS = 1.5
ROUNDS = 7
EMULATED_FRAMES = 30


@dataclass(frozen=True)
class Options:
    """Choices of ``graphopt demo``.

    Attributes:
        out: Folder for packages, dumps and the recording.
        precision: Precision to optimize for.
        threads: Threads of torch and of graphopt, or None for all this process may use.
        blocks: Encoder and decoder blocks of Paraformer.
    """

    out: Path
    precision: str
    threads: int | None
    blocks: tuple[int, int]


@dataclass(frozen=True)
class Compared:
    """One model before and after: medians in seconds and the relative error of the output."""

    name: str
    precision: str
    before: float
    after: float
    error: float


# Makes fresh inputs: a module may update containers among them.
Inputs = Callable[[], Sequence[Any]]


def run_demo(console: Console, options: Options) -> tuple[list[Compared], bool]:
    """Run the whole demo; returns times, and whether the optimized VAD found the same segments."""
    torch = require("torch", "the demo")
    make_folder(options.out)
    threads = options.threads or usable_cpus()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    vad, same = _demo_vad(console, options)
    compared = [vad, *_demo_paraformer(console, options)]
    console.rule("before and after")
    console.print(_summary(compared, threads))
    console.print(f"Packages (*.gopt) and dumps (dumps/) are in {options.out}")
    return compared, same


def _demo_vad(console: Console, options: Options) -> tuple[Compared, bool]:
    console.rule("FSMN-VAD: FunASR's code, real weights")
    auto_model = fsmn_vad.load_vad()
    speech = options.out / "speech.wav"
    seconds = join_recordings(speech)
    feats = fsmn_vad.recorded_features(auto_model, speech)
    encoder = auto_model.model.encoder

    def inputs() -> Sequence[Any]:
        return fsmn_vad.encoder_inputs(auto_model, feats)

    compared, fast = _compare(console, "fsmn-vad", encoder, inputs, options)
    recordings = fsmn_vad.recordings()
    with console.status("finding speech"):
        before = [fsmn_vad.vad_segments(auto_model, wav) for wav in (speech, *recordings)]
        with fsmn_vad.replace_encoder(auto_model, fast):
            after = [fsmn_vad.vad_segments(auto_model, wav) for wav in (speech, *recordings)]
    same = sum(map(list.__eq__, before[1:], after[1:]))
    console.print(_segments_table(seconds, before[0], after[0]))
    console.print(f"Each of {len(recordings)} recordings alone: the same segments in {same}.\n")
    arm = _optimize(console, "fsmn-vad", encoder, inputs, ARM_TARGET, options)
    short = fsmn_vad.encoder_inputs(auto_model, feats[:, :EMULATED_FRAMES])
    _emulate(console, arm, encoder, short, fsmn_vad.encoder_inputs(auto_model, short[0]))
    return compared, same == len(recordings)


def _segments_table(seconds: float, before: list[Segment], after: list[Segment]) -> Table:
    """The segments of the joined recordings, side by side if there are as many."""
    title = f"speech in {len(SPOKEN)} recordings, joined with pauses ({seconds:.1f} s)"
    table = Table(title=title, title_justify="left")
    for column in ("segment", "torch ms", "graphopt ms", "differ by ms"):
        table.add_column(column, justify="right")
    for number in range(max(len(before), len(after))):
        pair = [segments[number : number + 1] for segments in (before, after)]
        cells = [f"{found[0][0]} - {found[0][1]}" if found else "none" for found in pair]
        edges = zip(*(found[0] for found in pair), strict=True) if all(pair) else ()
        apart = max((abs(old - new) for old, new in edges), default=None)
        table.add_row(str(number + 1), *cells, "" if apart is None else str(apart))
    return table


def _demo_paraformer(console: Console, options: Options) -> list[Compared]:
    blocks, decoder_blocks = options.blocks
    console.rule(f"Paraformer-large: {blocks} encoder, {decoder_blocks} decoder blocks")
    torch = require("torch", "the demo")
    with console.status("building Paraformer"):
        encoder, decoder = paraformer.paraformer_large(blocks, decoder_blocks)
        features = paraformer.example_inputs()
        with torch.no_grad():
            memory, lengths = encoder(*features)
    embeds = paraformer.decoder_inputs(memory, lengths)
    compared = []
    parts: list[tuple[str, Any, Sequence[Any]]] = [
        ("paraformer-encoder", encoder, features),
        ("paraformer-decoder", decoder, embeds),
    ]
    for name, module, arguments in parts:

        def inputs(arguments: Sequence[Any] = arguments) -> Sequence[Any]:
            return arguments

        compared.append(_compare(console, name, module, inputs, options)[0])
        _optimize(console, name, module, inputs, ARM_TARGET, options)
    return compared


def _compare(
    console: Console, name: str, module: Any, inputs: Inputs, options: Options
) -> tuple[Compared, Any]:
    """Optimize for this machine; print both operator tables; time and compare."""
    with console.status(f"profiling {name} in torch"):
        ops, parts = profile_torch(module, inputs()), profile_torch_modules(module, inputs())
    console.print(op_table(f"{name} before: operators of torch fp32", ops))
    fast = _optimize(console, name, module, inputs, "native", options)
    nodes = fast.profile(*inputs())
    title = f"{name} after: operators of graphopt {fast.options.precision}"
    console.print(op_table(title, profile_compiled(nodes)))
    console.print(module_table(f"{name} by module", parts, modules_of(nodes)))
    torch = require("torch", "the demo")
    with torch.inference_mode():
        expected, got = _first(module(*inputs())), _first(fast(*inputs()))
        before, after = _alternate(module, fast, inputs)
    error = relative_error(got, expected)
    return Compared(name, fast.options.precision, before, after, error), fast


def _optimize(
    console: Console, name: str, module: Any, inputs: Inputs, target: str, options: Options
) -> Any:
    """Optimize, with dumps, and write the package."""
    pipeline = require("graphopt", "the demo")
    start = time.perf_counter()
    with (
        show_progress(console, f"optimizing {name} for {target}"),
        _dumps_to(options.out / "dumps" / f"{name}-{target}"),
        warnings.catch_warnings(),
    ):
        # The demo compares on this machine on purpose.
        warnings.simplefilter("ignore", OtherMachineWarning)
        fast = pipeline.optimize(
            module,
            target=target,
            precision=options.precision,
            example_inputs=tuple(inputs()),
            num_threads=options.threads,
        )
        package = options.out / f"{name}-{target}.gopt"
        fast.save(package)
    seconds = time.perf_counter() - start
    console.print(f"{name}: built for {target} in {seconds:.1f} s -> {package}\n")
    return fast


def _emulate(
    console: Console, arm: Any, module: Any, inputs: Sequence[Any], same_inputs: Sequence[Any]
) -> None:
    """Run the Arm code under the emulator, if there is one, and compare it with torch."""
    torch = require("torch", "the demo")
    try:
        got = _first(arm.emulate(*inputs))
    except MissingEmulatorError as error:
        console.print(f"The {ARM_TARGET} code was built, not run: {error}")
        return
    with torch.inference_mode():
        error_norm = relative_error(got, _first(module(*same_inputs)))
    console.print(
        f"The {ARM_TARGET} code, emulated on {EMULATED_FRAMES} frames: "
        f"relative error {error_norm:.1e} against torch\n"
    )


def _alternate(module: Any, fast: Any, inputs: Inputs) -> tuple[float, float]:
    """Median seconds of both, called in turn after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 1):
        for call, seconds in zip((module, fast), times, strict=True):
            arguments = inputs()
            start = time.perf_counter()
            call(*arguments)
            if number:
                seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _summary(compared: Sequence[Compared], threads: int) -> Table:
    table = Table(title=f"{threads} threads, median of {ROUNDS}", title_justify="left")
    table.add_column("model")
    table.add_column("precision")
    for column in ("torch fp32 ms", "graphopt ms", "speed-up", "relative error"):
        table.add_column(column, justify="right")
    for row in compared:
        table.add_row(
            row.name,
            row.precision,
            f"{1000 * row.before:.1f}",
            f"{1000 * row.after:.1f}",
            f"{row.before / row.after:.2f}",
            f"{row.error:.1e}",
        )
    return table


def join_recordings(path: Path) -> float:
    """Join real recordings with pauses between them into one WAV file; returns its seconds."""
    soundfile = require("soundfile", "reading recordings")
    wanted = [wav for wav in fsmn_vad.recordings() if wav.as_posix().endswith(SPOKEN)]
    parts = []
    for wav in wanted:
        samples, rate = soundfile.read(wav, dtype="float32")
        parts += [samples, np.zeros(int(PAUSE_SECONDS * rate), np.float32)]
    joined = np.concatenate(parts)
    soundfile.write(path, joined, rate, subtype="PCM_16")
    return len(joined) / float(rate)


def _first(outputs: Any) -> np.ndarray[Any, Any]:
    """The first output as an array."""
    tensor = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return np.asarray(tensor)


@contextlib.contextmanager
def _dumps_to(folder: Path) -> Iterator[None]:
    """Have graphopt dump each pass into ``folder``, unless the user chose one."""
    if "GRAPHOPT_DUMP" in os.environ:
        yield
        return
    os.environ["GRAPHOPT_DUMP"] = str(folder)
    try:
        yield
    finally:
        del os.environ["GRAPHOPT_DUMP"]
