"""onnxruntime runs compiled modules as nodes `graphopt::Run` (kernels/onnxruntime).

`model.onnx` has its packages in the folder `model.graphopt` beside it, with the library of the op
for each architecture. The library finds packages in the folder that it lies in, or in that of the
session's entry `graphopt.packages`.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from graphopt.config import Config
from graphopt.dependencies import require
from graphopt.errors import GraphoptError, OptionError, PackageError, StorageError
from graphopt.runtime.cpus import usable_cpus
from graphopt.runtime.package import MARKS
from graphopt.runtime.sealed import as_path
from graphopt.runtime.staging import replaced_folder
from graphopt.target import Target
from graphopt.toolchain.build import Builder

SUFFIX = ".graphopt"
PACKAGES_ENTRY = "graphopt.packages"
MOST_BYTES = 2**31 - 2**20
"""Of weights in the plain form of an ONNX file: protobuf holds no more."""

T = TypeVar("T")


class PlainFormWarning(UserWarning):
    """An ONNX file that stock onnxruntime cannot run, because the model has no plain form."""


def plain_form(make: Callable[[], T], plain: bool | None) -> T | None:
    """What a model is in plain ONNX, if that is asked for.

    Args:
        make: makes it, or raises why there is none.
        plain: whether it is needed; None warns where there is none.

    Raises:
        GraphoptError: if it is needed, and there is none.
    """
    if plain is False:
        return None
    try:
        return make()
    except GraphoptError as refusal:
        if plain:
            raise
        text = f"{refusal}; onnxruntime runs the file with graphopt.ort_session_options alone"
        warnings.warn(text, PlainFormWarning, stacklevel=5)
        return None


def add_package(
    folder: Path, name: str, target: Target, write_package: Callable[[Path], None]
) -> Path:
    """Puts a package for a target beside an ONNX file, and returns its place.

    Args:
        folder: of the packages of the file.
        name: of what the package computes, for any target.
        target: what it is for.
        write_package: writes it into a new folder.
    """
    place = folder / f"{name}-{target.arch}-{target.name}"
    with replaced_folder(place, MARKS) as staging:
        write_package(staging)
    return place


def add_library(folder: Path, arch: str) -> None:
    """Puts the op beside the packages; sessions that have it open keep the old file."""
    place = folder / library_name(arch)
    scratch = place.with_name(f".{place.name}.new")
    try:
        shutil.copyfile(build_library(arch), scratch)
        scratch.replace(place)
    except OSError as error:
        raise StorageError(place, error.strerror or error, "the path") from error


def packages_folder(model: str | os.PathLike[str]) -> Path:
    """The folder of the packages of an ONNX file.

    Raises:
        PackageError: if it is no path.
    """
    return as_path(model).with_suffix(SUFFIX)


def library_name(arch: str) -> str:
    """The file of the op for an architecture, in a folder of packages."""
    return f"onnxruntime-{arch}.so"


def build_library(arch: str) -> Path:
    """Compiles the library of the op, or takes it from the cache.

    Raises:
        MissingCompilerError: without a compiler for the architecture.
        CompilerError: if it fails.
    """
    builder = Builder(Config.from_environment().cache, usable_cpus())
    return builder.onnxruntime_library(arch)


def ort_library(model: str | os.PathLike[str] | None = None) -> str:
    """The library to register with onnxruntime: `options.register_custom_ops_library(...)`.

    Args:
        model: an ONNX file that `to_onnx` wrote; its library lies beside it and needs no compiler.
            None: a library that this machine's compiler makes once, which finds packages in
            the folder of a session's entry `graphopt.packages`, or else in the working directory's.

    Raises:
        PackageError: if there is none beside the file for this architecture.
        MissingCompilerError: without a file and a compiler.
    """
    if model is None:
        return str(build_library(platform.machine()))
    path = packages_folder(model) / library_name(platform.machine())
    if not path.is_file():
        raise PackageError(
            f"{path} is missing; copy the folder with the model, or write both with .to_onnx() for "
            f"a target of {platform.machine()}"
        )
    return str(path.absolute())


def ort_session_options(model: str | os.PathLike[str] | None = None, options: Any = None) -> Any:
    """Options of an onnxruntime session in which nodes `graphopt::Run` run.

    Args:
        model: the ONNX file, if it is not in the working directory.
        options: `onnxruntime.SessionOptions` to add to; new ones if None.

    Returns:
        The options, for `onnxruntime.InferenceSession(model, options)`.

    Raises:
        MissingDependencyError: without onnxruntime.
        OptionError: if `options` are none of onnxruntime, or onnxruntime is older than 1.17.
        PackageError, MissingCompilerError: as of `ort_library`.
    """
    onnxruntime = require("onnxruntime", "graphopt.ort_session_options")
    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    if version < (1, 17):
        raise OptionError("onnxruntime", onnxruntime.__version__, "install 1.17 or newer")
    if options is None:
        options = onnxruntime.SessionOptions()
    if not isinstance(options, onnxruntime.SessionOptions):
        raise OptionError("options", options, "give onnxruntime.SessionOptions")
    library = ort_library(model)
    if model is not None:
        options.add_session_config_entry(PACKAGES_ENTRY, str(packages_folder(model).absolute()))
    options.register_custom_ops_library(library)
    return options
