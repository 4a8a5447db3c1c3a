"""Packages: a folder that holds a compiled module for machines without torch or compiler.

name.gopt/
manifest.json     what it is, what it takes and returns, in JSON
SHA256SUMS        a line per file, as sha256sum writes them, and its size as a comment
SHA256SUMS.sig    signatures of that, if there are any (graphopt/runtime/signing.py)
module.c          the generated C
weights.bin       constants, packed and aligned, to be mapped
lib/<level>.so    one library per ISA level
lib/levels        for loaders in C: a line per level, the most capable last, with the CPU features
                  that it needs, as /proc/cpuinfo calls them
passes/*.txt      the graph as captured, lowered and planned
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from graphopt.dtype import DType
from graphopt.errors import PackageCorruptError, PackageError
from graphopt.kernels import registry
from graphopt.runtime import structure
from graphopt.runtime.fields import Distinct, Length, Name, OneOf, Range
from graphopt.runtime.library import MAX_RANK, Array, zeros
from graphopt.runtime.sealed import SUMS, SealedFolder, open_sealed, seal
from graphopt.runtime.signing import PublicKey
from graphopt.runtime.structure import Template

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"
SOURCE = "module.c"
_LEVELS = "lib/levels"
#: Files of a folder that a new package may replace; other programs have a manifest.json too.
MARKS = (MANIFEST, SUMS, SOURCE)

Extent = Annotated[int, Range(0, 2**47)] | Name


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: what errors call it.
        dtype: of the elements.
        shape: extents, numbers or names of dims.
        is_state: whether a run writes to it: the cache of a decoder.
    """

    name: Name
    dtype: Annotated[str, OneOf([dtype.value for dtype in DType])]
    shape: Annotated[tuple[Extent, ...], Length(0, MAX_RANK)]
    is_state: bool = False

    def zeros(self, extents: Mapping[int, int]) -> Array:
        """An array for this input, of zeros.

        Args:
            extents: of the axes that have no number of their own, by axis.

        Raises:
            PackageError: if another axis has no number.
            OutOfMemoryError: without memory for it.
        """
        known = [extents.get(axis, extent) for axis, extent in enumerate(self.shape)]
        shape = [extent for extent in known if isinstance(extent, int)]
        if len(shape) != len(known):
            raise PackageError(
                f"{self.name} has the shape {list(self.shape)}, which leaves open what the program "
                "that uses it does not know; compile the model again"
            )
        return zeros(shape, DType(self.dtype))


@dataclass(frozen=True)
class Step:
    """A step of a run, for profiles.

    Attributes:
        node: its values.
        op: what it computes.
        kernel: that computes it; empty for a generated loop.
        module: of the model that it comes from.
    """

    node: str
    op: Name
    kernel: str
    module: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        format: version of the package format.
        version: graphopt that wrote it.
        name: name of the model.
        target: target it is planned for.
        arch: architecture of its libraries.
        precision: what it computes in.
        levels: ISA levels with a library, the most capable last.
        inputs: tensors that it takes.
        outputs: tensors that it makes.
        call: template of the arguments (args, kwargs).
        parameters: names of the positional arguments, which may also be given by keyword.
        result: template of the result.
        changes_arguments: whether the result also holds the arguments' containers after the call.
        steps: of a run, in order.
    """

    format: int
    version: Name
    name: Name
    target: Name
    arch: Name
    precision: Name
    levels: Annotated[tuple[Name, ...], Length(1, 100), Distinct()]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    call: Template
    parameters: Annotated[tuple[Name, ...], Distinct()]
    result: Template
    changes_arguments: bool
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Raises ValueError where fields contradict each other."""
        named = structure.check(self.call, len(self.inputs))
        if sorted(named) != list(range(len(self.inputs))):
            raise ValueError("call does not name every input once")
        structure.check(self.result, len(self.outputs))
        kinds = [list(item) for item in self.call.get("tuple", ())]
        if kinds != [["tuple"], ["dict"]]:
            raise ValueError("call is no pair of positional and keyword arguments")
        if len(self.parameters) > len(self.call["tuple"][0]["tuple"]):
            raise ValueError("parameters are more than the positional arguments of call")
        changed = {structure.RESULT, structure.AFTER}
        if self.changes_arguments and self.result.get("dict", {}).keys() != changed:
            raise ValueError("result does not say how arguments change")


def write_package(folder: Path, manifest: Manifest, files: Mapping[str, Path | str]) -> None:
    """Writes the files of a package into a new folder; see `graphopt.runtime.staging`.

    Args:
        folder: to make, or empty.
        manifest: its description.
        files: relative name -> file to copy, or text.
    """
    text = json.dumps(asdict(manifest), indent=1) + "\n"
    for name, content in {**files, MANIFEST: text, _LEVELS: _levels(manifest)}.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_text(content, encoding="utf-8")
    seal(folder)


def _levels(manifest: Manifest) -> str:
    rows = (registry.level(manifest.arch, name) for name in manifest.levels)
    return "".join(" ".join((row.name, *row.features)) + "\n" for row in rows)


def open_package(
    path: str | os.PathLike[str], trusted_keys: Sequence[PublicKey] | None = None
) -> SealedFolder:
    """Opens the package of a module after checking every file in it; see `open_sealed`."""
    return open_sealed(path, MANIFEST, "graphopt package", trusted_keys)


def read_manifest(package: SealedFolder) -> Manifest:
    """The manifest of a package that has every file which it names.

    Raises:
        PackageError: if it is of another format.
        PackageCorruptError: if a field makes no sense, or a file is missing.
    """
    manifest = package.read(MANIFEST, Manifest, FORMAT)
    for name in (WEIGHTS, SOURCE, *map(library_of, manifest.levels)):
        if name not in package:
            raise PackageCorruptError(package.path, f"{name} is missing")
    return manifest


def library_of(level: str) -> str:
    """Name of the file of an ISA level."""
    return f"lib/{level}.so"
