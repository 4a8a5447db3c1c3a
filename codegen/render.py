"""The only user of jinja2: templates that look like the C they make."""

from __future__ import annotations

import jinja2

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


def render(template: str, **values: object) -> str:
    """The text of a template in `codegen/templates`."""
    return _ENVIRONMENT.get_template(template).render(**values)
