"""What a precision does to real decisions: character errors of the small recognizer.

Every engine runs the encoder and the decoder; between them stands FunASR's CIF predictor in fp32.
The speech is made by espeak-ng in voices that the model never heard, so the bench needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from graphopt.bench.engines import Call, Engine, Stage, Workload
from graphopt.bench.worker import reason
from graphopt.dependencies import require
from graphopt.funasr.directory import build_model, read_directory
from graphopt.funasr.package import captured_parts
from graphopt.zoo.recognizer import MODEL, loading, speech

NOISE_DB = 10.0
_PER_VARIANT = 20  # utterances of each held-out voice, as in docs/recognizer.md
START_OF_TEXT = 3  # ids below are <blank>, <s> and </s>, which FunASR drops


@dataclass(frozen=True)
class Condition:
    """Utterances to recognize.

    Attributes:
        name: "clean", or the noise.
        texts: What is said.
        features: What the encoder takes, f32[1, T, 560] each.
    """

    name: str
    texts: list[str]
    features: list[np.ndarray[Any, Any]]


@dataclass
class Score:
    """What one engine understood.

    Attributes:
        engine: Its name.
        errors: Character error rate by condition.
        changed: Texts that differ from the first engine's, all conditions together.
        total: All texts.
        missing: Why the engine did not run, or "".
    """

    engine: str
    errors: dict[str, float]
    changed: int = 0
    total: int = 0
    missing: str = ""


def conditions(auto_model: Any, per_variant: int, seed: int = 1) -> list[Condition]:
    """The held-out utterances, clean and in noise.

    Args:
        auto_model: FunASR's, whose front end makes the features.
        per_variant: Utterances of each held-out voice.
        seed: Seed of utterances and noise.

    Raises:
        MissingToolError: If espeak-ng is not installed.
    """
    rng = np.random.default_rng(seed)
    said = speech.held_out_utterances(per_variant, seed)
    signals = [speech.synthesize(utterance) for utterance in said]
    noisy = [speech.add_noise(signal, NOISE_DB, rng) for signal in signals]
    texts = [utterance.text for utterance in said]
    return [
        Condition(name, texts, [loading.features(auto_model, s).numpy() for s in group])
        for name, group in (("clean", signals), (f"noise, {NOISE_DB:.0f} dB", noisy))
    ]


def workload(auto_model: Any, inputs: Sequence[np.ndarray[Any, Any]], folder: Path) -> Workload:
    """A workload that recognizes every utterance alone and gives its token ids by its number.

    Args:
        auto_model: FunASR's, with the recognizer.
        inputs: Features of each utterance, f32[1, T, 560].
        folder: Where engines export to.
    """
    torch = require("torch", "the recognizer")
    encoder, predictor, decoder = loading.export_parts(auto_model)

    def embed(memory: Any) -> tuple[Any, Any]:
        mask = torch.ones(1, 1, memory.shape[1])
        embeds, count = predictor(memory, mask=mask)[:2]
        return embeds, count.round().to(torch.int32)

    def run(calls: dict[str, Call]) -> dict[str, np.ndarray[Any, Any]]:
        ids = {}
        for number, speech_features in enumerate(inputs):
            length = np.array([speech_features.shape[1]], np.int32)
            memory = calls["encoder"](speech_features, length)[0]
            with torch.inference_mode():
                embeds, count = embed(torch.from_numpy(memory))
            if int(count) < 1:
                ids[str(number)] = np.zeros(0, np.int64)
                continue
            logits = calls["decoder"](memory, length, embeds.numpy(), count.numpy())[0]
            ids[str(number)] = logits[0].argmax(-1)
        return ids

    example = torch.from_numpy(inputs[0])
    length = torch.tensor([example.shape[1]], dtype=torch.int32)
    with torch.inference_mode():
        memory = encoder(example, length)[0]
        embeds, count = embed(memory)
    return Workload(
        title=f"{len(inputs)} utterances",
        stages=[
            Stage(
                "encoder",
                encoder,
                (example, length),
                ["speech", "speech_lengths"],
                ["memory", "memory_lengths"],
                {"speech": {1: "frames"}, "memory": {1: "frames"}},
            ),
            Stage(
                "decoder",
                decoder,
                (memory.clone(), length, embeds.clone(), count.clone()),
                ["memory", "memory_lengths", "embeds", "token_lengths"],
                ["logits", "logits_lengths"],
                {"memory": {1: "frames"}, "embeds": {1: "tokens"}, "logits": {1: "tokens"}},
            ),
        ],
        run=run,
        folder=folder,
    )


def score(
    auto_model: Any,
    heard: Sequence[Condition],
    engines: Sequence[Engine],
    folder: Path,
    threads: int = 1,
) -> list[Score]:
    """Run every engine over every condition.

    Args:
        auto_model: FunASR's, with the recognizer.
        heard: The conditions.
        engines: The engines; ``changed`` compares with the first one that runs.
        folder: Where engines export to.
        threads: Threads of each engine.

    Returns:
        One score an engine, in their order; those that failed say why.
    """
    inputs = [x for condition in heard for x in condition.features]
    work = workload(auto_model, inputs, folder)
    scores: list[Score] = []
    first: list[str] = []
    for engine in engines:
        try:
            engine.prepare(work, threads)
            outputs = engine.run()
        except Exception as error:  # a peer may fail in its own way; the table tells
            scores.append(Score(engine.name, {}, missing=reason(error)))
            continue
        texts = [spell(auto_model, outputs[str(n)]) for n in range(len(inputs))]
        first = first or texts
        changed = sum(a != b for a, b in zip(texts, first, strict=True))
        scores.append(Score(engine.name, _rates(heard, texts), changed, len(texts)))
    return scores


def tunable() -> tuple[Any, tuple[Any, ...]]:
    """The recognizer from features to token ids, and some speech: for `graphopt tune`."""
    torch = require("torch", "the recognizer")
    _, heard = _heard()
    directory = read_directory(MODEL)
    module, _ = captured_parts(build_model(directory), directory)["asr"]
    longest = sorted(heard[0].features, key=lambda x: x.shape[1])[-2:]
    lengths = torch.tensor([x.shape[1] for x in longest])
    batch = torch.zeros(len(longest), int(lengths.max()), longest[0].shape[2])
    for row, x in zip(batch, longest, strict=True):
        row[: x.shape[1]] = torch.from_numpy(x[0])
    return module, (batch, lengths)


def character_errors(recognize: Any) -> float:
    """Character error rate of held-out speech, clean and noisy: a measure for `graphopt tune`.

    Args:
        recognize: called like the first of `tunable`.
    """
    torch = require("torch", "the recognizer")
    asr, heard = _heard()
    texts = []
    for x in (x for condition in heard for x in condition.features):
        with torch.inference_mode():
            ids, counts, *_ = recognize(torch.from_numpy(x), torch.tensor([x.shape[1]]))
        texts.append(spell(asr, ids[0, : int(counts[0])].numpy()))
    return float(np.mean(list(_rates(heard, texts).values())))


@cache
def _heard() -> tuple[Any, list[Condition]]:
    """FunASR's own, and what is said to it."""
    asr = loading.load_recognizer()
    return asr, conditions(asr, _PER_VARIANT)


def spell(auto_model: Any, ids: np.ndarray[Any, Any]) -> str:
    """Text of token ids, by FunASR's own rules for Chinese characters and English pieces."""
    rules = require("funasr.utils.postprocess_utils", "spelling tokens")
    tokenizer = auto_model.kwargs["tokenizer"]
    tokens = tokenizer.ids2tokens([int(i) for i in ids if i >= START_OF_TEXT])
    return str(rules.sentence_postprocess(tokens)[0])


def character_error_rate(expected: Sequence[str], said: Sequence[str]) -> float:
    """Edits from what was said to what was expected over expected characters, without spaces."""
    pairs = [(a.replace(" ", ""), b.replace(" ", "")) for a, b in zip(expected, said, strict=True)]
    return sum(edit_distance(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def table(scores: Sequence[Score]) -> Table:
    """One row an engine."""
    shown = Table()
    shown.add_column("engine")
    names = list(scores[0].errors)
    for column in (*(f"CER, {name}" for name in names), "texts changed"):
        shown.add_column(column, justify="right")
    for one in scores:
        if one.missing:
            shown.add_row(one.engine, one.missing)
            continue
        rates = [f"{one.errors[name]:.2%}" for name in names]
        shown.add_row(one.engine, *rates, f"{one.changed} of {one.total}")
    return shown


def _rates(heard: Sequence[Condition], texts: Sequence[str]) -> dict[str, float]:
    rates, start = {}, 0
    for condition in heard:
        own = texts[start : start + len(condition.texts)]
        rates[condition.name] = character_error_rate(condition.texts, own)
        start += len(own)
    return rates


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            change = previous + (x != y)
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, change)
    return row[-1]
