"""Torch functions as captured graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.config import Config
from graphopt.frontend.capture import Captured, capture
from graphopt.frontend.import_torch import to_numpy
from graphopt.ir import Graph
from graphopt.passes.base import Pass


class Function(torch.nn.Module):
    """A function of tensors, and of submodules by keyword, as a module in eval mode."""

    def __init__(self, function: Callable[..., Any], **modules: torch.nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)
        self._names = list(modules)
        self.eval()

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors, *(getattr(self, n) for n in self._names))


def captured(function: Callable[..., Any], *tensors: torch.Tensor, **modules: Any) -> Captured:
    return capture(Function(function, **modules), tensors)


def lowered(graph: Graph, passes: Sequence[Pass] | None = None) -> Graph:
    """The graph after the passes, verified after each; all lowering passes by default."""
    chosen = list(passes) if passes is not None else lowering_passes()
    return PassManager(Config(verify=True)).run(graph, chosen)


def arrays(values: Any) -> list[np.ndarray]:
    """All tensors of a structure as stored arrays."""
    leaves = torch.utils._pytree.tree_leaves(values)
    return [to_numpy(v) for v in leaves if isinstance(v, torch.Tensor)]
