"""A random model as text: the lines that are run are the lines that a failure prints."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

Sizes = tuple[int, int]
NAMESPACE = {"torch": torch, "nn": nn, "F": nn.functional}


@dataclass(frozen=True)
class Step:
    """A line of `forward`.

    Attributes:
        kind: what made it (`kinds.KINDS`).
        results: names that it defines; none for a write in place.
        text: the line without those names: an expression, or a statement.
        members: lines of `__init__` that it needs.
    """

    kind: str
    results: tuple[str, ...]
    text: str
    members: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The whole line."""
        return f"{', '.join(self.results)} = {self.text}" if self.results else self.text

    @property
    def reads(self) -> set[str]:
        """Names of the values in it."""
        return names_in(self.text)


@dataclass(frozen=True)
class Program:
    """A model, what it is called with, and how it is compiled.

    Attributes:
        inputs: name of each argument and its text, over the sizes `B` and `T`.
        steps: the lines of `forward`.
        outputs: names, or members (`self.m3`), that `forward` returns.
        sizes: (B, T) of the calls; those of the example inputs first.
        precision: one of `graphopt.target.PRECISIONS`.
    """

    inputs: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    sizes: tuple[Sizes, ...]
    precision: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the steps, in order."""
        return tuple(step.kind for step in self.steps)

    def needed(self) -> Program:
        """Without lines and arguments that no output depends on."""
        wanted = {name for text in self.outputs for name in names_in(text)}
        kept: list[Step] = []
        for step in reversed(self.steps):
            if not step.results or wanted & set(step.results):
                wanted |= step.reads
                kept.append(step)
        inputs = tuple(pair for pair in self.inputs if pair[0] in wanted) or self.inputs[:1]
        return replace(self, steps=tuple(reversed(kept)), inputs=inputs)

    def source(self) -> str:
        """The model and its inputs as Python."""
        members = list(dict.fromkeys(line for step in self.steps for line in step.members))
        lines = [
            "class Model(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for line in members),
            "",
            f"    def forward(self, {', '.join(name for name, _ in self.inputs)}):",
            *(f"        {step.line}" for step in self.steps),
            f"        return {', '.join(self.outputs)}{',' * (len(self.outputs) == 1)}",
            "",
            "",
            "def inputs(B, T):",
            "    torch.manual_seed(B * 100 + T)",
            f"    return ({', '.join(text for _, text in self.inputs)},)",
        ]
        return "\n".join(lines)

    def script(self) -> str:
        """A program that shows both results."""
        return "\n".join(
            [
                "import torch",
                "from torch import nn",
                "",
                "import graphopt",
                "",
                "F = nn.functional",
                "",
                "",
                self.source(),
                "",
                "",
                "model = Model().eval()",
                f"example = inputs{self.sizes[0]}",
                f'fast = graphopt.optimize(model, precision="{self.precision}", '
                "example_inputs=example)",
                f"for sizes in {self.sizes}:",
                "    print(sizes, fast(*inputs(*sizes)), model(*inputs(*sizes)), sep='\\n')",
            ]
        )

    def load(self, wide: bool = False) -> SimpleNamespace:
        """The model (`model`, in eval mode) and the function `inputs`.

        Args:
            wide: float64 in place of float32, with the same numbers.
        """
        text = self.source()
        names = dict(NAMESPACE)
        exec(compile(widened(text) if wide else text, "random_graph.py", "exec"), names)
        model = names["Model"]().eval()  # type: ignore[operator]
        return SimpleNamespace(model=double(model) if wide else model, inputs=names["inputs"])


def names_in(text: str) -> set[str]:
    """The values (`x0`, `v12`) and members (`self.m3`) that a text names."""
    return set(re.findall(r"\b(?:[xv]\d+|self\.m\d+)\b", text))


def widened(text: str) -> str:
    """The text with float64 where it says float32."""
    return text.replace("torch.float32", "torch.float64")


def double(thing: Any) -> Any:
    """A copy of a tensor, or of a module with its tensors, in which float32 is float64."""
    if isinstance(thing, torch.Tensor):
        return thing.detach().double() if thing.dtype is torch.float32 else thing.detach().clone()
    if isinstance(thing, nn.Module):
        thing = copy.deepcopy(thing)
        for part in thing.modules():
            for tensors in (part._parameters, part._buffers, part.__dict__):
                for name, tensor in list(tensors.items()):
                    if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.float32:
                        wide = tensor.detach().double()
                        is_parameter = isinstance(tensor, nn.Parameter)
                        tensors[name] = nn.Parameter(wide, False) if is_parameter else wide
        return thing
    return thing
