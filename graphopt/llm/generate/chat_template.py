"""Chat templates, rendered as `apply_chat_template` of transformers does.

Templates come with models, so they run in a sandbox of jinja2, and in a process of its own that
the system ends when it takes too long or too much memory: no list of operations catches all that
blow up (`'x' * n`, `n ** n`, a macro that calls itself). That process imports this file alone and
jinja2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

_CPU_SECONDS = 2
_MEMORY = 1 << 29  # bytes of addresses
_OUTPUT = 1 << 24  # bytes of a text
#: Names that a message has its reasoning under; templates read the first, some the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class RenderError(Exception):
    """A template that is wrong, refuses, or takes too much; says why."""


def render(template: str, variables: dict[str, Any]) -> str:
    """Renders a template, in this process and without bounds.

    Args:
        template: of jinja2.
        variables: what it sees, of the types of JSON: `messages`, `tools`, `documents`,
            `add_generation_prompt`, the texts of special tokens (`bos_token`), others.

    Raises:
        RenderError: if the template is wrong or refuses.
    """
    try:
        variables = {**variables, "messages": [_message(m) for m in variables["messages"]]}
        return str(_environment().from_string(template).render(variables))
    except RecursionError:
        raise RenderError("it calls itself without end") from None
    except MemoryError:
        raise RenderError("it takes too much memory") from None
    except Exception as error:  # of jinja2, or of Python where a template uses a value wrongly
        raise RenderError(str(error) or type(error).__name__) from error


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is null, its reasoning under both names."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[name] for name in _REASONING if name in kept), None)
    if reasoning is None:
        return kept
    return {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def _environment() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` around what a model said: its body."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_body")
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    class PublicNamespace(Namespace):
        """A namespace without names that begin with an underscore."""

        def __init__(*given: Any, **named: Any) -> None:
            self, *rest = given
            for name in dict(*rest, **named):
                _check(name)
            Namespace.__init__(self, *rest, **named)

        def __setitem__(self, name: str, value: Any) -> None:
            _check(name)
            Namespace.__setitem__(self, name, value)

    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace has no place for {name!r}")

    class Dict:
        """`dict` without its other attributes."""

        def __call__(self, *given: Any, **named: Any) -> dict[Any, Any]:
            return dict(*given, **named)

        def fromkeys(self, *given: Any) -> dict[Any, Any]:
            return dict.fromkeys(*given)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        how: dict[str, Any] = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
        return json.dumps(x, ensure_ascii=ensure_ascii, **how)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals.update(
        raise_exception=refuse,
        strftime_now=lambda layout: datetime.now().strftime(layout),
        dict=Dict(),
        namespace=PublicNamespace,
    )
    return made


def render_bounded(template: str, variables: dict[str, Any]) -> str:
    """`render` in a process of its own.

    Raises:
        RenderError: if the template is wrong, refuses, or takes more than 2 seconds of a CPU,
            512 MiB or 16 MiB of text; if there is no jinja2; if variables are not of JSON.
    """
    import subprocess
    from importlib.util import find_spec
    from pathlib import Path

    homes = []
    for name in ("jinja2", "markupsafe"):
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise RenderError("it needs the Python package jinja2 (pip install jinja2)")
        homes.append(str(Path(spec.origin).parents[1]))
    try:
        asked = json.dumps([template, variables])
    except (TypeError, ValueError, RecursionError) as error:
        raise RenderError(f"messages and tools are not of the types of JSON ({error})") from error
    command = [sys.executable or "python3", "-I", "-S", __file__, *dict.fromkeys(homes)]
    try:
        ran = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=60)
        answer = json.loads(ran.stdout) if ran.returncode == 0 else None
    except subprocess.TimeoutExpired:
        answer = None
    except (OSError, ValueError) as error:
        raise RenderError(f"the process that renders it failed ({error})") from error
    if answer is None:
        raise RenderError("it takes too long or too much memory")
    text, problem = answer
    if problem is not None:
        raise RenderError(problem)
    return str(text)


def _serve(homes: Sequence[str]) -> None:
    """Renders what standard input asks for, within bounds."""
    import resource

    sys.path[1:1] = homes
    asked = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    text, problem = "", None
    try:
        text = render(*asked)
        if len(text) > _OUTPUT:
            text, problem = "", f"it makes {len(text)} characters"
    except RenderError as error:
        problem = str(error)[:1000]
    json.dump([text, problem], sys.stdout)


if __name__ == "__main__":
    _serve(sys.argv[1:])
