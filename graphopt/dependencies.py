"""Imports of optional packages: typed errors when missing, FunASR kept from talking."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from graphopt.errors import MissingDependencyError
from graphopt.extras import command_of, install_command, is_known
from graphopt.runtime.process import changes

_Command = TypeVar("_Command", bound=Callable[..., None])
_settings = threading.RLock()


def require(module: str, purpose: str) -> ModuleType:
    """Import ``module``; ``purpose`` names in the error what needs it.

    Raises:
        MissingDependencyError: If the module's top-level package is not installed.
    """
    package = module.partition(".")[0]
    try:
        if module in sys.modules:
            return importlib.import_module(module)
        with keep_process_settings():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        if not is_known(missing):
            raise
        raise MissingDependencyError(missing, purpose, install_command(missing)) from error


def needs(extra: str, name: str) -> Callable[[_Command], _Command]:
    """Says of a command, in its help and where it fails for that, which extra brings its packages.

    Args:
        extra: of graphopt.
        name: words of the command, such as `compile llm`.
    """

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                command(*args, **kwargs)
            except ModuleNotFoundError as error:
                missing = (error.name or "").partition(".")[0]
                if not is_known(missing):
                    raise
                purpose = f"graphopt {name}"
                raise MissingDependencyError(missing, purpose, command_of(extra)) from error

        summary, gap, rest = (command.__doc__ or "").partition("\n\n")
        run.__doc__ = f"{summary} Extra: {extra}.{gap}{rest}"
        return cast(_Command, run)

    return decorate


def package_folder(package: str, purpose: str) -> str:
    """Folder of an installed package, found without importing it.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(package, purpose, install_command(package))
    return next(iter(spec.submodule_search_locations))


@contextlib.contextmanager
def keep_process_settings() -> Iterator[None]:
    """Undo what importing or loading FunASR does to the process.

    On import FunASR prints a notice about ffmpeg, ignores all warnings and installs a root log
    handler at level INFO; the caller's own settings come back when the block ends. One thread at a
    time: two that take turns would leave each other's settings.
    """
    root = logging.getLogger()
    with changes, _settings:
        handlers, level = root.handlers[:], root.level
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def quiet_auto_model(folder: Path, purpose: str, **options: Any) -> Any:
    """A model directory as a ``funasr.AutoModel`` on the CPU that prints nothing.

    Args:
        folder: The directory.
        purpose: What needs it, for the error.
        options: More arguments of ``AutoModel``.

    Raises:
        MissingDependencyError: If FunASR is not installed.
    """
    auto_model = require("funasr.auto.auto_model", purpose).AutoModel
    with keep_process_settings():
        return auto_model(
            model=str(folder),
            device="cpu",
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
            log_level="ERROR",
            **options,
        )
