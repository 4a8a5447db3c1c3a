"""Model directories of Hugging Face, read whole: weights and tokenizer."""

from pathlib import Path

from fuzz.files import Kind
from mutations import Mutation, accidents, json_values, number, of, of_header, text, text_bytes

from graphopt.compiler.options import Options
from graphopt.llm.package import read_model

WEIGHTS = "model.safetensors"
TEXTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def make(path: Path) -> None:
    import language_models

    language_models.directory(path)


def use(path: Path) -> None:
    _, tokenizer = read_model(path, Options.of(precision="int4"))
    tokenizer.encode("hello")


KIND = Kind(
    make,
    [
        *accidents(is_refused=False),
        *[Mutation(f"values of {name}", json_values(name)) for name in TEXTS] * 3,
        *[Mutation(f"text of {name}", text(name)) for name in TEXTS],
        *[Mutation(f"bytes of {name}", text_bytes(name)) for name in TEXTS],
        *[Mutation("header", of(WEIGHTS, of_header(1024)))] * 8,
        *[Mutation("number", of(WEIGHTS, number))] * 4,
    ],
    use,
)
