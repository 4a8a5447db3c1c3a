"""The commands ``graphopt compile llm`` and ``graphopt chat``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from graphopt.dependencies import needs
from graphopt.errors import CalibrationError
from graphopt.flags import JsonOption, TrustedKeys, print_json, refuse
from graphopt.plain_files import read_text
from graphopt.target import PRECISIONS

TargetOption = Annotated[str, typer.Option(help="See graphopt targets.")]
GroupOption = Annotated[
    int, typer.Option(min=0, help="int4 weights that share a scale; 0 for whole channels.")
]
BitsOption = Annotated[int, typer.Option(help="Bits of activations between int weights: 8 or 16.")]
RequantizeOption = Annotated[
    bool,
    typer.Option("--requantize", help="Quantize 4-bit weights of a GGUF file anew, not as is."),
]
HeadOption = Annotated[
    str, typer.Option(help="Head and embedding beside int4: int8, int4, exact, or auto.")
]
RoundingOption = Annotated[
    str,
    typer.Option(
        help="How weights that did not come in 4 bits get them: nearest, scale-search, gptq."
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Text that rounding looks at; gptq needs it."),
]
CacheOption = Annotated[
    str | None,
    typer.Option("--kv-cache", help="Keys and values as f32, bf16 or int8; by default bf16."),
]
ContextOption = Annotated[
    int | None,
    typer.Option(min=1, help="Longest sequence, in tokens; by default as the model has it."),
]


@needs("llm", "compile llm")
def compile_llm(
    source: Annotated[Path, typer.Argument(help="Hugging Face model directory, or GGUF file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Package to write.")],
    target: TargetOption = "native",
    precision: Annotated[str, typer.Option(help=f"auto, {', '.join(PRECISIONS)}.")] = "int4",
    group_size: GroupOption = 32,
    activation_bits: BitsOption = 8,
    requantize: RequantizeOption = False,
    kv_cache: CacheOption = None,
    head: HeadOption = "auto",
    rounding: RoundingOption = "nearest",
    calibration: CalibrationOption = None,
    context: ContextOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a language model into a package for graphopt chat."""
    from graphopt.compiler.options import Options
    from graphopt.llm import package

    text = None if calibration is None else _calibration(calibration)
    options = Options.of(
        target=target,
        precision=precision,
        group_size=group_size or None,
        activation_bits=activation_bits,
        requantize=requantize,
        kv_cache=kv_cache,
        head=head,
        rounding=rounding,
        calibration=text,
        context=context,
    )
    with Console(stderr=True).status(f"compiling for {target}"):
        summary = package.compile_llm(source, out, options)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if as_json:
        print_json({"package": str(out), "bytes": size, "weights": str(summary)})
    else:
        print(f"{out}: {size / 2**20:.1f} MiB; {summary}")


def _calibration(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror or error}") from error


@needs("chat", "chat")
def chat(
    context: typer.Context,
    package: Annotated[Path, typer.Argument(help="Package of graphopt compile llm.")],
    prompt: Annotated[
        str | None, typer.Option(help="What to say; without it, lines of standard input.")
    ] = None,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Largest number of tokens of an answer.")
    ] = 512,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw among that many tokens; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among this much probability.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws.")] = None,
    prompt_lookup: Annotated[
        int,
        typer.Option(min=0, max=64, help="Tokens to draft from what was said; 0 for none."),
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; by default all CPUs this process may use.")
    ] = None,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Run the package's Arm code under qemu-aarch64.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each answer, once it is there, as a line of JSON.")
    ] = False,
    trusted_key: TrustedKeys = None,
) -> None:
    """Talk to a language model, without torch; an empty line or end of input ends it."""
    from graphopt.llm.generate.sampling import Sampler
    from graphopt.llm.package import load_chat

    if temperature == 0:
        refuse(
            context,
            ["top_k", "top_p", "seed"],
            "at a temperature of 0, which takes the likeliest token",
        )
    sampler = Sampler(temperature, top_k, top_p, seed)
    model = load_chat(package, threads, emulate, trusted_key or None)
    model.drafts = prompt_lookup
    messages = [{"role": "system", "content": system}] if system else []
    if prompt is not None:
        _turn(model, messages, prompt, sampler, max_new_tokens, as_json)
        return
    while text := _line():
        _turn(model, messages, text, sampler, max_new_tokens, as_json)


def _turn(
    model: Any,
    messages: list[dict[str, str]],
    text: str,
    sampler: Any,
    max_new_tokens: int,
    as_json: bool,
) -> None:
    """Prints an answer as it comes, its speed on standard error, and remembers both sides.

    Args:
        model: a `Chat`.
        messages: what was said; receives both sides.
        text: what is said now.
        sampler: draws tokens.
        max_new_tokens: of the answer.
        as_json: whether the whole answer is a line of JSON.
    """
    from graphopt.errors import EmptyPromptError

    if not text.strip():
        raise EmptyPromptError
    messages.append({"role": "user", "content": text})
    pieces = []
    for piece in model.answer(messages, sampler, max_new_tokens):
        if not as_json:
            print(piece, end="", flush=True)
        pieces.append(piece)
    answer = "".join(pieces)
    print(json.dumps({"answer": answer}, ensure_ascii=False) if as_json else "", flush=True)
    messages.append({"role": "assistant", "content": answer})
    print(model.speed, file=sys.stderr)


def _line() -> str:
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
