"""What the small recognizer understands: digits and commands, in Mandarin and English.

Tokens are those of FunASR's Paraformer models: one for each Chinese character, and pieces of
English words, where ``@@`` at the end of a piece says that the word goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator
Part = tuple[str, str]  # language and text

MANDARIN, ENGLISH = "mandarin", "english"

MANDARIN_DIGITS = "零一二三四五六七八九"
CHARACTERS = (
    MANDARIN_DIGITS + "十打开关闭客厅卧室厨房的灯空调电视窗帘播放停止暂音乐量大小温度到上下首锁门"
)

PIECES = {
    "zero": "ze@@ ro",
    "one": "one",
    "two": "two",
    "three": "three",
    "four": "four",
    "five": "five",
    "six": "six",
    "seven": "se@@ ven",
    "eight": "eight",
    "nine": "nine",
    "turn": "turn",
    "on": "on",
    "off": "off",
    "open": "o@@ pen",
    "close": "close",
    "lock": "lock",
    "set": "set",
    "to": "to",
    "the": "the",
    "light": "light",
    "fan": "fan",
    "door": "door",
    "window": "win@@ dow",
    "kitchen": "kit@@ chen",
    "bedroom": "bed@@ room",
    "play": "play",
    "stop": "stop",
    "pause": "pause",
    "music": "mu@@ sic",
    "volume": "vo@@ lume",
    "up": "up",
    "down": "down",
    "next": "next",
    "song": "song",
    "alarm": "a@@ larm",
    "timer": "ti@@ mer",
}
ENGLISH_DIGITS = tuple(PIECES)[:10]

_MANDARIN_ROOMS = ("", "客厅的", "卧室的", "厨房的")
_MANDARIN_DEVICES = ("灯", "空调", "电视", "窗帘", "门")
_MANDARIN_TEXT = (
    "打开 关闭 客厅 卧室 厨房 灯 空调 电视 窗帘 播放 停止 暂停 音乐 音量 调大 调小 温度 上一首 "
    "下一首 锁门 大 小 上 下 开 关"
)
_MANDARIN_WORDS = _MANDARIN_TEXT.split()
_ROOMS = ("", "kitchen ", "bedroom ")


def token_list() -> list[str]:
    """All tokens in the order of their ids: blank, start, end, characters, pieces, unknown."""
    pieces = sorted({piece for word in PIECES.values() for piece in word.split()})
    return ["<blank>", "<s>", "</s>", *CHARACTERS, *pieces, "<unk>"]


def segmentation() -> dict[str, str]:
    """For each word or character its tokens, separated by spaces (FunASR's ``seg_dict``)."""
    return {**{character: character for character in CHARACTERS}, **PIECES}


def draw_parts(rng: Rng) -> tuple[Part, ...]:
    """A random utterance: one phrase, or at times a Mandarin and an English one."""
    kind = rng.random()
    if kind < 0.1:
        return (MANDARIN, mandarin_phrase(rng, 3)), (ENGLISH, english_phrase(rng, 3))
    if kind < 0.55:
        return ((MANDARIN, mandarin_phrase(rng)),)
    return ((ENGLISH, english_phrase(rng)),)


def mandarin_phrase(rng: Rng, longest: int = 6) -> str:
    """Digits, a command, or words in any order; ``longest`` bounds digits and words."""
    return _draw(rng, longest, tuple(MANDARIN_DIGITS), _MANDARIN_WORDS, _mandarin_command, "")


def english_phrase(rng: Rng, longest: int = 6) -> str:
    """Digits, a command, or words in any order; ``longest`` bounds digits and words."""
    return _draw(rng, longest, ENGLISH_DIGITS, tuple(PIECES), _english_command, " ")


def _draw(
    rng: Rng,
    longest: int,
    digits: Sequence[str],
    words: Sequence[str],
    command: Callable[[Rng], str],
    separator: str,
) -> str:
    kind = rng.random()
    if kind < 0.4:
        return command(rng)
    chosen: Sequence[str] = digits if kind < 0.75 else words
    return separator.join(_pick(rng, chosen) for _ in range(rng.integers(2, longest + 1)))


def _mandarin_command(rng: Rng) -> str:
    return _one_of(
        rng,
        lambda: (
            _pick(rng, ("打开", "关闭"))
            + _pick(rng, _MANDARIN_ROOMS)
            + _pick(rng, _MANDARIN_DEVICES)
        ),
        lambda: _pick(rng, ("播放", "停止", "暂停")) + "音乐",
        lambda: _pick(rng, ("音量", "温度")) + _pick(rng, ("调大", "调小")),
        lambda: _pick(rng, ("温度", "音量")) + "调到" + _mandarin_number(rng),
        lambda: _pick(rng, ("上一首", "下一首", "锁门")),
    )


def _mandarin_number(rng: Rng) -> str:
    tens, ones = rng.integers(1, 10), rng.integers(0, 10)
    head = "" if tens == 1 else MANDARIN_DIGITS[tens]
    tail = MANDARIN_DIGITS[ones] if ones else ""
    return f"{head}十{tail}度"


def _english_command(rng: Rng) -> str:
    two_digits = f"{_pick(rng, ENGLISH_DIGITS)} {_pick(rng, ENGLISH_DIGITS)}"
    return _one_of(
        rng,
        lambda: (
            f"turn {_pick(rng, ('on', 'off'))} the {_pick(rng, _ROOMS)}"
            + _pick(rng, ("light", "fan", "music"))
        ),
        lambda: (
            f"{_pick(rng, ('open', 'close', 'lock'))} the {_pick(rng, _ROOMS)}"
            + _pick(rng, ("door", "window"))
        ),
        lambda: f"{_pick(rng, ('play', 'stop', 'pause'))} the {_pick(rng, ('music', 'song'))}",
        lambda: f"volume {_pick(rng, ('up', 'down'))}",
        lambda: "play the next song",
        lambda: f"set the {_pick(rng, ('alarm', 'timer', 'volume'))} to {two_digits}",
    )


def _pick(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _one_of(rng: Rng, *makers: Callable[[], str]) -> str:
    maker: Any = makers[int(rng.integers(len(makers)))]
    return str(maker())
