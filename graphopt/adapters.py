"""Kinds of models, each with an adapter that compiles it; the first that takes a model gets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from graphopt.compiler.options import Options
from graphopt.dependencies import require

#: Where each is, the most particular first. What an adapter needs is imported when it is asked.
ADAPTERS = (
    "graphopt.onnx.adapter:OnnxAdapter",
    "graphopt.funasr.adapter:AutoModelAdapter",
    "graphopt.llm.interface.adapter:DecoderAdapter",
    "graphopt.compiler.adapter:ModuleAdapter",
)


class Adapter(Protocol):
    """Compiles one kind of models."""

    def takes(self, model: Any, options: Options) -> bool:
        """Whether a model is of this kind.

        Raises:
            GraphoptError: if it is, and cannot be compiled; or if it is of no kind.
        """

    def used(self, model: Any, precision: str) -> tuple[str, set[str]]:
        """The name of the kind, and the options that it uses beside those of every product.

        Args:
            model: one that it takes.
            precision: never `auto`.
        """

    def optimize(self, model: Any, options: Options) -> Any:
        """What is called in place of the model."""


def adapters() -> Iterator[Adapter]:
    """All of them, in order."""
    for place in ADAPTERS:
        module, _, name = place.partition(":")
        yield getattr(require(module, "graphopt.optimize"), name)()
