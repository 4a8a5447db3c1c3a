"""Packages of a language model, opened and asked for an answer."""

from pathlib import Path

from fuzz.files import Kind
from mutations import (
    Mutation,
    garbage,
    json_values,
    of,
    package_accidents,
    resealed,
    text,
    text_bytes,
)

from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.package import load_chat

DESCRIPTION, TOKENIZER = "llm.json", "tokenizer.json"


def make(path: Path) -> None:
    import language_models

    from graphopt.compiler.options import Options
    from graphopt.llm.package import compile_llm

    source = path.with_name("source")
    language_models.directory(source)
    compile_llm(source, path, Options.of(precision="int8"))


def use(path: Path) -> None:
    chat = load_chat(path, 1)
    tokens = chat.tokenizer.encode("Hi")
    chat.tokenizer.decode(list(chat.generate(tokens, Sampler(), 2)))


KIND = Kind(
    make,
    [
        *package_accidents(),
        *[Mutation("description", resealed(json_values(DESCRIPTION)))] * 6,
        *[Mutation("tokenizer", resealed(json_values(TOKENIZER)))] * 4,
        Mutation("text", resealed(text(DESCRIPTION)), is_refused=True),
        Mutation("other tokenizer", resealed(text(TOKENIZER)), is_refused=True),
        Mutation("bytes", resealed(text_bytes(DESCRIPTION))),
        Mutation("bytes of the tokenizer", resealed(text_bytes(TOKENIZER))),
        Mutation("noise", resealed(of(TOKENIZER, garbage)), is_refused=True),
    ],
    use,
)
