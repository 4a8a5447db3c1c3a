"""Model directories in Meta's layout, read whole: weights and tokenizer."""

from pathlib import Path

from fuzz.files import Kind
from mutations import Mutation, accidents, garbage, json_values, of, text, text_bytes

from graphopt.compiler.options import Options
from graphopt.llm.package import read_model

PARAMETERS, WEIGHTS, TOKENIZER = "params.json", "consolidated.00.pth", "tokenizer.model"


def make(path: Path) -> None:
    import language_models

    language_models.meta(path)


def use(path: Path) -> None:
    _, tokenizer = read_model(path, Options.of(precision="int4"))
    tokenizer.encode("hello")


KIND = Kind(
    make,
    [
        *accidents(is_refused=False),
        *[Mutation("values", json_values(PARAMETERS))] * 5,
        Mutation("text", text(PARAMETERS), is_refused=True),
        Mutation("bytes", text_bytes(PARAMETERS)),
        Mutation("tokenizer", text_bytes(TOKENIZER)),
        *[Mutation("noise", of(WEIGHTS, garbage), is_refused=True)] * 2,
    ],
    use,
)
