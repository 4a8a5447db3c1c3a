"""The files of a model directory; a `ValueError` says what keeps one from being read."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from graphopt.dependencies import require
from graphopt.plain_files import read_plain, read_text
from graphopt.runtime.fields import Distinct, FieldError, Length, parse_json, read_fields

Array = np.ndarray[Any, Any]

_DEEPEST = 16  # maps and lists in each other
_YAML_BYTES = 1 << 18  # which take a second to parse
_CMVN_BYTES = 1 << 24
_Tokens = Annotated[tuple[str, ...], Length(1, 1 << 20), Distinct()]


def read_yaml(file: Path) -> dict[str, Any]:
    """A map of plain values by name, none of them NaN or infinite.

    Raises:
        OSError, ValueError: if it is none; aliases, keys that come twice and interpolations such as
            `${name}` are refused.
    """
    yaml = require("yaml", f"reading {file.name}")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError(f"an alias in line {self.peek_event().start_mark.line + 1}")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            counts = Counter(str(key.value) for key, _ in node.value)
            if twice := [name for name, count in counts.items() if count > 1]:
                raise ValueError(f"{twice[0][:60]} is there twice")
            return super().construct_mapping(node, deep)

    text = read_text(file, _YAML_BYTES)
    try:
        found = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no YAML: {' '.join(str(error).split())[:300]}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no map of settings")
    _check_values(found, "", 0)
    return found


def _check_values(value: Any, where: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{where}{name!r:.60} is no name")
            _check_values(item, f"{where}{name[:60]}.", depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, where, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where.rstrip('.')}: {value} is not finite")
    elif isinstance(value, str) and ("${" in value or (not value.isascii() and _is_broken(value))):
        raise ValueError(f"{where.rstrip('.')}: {value!a:.60} is no plain text")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{where.rstrip('.')} is of type {type(value).__name__}")


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def read_listing(file: Path) -> dict[str, Any]:
    """The map in `configuration.json`.

    Raises:
        OSError, ValueError: if it is none.
    """
    listing = parse_json(read_text(file))
    if not isinstance(listing, dict):
        raise ValueError("it is no map")
    return listing


def read_tokens(file: Path) -> tuple[str, ...]:
    """The vocabulary of a `.json` file, or one with a token in each line.

    Raises:
        OSError, ValueError: if it is none, or a token is there twice.
    """
    text = read_text(file)
    listed = parse_json(text) if file.suffix == ".json" else [x.rstrip() for x in text.split("\n")]
    if file.suffix != ".json" and listed and not listed[-1]:
        listed.pop()
    try:
        return read_fields(_Tokens, listed)
    except FieldError as error:
        raise ValueError(f"it is no list of tokens: {error}") from None


def read_pieces(file: Path) -> tuple[str, ...]:
    """The pieces of a vocabulary of sentencepiece.

    Raises:
        OSError, ValueError: if it is none.
        MissingDependencyError: if sentencepiece is not installed.
    """
    sentencepiece = require("sentencepiece", "reading SenseVoice's vocabulary")
    content = read_plain(file)
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
        return tuple(pieces.IdToPiece(i) for i in range(pieces.GetPieceSize()))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"sentencepiece cannot read it ({error})") from error


def read_cmvn(file: Path) -> Array:
    """Shift and scale, f32[2, features], of a kaldi nnet file with AddShift and Rescale.

    Raises:
        OSError, ValueError: if the file has other parts than these two, or they no finite numbers.
    """
    words = read_text(file, _CMVN_BYTES).split()
    rows = []
    for name in ("<AddShift>", "<Rescale>"):
        try:
            begin = words.index("[", words.index(name)) + 1
            with np.errstate(over="ignore"):
                row = np.array(words[begin : words.index("]", begin)], np.float64)
                rows.append(row.astype(np.float32))
        except ValueError as error:
            raise ValueError(f"it has no {name} [...]") from error
    if len(rows[0]) != len(rows[1]):
        raise ValueError("shift and scale differ in length")
    found = np.stack(rows)
    if not np.isfinite(found).all():
        raise ValueError("shift or scale is not finite")
    return found
