"""Functions of the user's, named on the command line: `module:function` or `file.py:function`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


class NoFunction(LookupError):
    """Nothing is there of a name; the text says what is missing."""


def function_named(name: str) -> Callable[..., Any]:
    """The function of a name, from a module that is imported as Python imports it.

    The folder of the file, or the current one for a module, is the first that is looked through
    while it is imported. It is the last afterwards: what the function imports later is found, and
    hides nothing of the same name that others import.

    Args:
        name: `module:function` or `file.py:function`.

    Raises:
        NoFunction: if there is no such module, file or function.
        Exception: of the module, if it raises one.
    """
    place, _, function = name.rpartition(":")
    file = Path(place) if place.endswith(".py") else None
    if file is not None and not os.path.isfile(file):
        raise NoFunction(f"no file {place!r}")
    with _first(Path.cwd() if file is None else file.resolve().parent):
        module = _imported(place) if file is None else _loaded(file.resolve())
    found = getattr(module, function, None)
    if not callable(found):
        raise NoFunction(f"no function {function!r} in {place}")
    return found  # type: ignore[no-any-return]


@contextlib.contextmanager
def _first(folder: Path) -> Iterator[None]:
    """Imports look into a folder first inside the block, and last behind it."""
    here = str(folder)
    known = here in sys.path
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        if not known:
            sys.path.append(here)


def _imported(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise NoFunction(f"{name!r} is no name of a module")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise NoFunction(f"no module {name!r}") from error


def _loaded(file: Path) -> ModuleType:
    """The module of a file, entered under its own name, by which pickles and dataclasses find it.

    A name that another module has stays with that one.
    """
    name = file.stem
    if (known := sys.modules.get(name)) is not None and _is_of(known, file):
        return known
    others = [folder for folder in sys.path if Path(folder).resolve() != file.parent]
    if known is not None or importlib.machinery.PathFinder.find_spec(name, others) is not None:
        name = f"{name}_{zlib.crc32(str(file).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_of(module: ModuleType, file: Path) -> bool:
    """Whether a module was made of a file."""
    its = getattr(module, "__file__", None)
    return isinstance(its, str) and Path(its).resolve() == file
