"""`AutoModel.inference` for many recordings: those of like lengths in one batch.

FunASR takes recordings into batches as they come and pads them to the longest; a compiled part
computes the padding like the rest.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphopt.dependencies import require
from graphopt.errors import RecognizerOptionError
from graphopt.funasr.audio.batches import plan_batches

_LISTS = (".scp", ".txt", ".json", ".jsonl", ".text")  # files that name recordings


class SortedInference:
    """Takes the place of the method of an AutoModel whose model recognizes speech.

    `batch_size` is the most recordings of a batch, 1 by default as in FunASR; `batch_size_s` the
    most seconds of a batch with its padding, which FunASR asks for only behind a VAD. Results come
    in the order of the recordings. What else is asked goes to FunASR's method as it is.

    Args:
        auto_model: a `funasr.AutoModel`.
    """

    def __init__(self, auto_model: Any) -> None:
        self._auto_model = auto_model

    def __call__(
        self,
        input: Any,
        input_len: Any = None,
        model: Any = None,
        kwargs: Any = None,
        key: Any = None,
        progress_callback: Callable[[int, int], None] | None = None,
        **cfg: Any,
    ) -> Any:
        """As `AutoModel.inference`."""
        infer = functools.partial(type(self._auto_model).inference, self._auto_model)
        other = (input_len, model, kwargs, key)
        batches = None
        if all(given is None for given in other) and _is_list(input, cfg):
            keys, recordings = _recordings(input)
            batches = self._plan(recordings, cfg)
        if batches is None:
            return infer(input, *other, progress_callback, **cfg)
        results: list[Any] = [None] * len(recordings)
        done = 0
        for batch in batches:
            made = infer([recordings[i] for i in batch], **{**cfg, "batch_size": len(batch)})
            if len(made) != len(batch):  # FunASR has one result for a batch without a token
                made = [{"text": ""} for _ in batch]
            for i, result in zip(batch, made, strict=True):
                results[i] = {**result, "key": keys[i]}
            done += len(batch)
            if progress_callback is not None:
                progress_callback(done, len(recordings))
        return results

    def _plan(self, recordings: Sequence[Any], cfg: dict[str, Any]) -> list[list[int]] | None:
        """Batches of positions; None if FunASR should go its way.

        Raises:
            RecognizerOptionError: if a size of batches is no positive number.
        """
        settings = {**self._auto_model.kwargs, **cfg}
        seconds = settings.get("batch_size_s")
        most = settings.get("batch_size", 1)
        for name, value, kind in (
            ("batch_size_s", seconds, numbers.Real),
            ("batch_size", most, numbers.Integral),
        ):
            if value is not None and (
                not isinstance(value, kind) or not 0 < float(value) < math.inf
            ):
                raise RecognizerOptionError(name, value, ["a positive number"])
        if seconds is not None and "batch_size" not in cfg:
            most = len(recordings)
        if most <= 1 or settings.get("output_dir") is not None:
            return None
        lengths = [_milliseconds(recording, settings.get("fs", 16000)) for recording in recordings]
        known = [max(1, length) for length in lengths if length is not None]
        if len(known) < len(lengths):
            return None
        limit = sum(known) * len(known) if seconds is None else int(1000 * seconds)
        return plan_batches(known, limit, most=most)


def _is_list(input: Any, cfg: dict[str, Any]) -> bool:
    if cfg.get("data_type", "sound") not in (None, "sound"):
        return False
    if isinstance(input, str):
        return input.lower().endswith(_LISTS) and Path(input).is_file()
    return isinstance(input, list | tuple)


def _recordings(input: Any) -> tuple[list[str], Sequence[Any]]:
    """Their names in results, and paths or samples."""
    module = require("funasr.auto.auto_model", "reading lists of recordings")
    keys, recordings = module.prepare_data_iterator(input)
    return keys, recordings


def _milliseconds(recording: Any, fs: int) -> int | None:
    """How long a recording is; None if it does not say."""
    if isinstance(recording, str):
        soundfile = require("soundfile", "reading recordings")
        try:
            about = soundfile.info(recording)
        except (RuntimeError, OSError):
            return None
        return int(1000 * about.frames / about.samplerate)
    shape: tuple[int, ...] = getattr(recording, "shape", ())
    return int(1000 * shape[0] / fs) if len(shape) == 1 else None
