"""What quantizing a language model costs on real text, beside its own weights in fp32."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from graphopt.bench.llm.models import LLAMA, SMOLLM2, smollm2_file, write_q4_0
from graphopt.compiler.options import Options
from graphopt.dependencies import require
from graphopt.errors import BenchmarkError, GroupSizeError
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.readers.gguf_file import GgufFile

Array = np.ndarray[Any, Any]
Logits = Callable[[Array], Array]

_WINDOW = 512  # tokens that see each other
_MODULES = (
    "argparse",
    "collections",
    "csv",
    "decimal",
    "difflib",
    "doctest",
    "fractions",
    "logging",
    "optparse",
    "random",
    "shutil",
    "statistics",
    "subprocess",
    "tempfile",
    "textwrap",
    "threading",
    "unittest",
    "zipfile",
)
#: Modules whose documentation calibrates: none of those that measure.
_OTHERS = (
    "ast",
    "asyncio",
    "bdb",
    "calendar",
    "concurrent.futures",
    "configparser",
    "contextlib",
    "datetime",
    "email.message",
    "enum",
    "ftplib",
    "functools",
    "heapq",
    "http.client",
    "http.cookiejar",
    "imaplib",
    "ipaddress",
    "itertools",
    "json",
    "locale",
    "mailbox",
    "os",
    "pathlib",
    "pickle",
    "pprint",
    "queue",
    "smtplib",
    "socket",
    "sqlite3",
    "string",
    "tarfile",
    "tokenize",
    "traceback",
    "typing",
    "urllib.request",
    "warnings",
    "xml.sax.handler",
)
_CALIBRATION = 4096  # tokens
#: Ways to round and bits of activations: 16 leave only what the weights lose.
_WAYS = (("nearest", 16), ("scale-search", 16), ("gptq", 16), ("nearest", 8), ("gptq", 8))


def measure(
    model: str,
    folder: Path,
    tokens: int,
    peers: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Compares the next-token distributions of variants with those of the weights in fp32.

    Args:
        model: `smollm2` or a GGUF file with a vocabulary.
        folder: for files that are made.
        tokens: of text, in windows of 512.
        peers: whether llama.cpp runs the same file too.
        progress: told what is done now.

    Returns:
        Rows of `engine`, `kl_mean` and `kl_p99` (nats), `top1` (share of equal most likely
        tokens), `perplexity` and `tokens`.
    """
    file = _file(model)
    ids = np.array(GgufFile(file).tokenizer().encode(text()), np.int64)[:tokens]
    windows = [ids[i : i + _WINDOW] for i in range(0, len(ids) - 1, _WINDOW)]
    exact: list[Array] = []
    rows = []
    for name, logits in _variants(file, folder, peers, progress):
        progress(f"{name}: measuring")
        got = [_log_softmax(logits(window)) for window in windows]
        exact = exact or got
        compared = map(_compare, exact, got, windows)
        rows.append(_row(name, np.concatenate(list(compared))))
    return rows


def text(modules: tuple[str, ...] = _MODULES) -> str:
    """English that every Python has: the documentation in modules of its standard library."""
    parts = []
    for name in modules:
        module = importlib.import_module(name)
        members = [getattr(module, member) for member in getattr(module, "__all__", ())]
        documented = [module, *(m for m in members if inspect.isclass(m) or inspect.isroutine(m))]
        parts += [inspect.getdoc(one) or "" for one in documented]
    return "\n\n".join(part for part in parts if part)


def _file(model: str) -> Path:
    if model == SMOLLM2:
        return smollm2_file()
    if model == LLAMA or not Path(model).is_file():
        raise BenchmarkError(f"the quality of {model!r}: give smollm2 or a GGUF file with words")
    return Path(model)


def _variants(
    file: Path, folder: Path, peers: bool, progress: Callable[[str], None]
) -> Iterator[tuple[str, Logits]]:
    """Name and logits [tokens, vocabulary] of each; the first is exact.

    Groups that do not fit the model are left out.
    """
    gguf = GgufFile(file)
    dense, blocks = gguf.weights(as_blocks=False), gguf.weights()
    known = [gguf.tokenizer().encode(text(_OTHERS))[:_CALIBRATION]]
    yield "fp32", _compiled(dense, "fp32")
    for kind in ("bf16", "int8"):
        yield f"fp32, keys and values in {kind}", _compiled(dense, "fp32", kv_cache=kind)
    yield "as it is, 16-bit activations", _compiled(blocks, "int4", activation_bits=16)
    yield "as it is, 8-bit activations", _compiled(blocks, "int4")
    for group, (rounding, bits) in itertools.product((32, 64), _WAYS):
        name = f"int4 anew, {rounding}, groups of {group}, {bits}-bit activations"
        progress(f"{name}: compiling")
        calibration = None if rounding == "nearest" else known
        how = {
            "group_size": group,
            "activation_bits": bits,
            "rounding": rounding,
            "calibration": calibration,
        }
        try:
            yield name, _compiled(dense, "int4", **how)
        except GroupSizeError:
            continue
    how = {"rounding": "gptq", "calibration": known, "head": "int4"}
    yield "int4 anew with the head, gptq, groups of 32", _compiled(dense, "int4", **how)
    yield "int8, 8-bit activations", _compiled(dense, "int8")
    if peers:
        yield "llama.cpp, same file", _llama_cpp(file)
        write_q4_0(file, folder / "q4_0.gguf")
        yield "llama.cpp, Q4_0 anew", _llama_cpp(folder / "q4_0.gguf")


def _compiled(weights: Any, precision: str, **how: Any) -> Logits:
    _, engine = compile_decoder(weights, Options.of(precision=precision, **how))

    def logits(tokens: Array) -> Array:
        return engine.forward(tokens[None], engine.new_cache(), np.arange(len(tokens)))

    return logits


def _llama_cpp(file: Path) -> Logits:
    llama_cpp = require("llama_cpp", "comparing with llama.cpp")
    model = llama_cpp.Llama(str(file), n_ctx=_WINDOW, logits_all=True, verbose=False)

    def logits(tokens: Array) -> Array:
        model.reset()
        model.eval(tokens.tolist())
        scores: Array = model.scores[: len(tokens)]
        return scores

    return logits


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.asarray(shifted)


def _compare(exact: Array, got: Array, tokens: Array) -> Array:
    """[tokens - 1, 3]: KL, whether the most likely token is the same, log of the one that came."""
    exact, got, came = exact[:-1], got[:-1], tokens[1:]
    kl = (np.exp(exact) * (exact - got)).sum(-1)
    same = exact.argmax(-1) == got.argmax(-1)
    return np.stack([kl, same, got[np.arange(len(came)), came]], 1)


def _row(name: str, values: Array) -> dict[str, Any]:
    kl, same, log = values.T
    return {
        "engine": name,
        "kl_mean": float(kl.mean()),
        "kl_p99": float(np.percentile(kl, 99)),
        "top1": float(same.mean()),
        "perplexity": float(np.exp(-log.mean())),
        "tokens": len(values),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """A line per row."""
    shown = Table()
    shown.add_column("engine")
    for column in ("KL mean", "KL p99", "top-1 equal", "perplexity", "tokens"):
        shown.add_column(column, justify="right")
    for row in rows:
        cells = (f"{row['kl_mean']:.2e}", f"{row['kl_p99']:.2e}", f"{row['top1']:.2%}")
        shown.add_row(row["engine"], *cells, f"{row['perplexity']:.3f}", str(row["tokens"]))
    return shown
