"""The only user of jinja2: templates that look like the C they make, and text in that C."""

from __future__ import annotations

import re

import jinja2

_STRANGE = re.compile(r"[^\w .,:;=+*/<>!&|()\[\]{}#@^~$'%-]", re.ASCII)
_DELIMITERS = re.compile(r"\*(?=/)|/(?=\*)")
_LONGEST = 1000


def c_text(text: str) -> str:
    """Any text as it may stand in a comment or in a string of C.

    Characters that are not in a list of harmless ones become `_`: quotes, backslashes, line ends,
    question marks (of which trigraphs are made), all that is not ASCII. A space parts what would
    begin or end a comment; very long text is cut.
    """
    kept = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return _DELIMITERS.sub(r"\g<0> ", _STRANGE.sub("_", kept))


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("graphopt.codegen", "templates"),
    variable_start_string="${",
    variable_end_string="}",
    line_statement_prefix="//:",
    comment_start_string="/*#",
    comment_end_string="#*/",
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)
_ENVIRONMENT.filters["text"] = c_text


def render(template: str, **values: object) -> str:
    """The text of a template in `codegen/templates`."""
    return _ENVIRONMENT.get_template(template).render(**values)


def render_macro(template: str, macro: str, **values: object) -> list[str]:
    """The lines, without those that are empty, that a macro of a template makes.

    Args:
        template: its name in `codegen/templates`.
        macro: a name in it.
        values: arguments of the macro.
    """
    text = getattr(_ENVIRONMENT.get_template(template).module, macro)(**values)
    return [line for line in text.splitlines() if line]
