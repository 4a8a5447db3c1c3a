"""What reports and profiles call a part that is there once in each block of a model."""

from __future__ import annotations

import re


def module_group(path: str) -> str:
    """The path of a module with its block numbers left out, down to the part of a block.

    `model.encoders.31.self_attn.linear_out` becomes `model.encoders.*.self_attn`.
    """
    numbered = re.match(r"(?:[^.\d][^.]*\.)*\d+(?:\.[^.\d][^.]*)?", path)
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", numbered.group() if numbered else path)
