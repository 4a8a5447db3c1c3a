"""The commands ``graphopt compile funasr``, ``graphopt transcribe`` and ``graphopt align``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.flags import JsonOption, TrustedKeys, print_json, refuse
from graphopt.target import PRECISIONS

if TYPE_CHECKING:
    from graphopt.funasr.recognizer import Transcript
    from graphopt.funasr.stream.live import LiveRecognizer
    from graphopt.funasr.stream.paraformer_stream import Chunking

compile_app = typer.Typer(
    no_args_is_help=True, help="Compile directories of FunASR, or a language model, into a package."
)


@compile_app.callback()
def compile_directories_of() -> None:
    """Compile directories of FunASR, or a language model, into a package."""


_VadOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--vad-option",
        help="FSMN-VAD: a setting by FunASR's name, as max_end_silence_time=500; repeatable.",
    ),
]


@compile_app.command()
@needs("funasr", "compile funasr")
def funasr(
    directories: Annotated[
        list[Path], typer.Argument(help="Model directories as FunASR lays them out.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Package to write.")],
    target: Annotated[str, typer.Option(help="See graphopt targets.")] = "native",
    precision: Annotated[str, typer.Option(help=f"auto, {', '.join(PRECISIONS)}.")] = "auto",
    vad_option: _VadOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Compile FunASR's model directories into a package for graphopt transcribe or align."""
    from graphopt.funasr.package import compile_directories

    options = _named_values(vad_option)
    with Console(stderr=True).status(f"compiling for {target}"):
        compile_directories(directories, target, precision, out, options)
    if as_json:
        print_json({"package": str(out)})
    else:
        print(out)


def _named_values(given: list[str] | None) -> dict[str, Any]:
    """Options as `name=value`, the value in JSON.

    Raises:
        RecognizerOptionError: naming what has another form, or is there twice.
    """
    from graphopt.errors import RecognizerOptionError
    from graphopt.runtime.fields import FieldError, parse_json

    options: dict[str, Any] = {}
    for one in given or []:
        name, is_pair, value = one.partition("=")
        if not is_pair or name in options:
            raise RecognizerOptionError("--vad-option", one, ["name=value, each name once"])
        try:
            options[name] = parse_json(value)
        except FieldError as error:
            raise RecognizerOptionError("--vad-option", one, ["a value in JSON"]) from error
    return options


@needs("transcribe", "transcribe")
def transcribe(
    context: typer.Context,
    package: Annotated[Path, typer.Argument(help="Package of graphopt compile funasr.")],
    recordings: Annotated[
        list[Path], typer.Argument(help="WAV files; FLAC, Ogg, MP3 with soundfile.")
    ],
    language: Annotated[
        str | None,
        typer.Option(help="For SenseVoice: auto (if not given), zh, en, yue, ja, ko or nospeech."),
    ] = None,
    use_itn: Annotated[
        bool, typer.Option("--use-itn", help="For SenseVoice: digits and punctuation.")
    ] = False,
    hotword: Annotated[
        str | None,
        typer.Option(
            help="For Contextual and SeACo-Paraformer: words between spaces, or a .txt file with "
            "one in each line."
        ),
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Sentences with begin and end, in seconds.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A line of JSON with text, times of words, and sentences; with --stream a line "
            "for whatever is heard.",
        ),
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="For Paraformer streaming: text as it is heard.")
    ] = False,
    chunk_size: Annotated[
        str | None,
        typer.Option(
            help="With --stream: frames of 60 ms repeated, added and looked ahead; 0,10,5 if not "
            "given."
        ),
    ] = None,
    vad_option: _VadOptions = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; by default all CPUs this process may use.")
    ] = None,
    trusted_key: TrustedKeys = None,
) -> None:
    """Print the text of recordings, without torch and FunASR."""
    from graphopt.funasr.recognizer import load_recognizer
    from graphopt.funasr.stream.live import load_live

    options, keys = _named_values(vad_option), trusted_key or None
    if stream:
        refuse(context, ["language", "use_itn", "hotword", "timestamps"], "with --stream")
        chunking = _chunking(chunk_size or "0,10,5")
        _print_live(load_live(package, threads, options, keys), recordings, chunking, as_json)
        return
    refuse(context, ["chunk_size"], "without --stream")
    if as_json:
        refuse(context, ["timestamps"], "with --json, which has the times")
    recognizer = load_recognizer(
        package, threads, language or "auto", use_itn, hotword, options, keys
    )
    for path in recordings:
        if as_json:
            lines = [_as_json(path, recognizer.transcribe_with_times(path))]
        elif timestamps:
            lines = [
                f"{_span(said.begin_ms, said.end_ms)}   {said.text.strip()}"
                for said in recognizer.transcribe_with_times(path).sentences
            ]
        else:
            lines = [recognizer.transcribe(path)]
        for line in lines:
            print(line if as_json or len(recordings) == 1 else f"{path}\t{line}")


@needs("transcribe", "align")
def align(
    package: Annotated[
        Path, typer.Argument(help="Package of graphopt compile funasr of a MonotonicAligner.")
    ],
    recording: Annotated[Path, typer.Argument(help="WAV file; FLAC, Ogg, MP3 with soundfile.")],
    text: Annotated[str, typer.Argument(help="What is said in it; words between spaces.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON with text and times of words.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; by default all CPUs this process may use.")
    ] = None,
    trusted_key: TrustedKeys = None,
) -> None:
    """Print when each word of a text was spoken in a recording, without torch and FunASR."""
    from graphopt.funasr.aligner import load_aligner
    from graphopt.funasr.audio.recordings import read_recording

    aligner = load_aligner(package, threads, trusted_key or None)
    said = aligner.align(read_recording(recording, aligner.frontend.fs), text)
    times = said.times or []
    if as_json:
        result = {"key": recording.stem, "text": said.text, "timestamp": times}
        print(json.dumps(result, ensure_ascii=False))
        return
    for word, time in zip(said.text.split(), times, strict=False):  # as FunASR, some may have none
        print(f"{_span(*time)}   {word}")


def _as_json(path: Path, said: Transcript) -> str:
    """The fields of a result of FunASR's `generate`."""
    result: dict[str, Any] = {"key": path.stem, "text": said.text}
    if said.times is not None:
        result["timestamp"] = said.times
    result["sentence_info"] = [
        {"text": one.text, "start": one.begin_ms, "end": one.end_ms, "timestamp": one.times}
        for one in said.sentences
    ]
    return json.dumps(result, ensure_ascii=False)


def _span(begin_ms: int, end_ms: int) -> str:
    return f"{begin_ms / 1000:8.2f} {end_ms / 1000:8.2f}"


def _chunking(chunk_size: str) -> Chunking:
    from graphopt.errors import RecognizerOptionError
    from graphopt.funasr.stream.paraformer_stream import Chunking

    numbers = [number.strip() for number in chunk_size.split(",")]
    if len(numbers) != 3 or not all(n.isascii() and n.isdecimal() and len(n) < 9 for n in numbers):
        raise RecognizerOptionError("chunk_size", chunk_size, ["three numbers, as 0,10,5"])
    again, added, ahead = map(int, numbers)
    return Chunking((again, added, ahead))


def _print_live(
    recognizer: LiveRecognizer, recordings: list[Path], chunking: Chunking, as_json: bool
) -> None:
    """Prints utterances as they are heard: what may change behind a tilde, then what stays."""
    for path in recordings:
        for heard in recognizer.listen(path, chunking):
            if as_json:
                line = json.dumps({"key": path.stem, **asdict(heard)}, ensure_ascii=False)
            else:
                mark = " " if heard.is_final else "~"
                line = f"{_span(heard.begin_ms, heard.end_ms)} {mark} {heard.text}"
            print(line if as_json or len(recordings) == 1 else f"{path}\t{line}", flush=True)
