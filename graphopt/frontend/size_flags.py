"""A flag that the model decides by a size: `is_causal=q.shape[2] > 1`.

torch takes a number made of sizes for a whole number, but not for a flag. So attention, the one op
whose flag models decide so, gets what holds in the example, which leaves a guard as an `if` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from graphopt.frontend.replaced_functions import replaced

_OWN: Any = F.scaled_dot_product_attention


@contextmanager
def size_flags() -> Iterator[None]:
    """Lets attention take such a flag."""
    name = _OWN.__name__
    with replaced(name, _OWN, _attention, "torch"), replaced(name, _OWN, _attention):
        yield


def _attention(*args: Any, **kwargs: Any) -> Any:
    decided = [bool(a) if isinstance(a, torch.SymBool) else a for a in args]
    flag = kwargs.get("is_causal")
    if isinstance(flag, torch.SymBool):
        kwargs = {**kwargs, "is_causal": bool(flag)}
    return _OWN(*decided, **kwargs)
