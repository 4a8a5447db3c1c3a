"""Flags of the command line: keys, lists of numbers, and what has no effect beside others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from graphopt.output_files import check_file

TrustedKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key", help="Public key; one of them must have signed the package; repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(thing: Any) -> None:
    """Prints JSON, with texts for numbers that it does not have."""
    print(json.dumps(finite(thing), indent=1))


def finite(thing: Any) -> Any:
    """The same with texts for numbers that JSON does not have."""
    if isinstance(thing, dict):
        return {key: finite(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [finite(value) for value in thing]
    if isinstance(thing, float) and not math.isfinite(thing):
        return str(thing)
    return thing


def output_file(path: Path | None) -> Path | None:
    """The place of a file that a command writes in the end, for a look before its work.

    Raises:
        StorageError: if none may be written there.
    """
    if path is not None and path != Path("-"):
        check_file(path)
    return path


def numbers(text: str, flag: str) -> list[int]:
    """The numbers of a list such as `1,2`.

    Raises:
        typer.BadParameter: if it is none, or has a number below 1.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise typer.BadParameter("give whole numbers from 1 on, such as 1,2", param_hint=flag)
    return found


def refuse(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuses flags that were given, by the names of their parameters.

    Args:
        context: of the command that runs.
        names: of parameters.
        why: they have no effect, such as "without --stream".

    Raises:
        typer.BadParameter: naming the first of them.
    """
    flags = {p.name: p.opts[0] for p in context.command.params}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"has no effect {why}; leave it out", param_hint=flags[name])
