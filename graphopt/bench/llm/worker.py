"""A program with one engine and one model, for `graphopt.bench.worker.start`.

python -m graphopt.bench.llm.worker graphopt chat.gopt 2 2048
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench.worker import serve

Array = np.ndarray[Any, Any]
_PROMPT = 128
_STRIDE = 7919  # from token to token of a prompt; numpy's generators take memory
_LLAMA_CHUNK = 512  # the default of llama.cpp
_ONNX_CHUNK = 512


class Decoder(ABC):
    """An engine with a model.

    Attributes:
        vocabulary: number of tokens.
        chunk: most tokens that it is fed at a time.
    """

    vocabulary: int
    chunk: int

    @abstractmethod
    def reset(self) -> None:
        """Forgets everything."""

    @abstractmethod
    def feed(self, tokens: Array) -> Array:
        """Logits f32 [vocabulary] behind up to `chunk` tokens, valid until the next call."""


class Graphopt(Decoder):
    """This one, on a package."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        from graphopt.llm.generate.chat import CHUNK
        from graphopt.llm.package import load_engine

        self.chunk = CHUNK
        self._engine = load_engine(path, threads)
        self._cache = self._engine.new_cache()
        self.vocabulary = self._engine.vocabulary

    def reset(self) -> None:
        """Forgets everything."""
        self._cache.crop(0)

    def feed(self, tokens: Array) -> Array:
        """Logits behind the tokens."""
        logits: Array = self._engine.forward(tokens[None], self._cache)[0]
        return logits


class LlamaCpp(Decoder):
    """llama.cpp by its C interface in llama-cpp-python, on a GGUF file."""

    flash_attention = False
    chunk = _LLAMA_CHUNK

    def __init__(self, path: str, threads: int, context: int) -> None:
        from graphopt.dependencies import require

        llama_cpp = require("llama_cpp", "comparing with llama.cpp")
        self._c = llama_cpp
        self._model = llama_cpp.Llama(
            path,
            n_ctx=context,
            n_batch=_LLAMA_CHUNK,
            n_ubatch=_LLAMA_CHUNK,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=self.flash_attention,
            verbose=False,
        )
        self.vocabulary = self._model.n_vocab()

    def reset(self) -> None:
        """Forgets everything."""
        self._c.llama_memory_clear(self._c.llama_get_memory(self._model.ctx), True)

    def feed(self, tokens: Array) -> Array:
        """Logits behind the tokens."""
        given = (self._c.llama_token * len(tokens))(*tokens.tolist())
        batch = self._c.llama_batch_get_one(given, len(tokens))
        if self._c.llama_decode(self._model.ctx, batch):
            raise RuntimeError("llama_decode failed")
        logits = self._c.llama_get_logits_ith(self._model.ctx, -1)
        return np.ctypeslib.as_array(logits, (self.vocabulary,))


class LlamaCppFlash(LlamaCpp):
    """The same with its flash attention."""

    flash_attention = True


class OnnxRuntime(Decoder):
    """onnxruntime's CPU provider, on a file of `graphopt.bench.llm.onnx_decoder`."""

    chunk = _ONNX_CHUNK

    def __init__(self, path: str, threads: int, context: int) -> None:
        from graphopt.dependencies import require

        ort = require("onnxruntime", "comparing with onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        for port in self._session.get_inputs():
            if not port.name.startswith("past_"):
                continue
            _, heads, _, width = port.shape
            rows = np.zeros((1, heads, context, width), np.float32)
            buffer = ort.OrtValue.ortvalue_from_numpy(rows)
            self._binding.bind_ortvalue_input(port.name, buffer)
            self._binding.bind_ortvalue_output(port.name.replace("past", "present"), buffer)
        self._binding.bind_output("logits")
        self.vocabulary = self._session.get_outputs()[0].shape[1]
        self._past = 0

    def reset(self) -> None:
        """Forgets everything."""
        self._past = 0

    def feed(self, tokens: Array) -> Array:
        """Logits behind the tokens."""
        self._past += len(tokens)
        self._binding.bind_cpu_input("tokens", tokens[None].astype(np.int64))
        self._binding.bind_cpu_input("seen", np.array([self._past - 1], np.int32))
        self._binding.bind_cpu_input("total", np.array([self._past], np.int32))
        self._session.run_with_iobinding(self._binding)
        logits: Array = self._binding.get_outputs()[-1].numpy()[0]
        return logits


ENGINES: dict[str, Callable[[str, int, int], Decoder]] = {
    "graphopt": Graphopt,
    "llama.cpp": LlamaCpp,
    "llama.cpp flash-attn": LlamaCppFlash,
    "onnxruntime": OnnxRuntime,
}


class Tasks:
    """What is measured of a decoder.

    Args:
        engine: one of `ENGINES`.
        path: of its model.
        threads: for it.
        context: most tokens.
    """

    def __init__(self, engine: str, path: str, threads: int, context: int) -> None:
        self._new = partial(ENGINES[engine], path, threads, context)

    def load(self) -> float:
        """Seconds from opening the file to the first token behind a prompt of one."""
        start = time.perf_counter()
        self._decoder = self._new()
        self._decoder.feed(np.array([0]))
        return time.perf_counter() - start

    def prefill(self, count: int) -> float:
        """Seconds until the logits behind a prompt of that many tokens are there."""
        decoder = self._decoder
        tokens = _STRIDE * np.arange(count) % decoder.vocabulary
        decoder.reset()
        start = time.perf_counter()
        for first in range(0, count, decoder.chunk):
            decoder.feed(tokens[first : first + decoder.chunk])
        return time.perf_counter() - start

    def decode(self, count: int) -> float:
        """Seconds for that many tokens one after the other, each the most likely one."""
        self.prefill(_PROMPT)
        token = 0
        start = time.perf_counter()
        for _ in range(count):
            token = int(self._decoder.feed(np.array([token])).argmax())
        return time.perf_counter() - start

    def peak(self, count: int) -> float:
        """Largest resident memory of this process when a context of tokens is full; MiB."""
        self.prefill(count)
        status = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


def main() -> None:
    """Serves the tasks of the engine that the command line names."""
    engine, path, threads, context = sys.argv[1:]
    serve(Tasks(engine, path, int(threads), int(context)))


if __name__ == "__main__":
    main()
