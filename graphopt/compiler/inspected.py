"""What compiled models have in common that can be shown as a page (`graphopt/inspection/page`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.compiler.optimized import Optimized
from graphopt.compiler.program import Program
from graphopt.compiler.stages import Staged
from graphopt.dependencies import require


class Inspected(Optimized, Staged):
    """A compiled model that can tell what became of it."""

    def programs(self) -> list[Program]:
        """Everything that was compiled, in the order in which it runs."""
        return [program for serving in self._captured() for program in serving.programs()]

    @property
    def original(self) -> Callable[..., Any] | None:
        """The model that was compiled, where it can be called."""
        return None

    def stored_inputs(self, *args: Any, **kwargs: Any) -> list[np.ndarray[Any, Any]]:
        """The tensors of a call as the graph takes them: stored arrays (bf16 as uint16), in order.

        Raises:
            InputError: as a call does.
            PackageError: for a model of which no one graph holds the whole.
        """
        raise NotImplementedError

    def inspect(
        self,
        path: str | Path,
        inputs: tuple[Any, ...] | dict[str, Any] | None = None,
        measure: bool = True,
        errors: bool = False,
    ) -> Path:
        """Writes a page that shows what became of the model; it opens in any browser, offline.

        Args:
            path: of the HTML file, which is replaced.
            inputs: of the calls that are measured, positional (tuple) or by keyword (dict); by
                default the example inputs. Without any, nothing is measured.
            measure: whether to time the compiled model, its steps and the model itself, where the
                target is this machine.
            errors: whether to run the graph after each pass in numpy, and say how far its results
                are from those of the graph as it was captured: minutes for a large model.

        Returns:
            The path.

        Raises:
            StagesError: if the graphs between the passes cannot be had.
            StorageError: if the file cannot be written.
        """
        page = require("graphopt.inspection.page.report", "inspect")
        written: Path = page.write_page(self, Path(path), inputs, measure, errors)
        return written
