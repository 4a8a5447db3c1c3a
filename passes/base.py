"""What a pass is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from graphopt.ir import Graph, Node

Choice: TypeAlias = Callable[[Node], bool]
"""Which nodes a pass may rewrite: those of layers for which a precision was asked, say."""


def every_node(node: Node) -> bool:
    """The choice that leaves nothing out."""
    return True


class Pass(ABC):
    """A rewrite of a graph.

    A pass changes the graph in place and says whether it did. Run twice it changes nothing the
    second time. It never looks at the environment or the host: what the target can do comes in
    through its constructor.
    """

    @property
    def name(self) -> str:
        """The file name of the pass, which dumps, skips and errors use."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def run(self, graph: Graph) -> bool:
        """Rewrites the graph; True if it changed."""
