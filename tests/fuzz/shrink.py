"""Makes a model that is compiled wrongly smaller while it stays so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from program import Program, Step

#: Of each float input, the plainest text of the same shape.
_PLAIN = (
    (r"torch\.randn\(B, (\d+), T\)\.transpose\(1, 2\)", r"torch.randn(B, T, \1)"),
    (r"torch\.randn\(T, B, (\d+)\)\.transpose\(0, 1\)", r"torch.randn(B, T, \1)"),
    (r"torch\.randn\(B, T, 2 \* (\d+)\)\[\.\.\., ::2\]", r"torch.randn(B, T, \1)"),
    (r"torch\.randn\(B, T \+ 3, (\d+)\)\[:, 3:\]", r"torch.randn(B, T, \1)"),
    (r"torch\.randn\(B, 1, (\d+)\)\.expand\(.*\)", r"torch.randn(B, T, \1)"),
    (r"torch\.randn\(B, T \+ (\d+) - 1\)\.unfold\(.*\)", r"torch.randn(B, T, \1)"),
)


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """The smallest model that is found by taking away, one thing after the other.

    Args:
        program: a model with a fault.
        fails: whether a model has that fault.
    """
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(program):
            if smaller != program and fails(smaller):
                program, changed = smaller, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    for output in program.outputs:
        if len(program.outputs) > 1:
            yield replace(program, outputs=(output,)).needed()
    yield program.needed()
    for size in program.sizes[1:]:
        yield replace(program, sizes=(program.sizes[0], size))
    if len(program.sizes) > 1:
        yield replace(program, sizes=program.sizes[:1])
    for i, step in enumerate(program.steps):
        rest = (*program.steps[:i], *program.steps[i + 1 :])
        if not step.results:
            yield replace(program, steps=rest).needed()
    for i, step in enumerate(program.steps):
        for result in step.results:
            for operand in sorted(step.reads):
                later = tuple(_renamed(s, result, operand) for s in program.steps[i + 1 :])
                outputs = tuple(_rename(text, result, operand) for text in program.outputs)
                steps = (*program.steps[:i], step, *later)
                yield replace(program, steps=steps, outputs=outputs).needed()
    for i, step in enumerate(program.steps):
        for result in step.results:
            if program.outputs != (result,):
                yield replace(program, steps=program.steps[: i + 1], outputs=(result,)).needed()
    for i, (name, text) in enumerate(program.inputs):
        for pattern, plain in _PLAIN:
            simple = re.sub(pattern, plain, text)
            inputs = (*program.inputs[:i], (name, simple), *program.inputs[i + 1 :])
            yield replace(program, inputs=inputs)
    if program.precision != "fp32":
        yield replace(program, precision="fp32")


def _renamed(step: Step, old: str, new: str) -> Step:
    return replace(step, text=_rename(step.text, old, new))


def _rename(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{re.escape(old)}\b", new, text)
