"""What each engine opens for one and the same model."""

from __future__ import annotations

from pathlib import Path

from graphopt.bench.llm.models import LLAMA, bytes_tokenizer, empty_llama, gguf_of
from graphopt.bench.llm.onnx_decoder import write_onnx
from graphopt.bench.llm.worker import ENGINES
from graphopt.compiler.options import Options
from graphopt.errors import BenchmarkError, GraphoptError, MissingDependencyError
from graphopt.llm.decoder.graph import DecoderWeights
from graphopt.llm.package import compile_llm, save_llm


def prepare(
    model: str, folder: Path, options: Options, peers: bool
) -> dict[str, Path | GraphoptError]:
    """Paths by engine: a package for this one, the same weights as GGUF and as ONNX for others.

    Args:
        model: a name of `graphopt.bench.llm.models`, a GGUF file, or a package.
        folder: for what is made.
        options: of the package.
        peers: whether llama.cpp and onnxruntime run too.

    Returns:
        By engine the path, or why there is none.

    Raises:
        BenchmarkError: for an unknown model, or a package beside peers.
    """
    if Path(model).is_dir():
        if peers:
            raise BenchmarkError("other engines cannot read a package; give its GGUF file")
        return {"graphopt": Path(model)}
    file = gguf_of(model, folder)
    package = folder / "model.gopt"
    compile_file(file, package, options, model == LLAMA)
    paths: dict[str, Path | GraphoptError] = {"graphopt": package}
    if peers:
        paths |= {name: file for name in ENGINES if name.startswith("llama.cpp")}
        paths["onnxruntime"] = _as_onnx(file, folder / "model.onnx")
    return paths


def _as_onnx(file: Path, out: Path) -> Path | GraphoptError:
    from graphopt.llm.readers.gguf_file import GgufFile

    try:
        write_onnx(GgufFile(file).weights(), out)
    except (BenchmarkError, MissingDependencyError) as error:
        return error
    return out


def compile_file(file: Path, out: Path, options: Options, no_vocabulary: bool = False) -> None:
    """Compiles a GGUF file into a package.

    Args:
        file: the GGUF file.
        out: the folder to make.
        options: target and precision.
        no_vocabulary: whether the file has none, so that bytes become tokens.

    Raises:
        GraphoptError: see `compile_llm`.
    """
    if not no_vocabulary:
        compile_llm(file, out, options)
        return
    from graphopt.llm.readers.gguf_file import GgufFile

    save_llm(GgufFile(file).weights(options.as_blocks), bytes_tokenizer(), out, options)


def weights_of(model: str, folder: Path, options: Options) -> DecoderWeights:
    """Weights for a plan, where only sizes count; those of Llama 3.2 1B have no values.

    Args:
        model: a name of `graphopt.bench.llm.models`, or a GGUF file.
        folder: for a GGUF file that is made.
        options: of the plan; they say whether quantized weights stay so.

    Raises:
        BenchmarkError: for an unknown model, or a package, which holds no graph.
    """
    if Path(model).is_dir():
        raise BenchmarkError("a package cannot be planned for another machine; give its GGUF file")
    if model == LLAMA:
        return empty_llama(options.as_blocks)
    from graphopt.llm.readers.gguf_file import GgufFile

    return GgufFile(gguf_of(model, folder)).weights(options.as_blocks)
