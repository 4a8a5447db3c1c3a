"""What each engine opens for one and the same model."""

from __future__ import annotations

from pathlib import Path

from graphopt.bench.llm.models import LLAMA, bytes_tokenizer, gguf_of
from graphopt.bench.llm.worker import ENGINES
from graphopt.errors import BenchmarkError
from graphopt.llm.package import LlmOptions, compile_llm, save_llm


def prepare(model: str, folder: Path, options: LlmOptions, peers: bool) -> dict[str, Path]:
    """Paths by engine: a package for this one, a GGUF file for llama.cpp.

    Args:
        model: a name of `graphopt.bench.llm.models`, a GGUF file, or a package.
        folder: for what is made.
        options: of the package.
        peers: whether llama.cpp runs too.

    Raises:
        BenchmarkError: for a model that there is not, or a package beside peers.
    """
    if Path(model).is_dir():
        if peers:
            raise BenchmarkError("llama.cpp cannot read a package; give the GGUF file it is of")
        return {"graphopt": Path(model)}
    file = gguf_of(model, folder)
    package = folder / "model.gopt"
    compile_file(file, package, options, model == LLAMA)
    others = {name: file for name in ENGINES if name != "graphopt"}
    return {"graphopt": package, **(others if peers else {})}


def compile_file(file: Path, out: Path, options: LlmOptions, no_vocabulary: bool = False) -> None:
    """Compiles a GGUF file; one without a vocabulary gets bytes for tokens."""
    if not no_vocabulary:
        compile_llm(file, out, options)
        return
    from graphopt.llm.gguf_file import GgufFile

    as_blocks = "int4" in options.precision and not options.requantize
    save_llm(GgufFile(file).weights(as_blocks), bytes_tokenizer(), out, options)
