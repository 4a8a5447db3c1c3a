"""The C of each step of a compiled model, and the machine code of the kernels that it calls."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from graphopt.compiler.program import Program
from graphopt.kernels import registry
from graphopt.kernels.registry import Level

#: Of the code of a function, which may be unrolled into thousands.
_MOST_LINES = 3000


def code_of(programs: Sequence[Program], keys: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Steps, functions and assembly.

    Args:
        programs: all that was compiled.
        keys: for each program those of its nodes, in order.

    Returns:
        `steps`, each the key of its node, the number of its function and the call; `functions`; and
        `kernels`, by generic name.
    """
    steps: list[tuple[int, int, str]] = []
    functions: dict[str, int] = {}
    for program, own in zip(programs, keys, strict=True):
        key_of = dict(zip(program.graph.nodes, own, strict=True))
        texts = {function.name: function.text for function in program.module.functions}
        for step in program.module.steps:
            text = texts[step.function]
            number = functions.setdefault(text, len(functions))
            steps.append((key_of[step.node], number, f"{step.function}({step.arguments});"))
    return {"steps": steps, "functions": list(functions)}


def assembly_of(programs: Sequence[Program]) -> tuple[dict[str, str], str]:
    """The machine code of every kernel that is called, on the best level of the target.

    Returns:
        The code by the generic name of the kernel, and why there is none, if so.
    """
    if shutil.which("objdump") is None:
        return {}, "objdump is missing: install binutils"
    found: dict[str, str] = {}
    for program in programs:
        target = program.options.target
        if not target.is_host:
            return {}, f"shown only where the code is for this machine, not for {target.name}"
        level = registry.level(target.arch, target.levels[-1])
        called = {node.kernel for node in program.graph.nodes}
        for kernel in level.kernels:
            if kernel.generic in called and kernel.generic not in found:
                found[kernel.generic] = _disassembled(program, level, kernel.generic, kernel.symbol)
    return found, ""


def _disassembled(program: Program, level: Level, generic: str, symbol: str) -> str:
    """The function of a kernel, without addresses and bytes."""
    path = program.builder.kernel_object(level, generic)
    command = ["objdump", "-d", "--no-show-raw-insn", "--no-addresses", f"--disassemble={symbol}"]
    shown = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    lines = shown.stdout.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("<")), len(lines))
    code = [re.sub(r"\s+", " ", line).strip() for line in lines[start:] if line.strip()]
    more = [f"... {len(code) - _MOST_LINES} more lines"] if len(code) > _MOST_LINES else []
    return "\n".join(code[:_MOST_LINES] + more)
