"""Packages of a language model: a decoder and its tokenizer, for machines without torch.

chat.gopt/
llm.json          what caches are made of, vocabulary and chat format, in JSON
tokenizer.json    as the `tokenizers` package writes it
decoder/          the package of the decoder
SHA256SUMS        of all files
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphopt.dtype import DType
from graphopt.errors import ModelFileError, PackageCorruptError
from graphopt.llm.generate.cache import CacheShape
from graphopt.llm.generate.chat import Chat
from graphopt.llm.generate.engine import Engine
from graphopt.llm.generate.tokenizer import ChatFormat, Tokenizer, read_tokenizer
from graphopt.runtime import structure
from graphopt.runtime.fields import Name, Size
from graphopt.runtime.loaded import open_module
from graphopt.runtime.package import Manifest
from graphopt.runtime.sealed import SealedFolder, open_sealed, seal
from graphopt.runtime.signing import PublicKey
from graphopt.runtime.staging import check_place, replaced_folder

if TYPE_CHECKING:
    from graphopt.compiler.options import Options
    from graphopt.compiler.program import Program
    from graphopt.ir.loss import Loss
    from graphopt.llm.decoder.graph import DecoderWeights

DESCRIPTION = "llm.json"
TOKENIZER = "tokenizer.json"
DECODER = "decoder"
FORMAT = 1
#: Rows of an emulated cache, which is written to a file and read again with every token.
_EMULATED_CONTEXT = 512


@dataclass(frozen=True)
class Description:
    """What `llm.json` says.

    Attributes:
        format: version of the format.
        name: of the decoder.
        vocabulary: number of tokens.
        cache: what caches are made of.
        chat: chat format.
    """

    format: int
    name: Name
    vocabulary: Size
    cache: CacheShape
    chat: ChatFormat


@dataclass(frozen=True)
class WeightsSummary:
    """What became of the weights.

    Attributes:
        bytes: of all of them, as kernels read them.
        head_bytes: of those, of the head and the embedding.
        loss: mean over the products whose weights were rounded; None if none were.
    """

    bytes: int
    head_bytes: int
    loss: Loss | None

    def __str__(self) -> str:
        mib = 2**20
        text = (
            f"weights {self.bytes / mib:.1f} MiB, of them head and embedding "
            f"{self.head_bytes / mib:.1f} MiB"
        )
        return text if self.loss is None else f"{text}; rounding lost {self.loss} (mean share)"


def compile_llm(source: str | Path, out: str | Path, options: Options) -> WeightsSummary:
    """Compiles a language model into a package for `graphopt chat`.

    Args:
        source: a GGUF file, or a model directory: of Hugging Face, which needs `transformers`, or
            in Meta's layout.
        out: the folder to make; an older package there is replaced.
        options: target and precision.

    Returns:
        What became of the weights.

    Raises:
        ModelFileError: naming what of the source is missing, damaged or not understood.
        UnsupportedDecoderError: naming what the graph cannot express.
        GroupSizeError: if the group does not divide a depth.
        UnknownPrecisionError: for an unknown kind of cache or of head.
        OptionError: for an option that the precision does not use, and a context that the model
            does not have.
        PackageError: if something that is no package is in the way.
    """
    from graphopt.llm.compiled import check_options

    source = Path(source)
    check_options(options)
    check_place(out, [DESCRIPTION])
    weights, tokenizer = read_model(source, options)
    return save_llm(weights, tokenizer, out, options)


def read_model(source: Path, options: Options) -> tuple[DecoderWeights, Tokenizer]:
    """Weights and tokenizer of a GGUF file or a model directory."""
    if os.path.isdir(source):
        from graphopt.llm.readers.meta_checkpoint import is_meta_checkpoint, read_meta_checkpoint
        from graphopt.llm.readers.meta_tokenizer import read_meta_tokenizer

        if is_meta_checkpoint(source):
            weights = read_meta_checkpoint(source, options.as_blocks, options.context)
            return weights, read_meta_tokenizer(source)
        from graphopt.llm.readers.transformers_model import read_directory

        tokenizer = read_tokenizer(source)
        return read_directory(source, options.context), tokenizer
    if not os.path.isfile(source):
        raise ModelFileError(source, "there is no such file or directory")
    from graphopt.llm.readers.gguf_file import GgufFile

    file = GgufFile(source)
    return file.weights(options.as_blocks, options.context), file.tokenizer()


def save_llm(
    weights: DecoderWeights, tokenizer: Tokenizer, out: str | Path, options: Options
) -> WeightsSummary:
    """Compiles a decoder and writes it with its tokenizer, whole or not at all.

    Args:
        weights: of the decoder.
        tokenizer: its own; calibration that is text is read by it.
        out: the folder to make; an older package there is replaced.
        options: target and precision.

    Returns:
        What became of the weights.

    Raises:
        GroupSizeError, UnknownPrecisionError, CalibrationError: as for `compile_decoder`.
        PackageError: if something that is no package is in the way.
    """
    from graphopt.compiler.program import Signature
    from graphopt.llm.compiled import compile_decoder

    if isinstance(options.calibration, str):
        options = replace(options, calibration=[tokenizer.encode(options.calibration)])
    with replaced_folder(out, [DESCRIPTION]) as staging:
        program, engine = compile_decoder(weights, options)
        leaves = tuple(structure.Leaf(i) for i in range(len(program.graph.inputs)))
        names = tuple(value.name for value in program.graph.inputs)
        signature = Signature((leaves, {}), structure.Leaf(0), names, ("logits",))
        program.write(staging / DECODER, signature)
        (staging / TOKENIZER).write_text(tokenizer.text, encoding="utf-8")
        described = Description(
            FORMAT, program.graph.name, engine.vocabulary, engine.cache_shape, tokenizer.chat
        )
        named = asdict(described)
        named["cache"]["dtype"] = engine.cache_shape.dtype.value
        text = json.dumps(named, indent=1)
        (staging / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        seal(staging)
    return _summary(program)


def _summary(program: Program) -> WeightsSummary:
    from graphopt.ir.loss import mean_loss
    from graphopt.ir.ops import Linear

    nodes, weights = program.graph.nodes, program.module.memory.weights
    ends = [n for n in nodes if n.origin.module.partition(".")[0] in ("head", "embedding")]
    values = {value for node in ends for value in node.inputs}
    losses = [n.op.loss for n in nodes if isinstance(n.op, Linear) and n.op.loss is not None]
    return WeightsSummary(weights.bytes, weights.bytes_of(values), mean_loss(losses))


def load_chat(
    path: str | Path,
    threads: int | None = None,
    emulate: bool = False,
    trusted_keys: Sequence[PublicKey] | None = None,
) -> Chat:
    """Opens a package of `graphopt compile llm`; the weights are mapped, not read.

    Args:
        path: the package.
        threads: threads of a run; all CPUs that this process may use if None.
        emulate: run the package's own code under qemu, on a context of at most 512 tokens.
        trusted_keys: as for `graphopt.load`.

    Raises:
        PackageError: if it is none, or of another format.
        PackageCorruptError: if a file is missing, truncated or altered.
        UntrustedPackageError, SigningKeyError: as for `graphopt.load`.
        MissingDependencyError: without the `tokenizers` package.
    """
    package = open_sealed(path, DESCRIPTION, "package of a language model", trusted_keys)
    described = package.read(DESCRIPTION, Description, FORMAT)
    try:
        tokenizer = Tokenizer(package.text(TOKENIZER), described.chat)
    except ValueError as error:
        raise PackageCorruptError(package.path, f"{TOKENIZER} is {error}") from error
    return Chat(_engine(package, described, threads, emulate), tokenizer)


def load_engine(
    path: str | Path,
    threads: int | None = None,
    emulate: bool = False,
    trusted_keys: Sequence[PublicKey] | None = None,
) -> Engine:
    """Opens the decoder of a package alone, for tokens that come from elsewhere; see `load_chat`.

    Args:
        path: the package.
        threads: threads of a run; all CPUs that this process may use if None.
        emulate: run the package's own code under qemu, on a context of at most 512 tokens.
        trusted_keys: as for `graphopt.load`.

    Raises:
        PackageError: if it is none, or of another format.
        PackageCorruptError: if a file is missing, truncated or altered.
        UntrustedPackageError, SigningKeyError: as for `graphopt.load`.
    """
    package = open_sealed(path, DESCRIPTION, "package of a language model", trusted_keys)
    described = package.read(DESCRIPTION, Description, FORMAT)
    return _engine(package, described, threads, emulate)


def _engine(
    package: SealedFolder, described: Description, threads: int | None, emulate: bool
) -> Engine:
    module = open_module(package.folder(DECODER), threads)
    _check_ports(package, described, module.manifest)
    shape, vocabulary = described.cache, described.vocabulary
    if not emulate:
        return Engine(module.run, vocabulary, shape)
    shape = replace(shape, context=min(shape.context, _EMULATED_CONTEXT))
    return Engine(lambda inputs: [module.emulate(*inputs)], vocabulary, shape)


def _check_ports(package: SealedFolder, described: Description, decoder: Manifest) -> None:
    """Refuses a description that is not of the decoder beside it."""
    cache = described.cache
    rows: tuple[int | str, ...] = (cache.layers, 2, "B", "S", cache.kv_heads, cache.head_dim)
    states = [(cache.dtype.value, rows)]
    if cache.dtype is DType.I8:
        states.append((DType.F32.value, (cache.layers, 2, "B", cache.kv_heads, "S")))
    wanted = (*states, (DType.F32.value, ("R", described.vocabulary)))
    ports = (*(port for port in decoder.inputs if port.is_state), *decoder.outputs)
    found = tuple((DType(port.dtype).value, tuple(port.shape)) for port in ports)
    if found != wanted:
        reason = f"{DESCRIPTION} says {wanted} of keys, values and logits, the decoder {found}"
        raise PackageCorruptError(package.path, reason)
