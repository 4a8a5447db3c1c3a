"""Which lines are the user's, or of a library of models, and which of torch and the compiler."""

from __future__ import annotations

import os
import re
import sys
import traceback

import sympy
import torch

from graphopt.ir import Origin

_FRONTEND = os.path.dirname(__file__) + os.sep
_OTHERS = (
    *("<eval_with_key>", "<frozen "),  # code that torch.fx generates, and Python's own
    _FRONTEND,
    *(
        folder + os.sep
        for folder in (
            *map(os.path.dirname, (torch.__file__, sympy.__file__)),
            os.path.join(os.path.dirname(os.path.dirname(__file__)), "compiler"),
        )
    ),
)


def is_users(file: str) -> bool:
    """Whether the lines of a file are the user's.

    Args:
        file: as Python names it in frames and tracebacks.
    """
    return not file.startswith(_OTHERS) and os.path.dirname(file) != os.path.dirname(os.__file__)


def asking_line() -> str:
    """The line that has called into the frontend, as `file:line`; empty if it is not the user's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FRONTEND):
        frame = frame.f_back
    file = frame.f_code.co_filename
    return f"{file}:{frame.f_lineno}" if is_users(file) else ""


def raising_line(error: BaseException) -> str | None:
    """The user's last line on the way to an error, with its text; None without one."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [f for f in frames if f.line and is_users(f.filename)]
    return f"{users[-1].filename}:{users[-1].lineno} ({users[-1].line})" if users else None


def origin_of(node: torch.fx.Node) -> Origin:
    """The module that called for a node, and the line; of no user, the last before torch's op.

    Args:
        node: of an exported program.
    """
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if not path.startswith("_empty")]
    module = encodable(re.sub(r"^(L\['self'\]\.)?model\.?", "", paths[-1]) if paths else "")
    lines = re.findall(r'File "([^"]+)", line (\d+)[^\n]*\n\s*([^\n]*)', str(node.stack_trace))
    outside = [line for line in lines if not line[0].startswith(_FRONTEND)]
    users = [line for line in outside if is_users(line[0])] or outside
    if not users:
        return Origin(module)
    file, number, code = users[-1]
    return Origin(module, f"{file}:{number}", code.strip())


def encodable(name: str) -> str:
    """A name that files may hold: what UTF-8 has no bytes for is written as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()
