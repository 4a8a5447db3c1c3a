"""The commands ``graphopt compile funasr`` and ``graphopt transcribe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

compile_app = typer.Typer(
    no_args_is_help=True, help="Compile model directories of a toolkit into one package."
)


@compile_app.callback()
def compile_directories_of() -> None:
    """Compile model directories of a toolkit into one package."""


@compile_app.command()
def funasr(
    directories: Annotated[
        list[Path], typer.Argument(help="Model directories as FunASR lays them out.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Package to write.")],
    target: Annotated[str, typer.Option(help="See graphopt targets.")] = "native",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, int8 or int8+bf16.")] = "auto",
) -> None:
    """Compile FunASR's model directories into a package for graphopt transcribe."""
    from graphopt.funasr.package import compile_directories

    with Console(stderr=True).status(f"compiling for {target}"):
        compile_directories(directories, target, precision, out)
    print(out)


def transcribe(
    package: Annotated[Path, typer.Argument(help="Package of graphopt compile funasr.")],
    recordings: Annotated[list[Path], typer.Argument(help="WAV files of 16 bits, any rate.")],
    language: Annotated[
        str, typer.Option(help="For SenseVoice: auto, zh, en, yue, ja, ko or nospeech.")
    ] = "auto",
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
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; by default all CPUs this process may use.")
    ] = None,
) -> None:
    """Print the text of recordings, without torch and FunASR."""
    from graphopt.funasr.recognizer import load_recognizer

    recognizer = load_recognizer(package, threads, language, use_itn, hotword)
    for wav in recordings:
        text = recognizer.transcribe(wav)
        print(text if len(recordings) == 1 else f"{wav}\t{text}")
