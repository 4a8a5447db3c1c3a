"""Conversions of a module, in its forward, to what it is already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import torch

_DTYPES = {
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
}


@contextmanager
def idle_conversions() -> Iterator[None]:
    """While it is entered, a module stays as it is where a conversion would change nothing.

    torch.export cannot replace parameters, and refuses `self.head.to(self.dtype)` even where all
    of them have that dtype.
    """
    with ExitStack() as patches:
        for name in ("to", "cpu", *_DTYPES):
            patches.enter_context(mock.patch.object(torch.nn.Module, name, _unless_idle(name)))
        yield


def _unless_idle(name: str) -> Callable[..., torch.nn.Module]:
    convert = getattr(torch.nn.Module, name)

    @wraps(convert)
    def converted(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        device, dtype = torch.device("cpu") if name == "cpu" else None, _DTYPES.get(name)
        if name == "to":
            device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        is_idle = all(
            (device is None or tensor.device == device)
            and (dtype is None or not tensor.is_floating_point() or tensor.dtype == dtype)
            for tensor in (*module.parameters(), *module.buffers())
        )
        made: torch.nn.Module = module if is_idle else convert(module, *args, **kwargs)
        return made

    return converted
