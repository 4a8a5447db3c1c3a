"""GGUF files, read whole: weights and tokenizer."""

import random
from pathlib import Path

from fuzz.files import Kind
from mutations import Mutation, accidents, number, of_header

from graphopt.llm.readers.gguf_file import GgufFile


def make(path: Path) -> None:
    import language_models

    language_models.gguf(path)


def use(path: Path) -> None:
    file = GgufFile(path)
    file.weights()
    file.tokenizer().encode("hello")


def key(path: Path, rng: random.Random) -> None:
    """Other letters in the name of a key or a tensor."""
    data = bytearray(path.read_bytes())
    name = rng.choice([b"llama.", b"tokenizer.", b"blk.0", b".weight", b"general."])
    places = [at for at in range(len(data)) if data.startswith(name, at)]
    at = rng.choice(places) + rng.randrange(len(name))
    data[at] = rng.choice(b"abcxyz.")
    path.write_bytes(data)


KIND = Kind(
    make,
    [
        *[a for a in accidents(is_refused=False) if a.name not in ("block", "garbage", "grow")],
        *[Mutation("header", of_header(8192))] * 6,
        *[Mutation("number", number)] * 4,
        *[Mutation("key", key)] * 4,
    ],
    use,
)
