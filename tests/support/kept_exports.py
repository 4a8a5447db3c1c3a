"""What torch.export makes of a model, kept for other targets and precisions of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from graphopt.frontend import capture


@dataclass
class Exports:
    """What was exported.

    Attributes:
        made: by model, kinds of arguments and dims: the model, so that its id stays its own, and
            its program.
        seconds: that all of it took.
    """

    made: dict[Any, Any] = field(default_factory=dict)
    seconds: float = 0.0


@contextmanager
def kept_exports() -> Iterator[Exports]:
    """While it is entered, no model is exported twice for the same call."""
    export, exports = capture.export_model, Exports()

    def exported(model: Any, call: Any, dims: Any, *more: Any) -> Any:
        kinds = [(x.shape, x.dtype) if hasattr(x, "dtype") else x for x in call.leaves]
        key = id(model), repr(kinds), repr((dims, more))
        if key not in exports.made:
            begun = time.perf_counter()
            exports.made[key] = model, export(model, call, dims, *more)
            exports.seconds += time.perf_counter() - begun
        return exports.made[key][1]

    with mock.patch.object(capture, "export_model", exported):
        yield exports
