"""What ``graphopt demo`` shows: two FunASR models before and after, here and for Neoverse N2."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from graphopt.bench.measure import relative_error
from graphopt.bench.profile import op_table, profile_compiled, profile_torch
from graphopt.errors import MissingEmulatorError
from graphopt.zoo import fsmn_vad, paraformer
from graphopt.zoo.dependencies import require

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
    before: float
    after: float
    error: float


# Makes fresh inputs: a module may update containers among them.
Inputs = Callable[[], Sequence[Any]]


def run_demo(console: Console, options: Options) -> bool:
    """Run the whole demo; returns whether the optimized VAD found the same segments."""
    torch = require("torch", "the demo")
    options.out.mkdir(parents=True, exist_ok=True)
    threads = options.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    vad, same = _demo_vad(console, options)
    compared = [vad, *_demo_paraformer(console, options)]
    console.rule("before and after")
    console.print(_summary(compared, options.precision, threads))
    console.print(f"Packages (*.gopt) and dumps (dumps/) are in {options.out}")
    return same


def _demo_vad(console: Console, options: Options) -> tuple[Compared, bool]:
    console.rule("FSMN-VAD: FunASR's code, real weights")
    auto_model = fsmn_vad.load_vad()
    speech = options.out / "speech.wav"
    seconds = join_recordings(speech)
    before = fsmn_vad.vad_segments(auto_model, speech)
    feats = fsmn_vad.recorded_features(auto_model, speech)
    encoder = auto_model.model.encoder

    def inputs() -> Sequence[Any]:
        return fsmn_vad.encoder_inputs(auto_model, feats)

    compared, fast = _compare(console, "fsmn-vad", encoder, inputs, options)
    with fsmn_vad.replace_encoder(auto_model, fast):
        after = fsmn_vad.vad_segments(auto_model, speech)
    console.print(f"Speech in {speech.name} ({seconds:.1f} s), milliseconds:")
    console.print(f"  before {before}\n  after  {after}")
    console.print("  [green]the same[/green]" if before == after else "  [red]different[/red]")
    arm = _build_for_arm(console, "fsmn-vad", encoder, inputs, options)
    short = fsmn_vad.encoder_inputs(auto_model, feats[:, :EMULATED_FRAMES])
    _emulate(console, arm, encoder, short, fsmn_vad.encoder_inputs(auto_model, short[0]))
    return compared, before == after


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
        _build_for_arm(console, name, module, inputs, options)
    return compared


def _compare(
    console: Console, name: str, module: Any, inputs: Inputs, options: Options
) -> tuple[Compared, Any]:
    """Optimize for this machine; print both operator tables; time and compare."""
    console.print(op_table(f"{name} before: torch", profile_torch(module, inputs())))
    fast = _optimize(console, name, module, inputs, "native", options)
    rows = profile_compiled(fast.profile(*inputs()))
    console.print(op_table(f"{name} after: graphopt {options.precision}", rows))
    torch = require("torch", "the demo")
    with torch.inference_mode():
        expected, got = _first(module(*inputs())), _first(fast(*inputs()))
        before, after = _alternate(module, fast, inputs)
    return Compared(name, before, after, relative_error(got, expected)), fast


def _build_for_arm(
    console: Console, name: str, module: Any, inputs: Inputs, options: Options
) -> Any:
    return _optimize(console, name, module, inputs, ARM_TARGET, options)


def _optimize(
    console: Console, name: str, module: Any, inputs: Inputs, target: str, options: Options
) -> Any:
    """Optimize, with dumps, and write the package."""
    pipeline = require("graphopt", "the demo")
    start = time.perf_counter()
    with (
        console.status(f"optimizing {name} for {target}"),
        _dumps_to(options.out / "dumps" / f"{name}-{target}"),
    ):
        fast = pipeline.optimize(
            module,
            target=target,
            precision=options.precision,
            example_inputs=tuple(inputs()),
            num_threads=options.threads,
        )
        package = options.out / f"{name}-{target}.gopt"
        fast.save(package)
    console.print(f"{name} for {target}: {time.perf_counter() - start:.1f} s -> {package}")
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
        f"relative error to torch {error_norm:.1e}"
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


def _summary(compared: Sequence[Compared], precision: str, threads: int) -> Table:
    table = Table(title=f"precision {precision}, {threads} threads", title_justify="left")
    table.add_column("model")
    for column in ("torch fp32 ms", "graphopt ms", "speed-up", "relative error"):
        table.add_column(column, justify="right")
    for row in compared:
        table.add_row(
            row.name,
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
