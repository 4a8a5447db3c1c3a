"""Packages: a folder that holds a compiled module for machines without torch or compiler.

name.gopt/
manifest.json     what it is, what it takes and returns, in JSON
SHA256SUMS        a line per file, as sha256sum writes them
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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from graphopt import structure
from graphopt._version import VERSION
from graphopt.checked import sha256_of
from graphopt.dtype import DType
from graphopt.errors import PackageCorruptError, PackageError
from graphopt.kernels import registry
from graphopt.structure import Template

FORMAT = 1
_SUMS = "SHA256SUMS"
_MANIFEST = "manifest.json"
_LEVELS = "lib/levels"


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: what errors call it.
        dtype: of the elements.
        shape: extents, numbers or names of dims.
        is_state: whether a run writes to it: the cache of a decoder.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    is_state: bool = False


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
        steps: node, op, kernel and module of every step, for profiles.
    """

    format: int
    version: str
    name: str
    target: str
    arch: str
    precision: str
    levels: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    call: Template
    parameters: tuple[str, ...]
    result: Template
    changes_arguments: bool
    steps: tuple[dict[str, Any], ...]


def write_package(path: Path, manifest: Manifest, files: Mapping[str, Path | str]) -> None:
    """Writes a package, whole or not at all.

    Args:
        path: the folder to make; an older package there is replaced.
        manifest: its description.
        files: relative name -> file to copy, or text.

    Raises:
        PackageError: if something that is no package is in the way.
    """
    import tempfile

    path = Path(path).absolute()
    if path.exists() and not _is_package(path):
        raise PackageError(f"{path} exists and is no package; remove it or choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            staging = Path(folder) / "new"
            _write_files(staging, manifest, files)
            if path.exists():
                os.replace(path, Path(folder) / "old")
            os.replace(staging, path)
    except OSError as error:
        raise PackageError(
            f"cannot write {path}: {error.strerror or error}; make room there or choose another"
        ) from error


def _is_package(path: Path) -> bool:
    """Whether it may be replaced: other programs have a manifest.json too."""
    return not path.is_symlink() and all(
        (path / n).is_file() for n in (_MANIFEST, _SUMS, "module.c")
    )


def _write_files(folder: Path, manifest: Manifest, files: Mapping[str, Path | str]) -> None:
    import shutil

    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_text(content)
    (folder / _LEVELS).write_text(_levels(manifest))
    text = json.dumps(asdict(manifest), indent=1)
    (folder / _MANIFEST).write_text(text + "\n")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    sums = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names)
    (folder / _SUMS).write_text(sums)


def _levels(manifest: Manifest) -> str:
    rows = (registry.level(manifest.arch, name) for name in manifest.levels)
    return "".join(" ".join((row.name, *row.features)) + "\n" for row in rows)


def read_manifest(path: Path) -> Manifest:
    """Checks every file of a package and reads its manifest.

    Raises:
        PackageError: if there is no package, or one of a newer format.
        PackageCorruptError: if a file is missing, truncated, altered or makes no sense.
    """
    path = Path(path)
    try:
        if not (path / _MANIFEST).is_file():
            raise PackageError(f"{path} is no graphopt package: it has no {_MANIFEST}")
        listed = _check_sums(path)
        text = (path / _MANIFEST).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PackageCorruptError(path, f"it cannot be read ({error})") from error
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise PackageError(
                f"package {path} has format {data['format']!r}, this graphopt {VERSION} reads "
                f"{FORMAT}; upgrade graphopt or save the package again"
            )
        manifest = _parse(data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PackageCorruptError(path, f"its manifest makes no sense ({error})") from error
    for level in manifest.levels:
        if f"lib/{level}.so" not in listed:
            raise PackageCorruptError(path, f"lib/{level}.so is missing")
    return manifest


def _parse(data: dict[str, Any]) -> Manifest:
    """The manifest of parsed JSON; what makes no sense raises whatever it raises."""
    names = {f.name for f in fields(Manifest)}
    if data.keys() != names:
        raise ValueError(f"fields {sorted(data.keys() ^ names)} are missing or unknown")
    ports = {key: tuple(_port(p) for p in data[key]) for key in ("inputs", "outputs")}
    lists = {key: _strings(data[key]) for key in ("levels", "parameters")}
    for key in ("version", "name", "target", "arch", "precision"):
        _strings([data[key]])
    steps = tuple(dict(zip(step, _strings(step.values()), strict=True)) for step in data["steps"])
    if type(data["changes_arguments"]) is not bool or not lists["levels"]:
        raise ValueError("changes_arguments and levels")
    positional = data["call"]["tuple"][0]["tuple"]
    if data["call"]["tuple"][1].keys() != {"dict"} or len(lists["parameters"]) > len(positional):
        raise ValueError("the call is no pair of positional and keyword arguments")
    if sorted(structure.check(data["call"], len(ports["inputs"]))) != list(
        range(len(data["inputs"]))
    ):
        raise ValueError("the call does not name every input once")
    structure.check(data["result"], len(ports["outputs"]))
    if data["changes_arguments"] and data["result"]["dict"].keys() != {
        structure.RESULT,
        structure.AFTER,
    }:
        raise ValueError("the result does not say how arguments change")
    return Manifest(**{**data, **ports, **lists, "steps": steps})


def _strings(items: Any) -> tuple[str, ...]:
    """The items, if all are text."""
    found = tuple(items)
    if isinstance(items, str) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"{found!r:.60} is no list of names")
    return found


def _port(data: dict[str, Any]) -> Port:
    name, dtype = _strings([data["name"], data["dtype"]])
    DType(dtype)
    shape = tuple(data["shape"])
    if not all(type(extent) in (int, str) for extent in shape):
        raise ValueError(f"{shape!r:.60} is no shape")
    is_state = data.get("is_state", False)
    if type(is_state) is not bool:
        raise ValueError(f"{is_state!r:.60} is no answer to is_state")
    return Port(name, dtype, shape, is_state)


def _check_sums(path: Path) -> set[str]:
    """The names that SHA256SUMS lists, after checking those files."""
    listed: set[str] = set()
    for line in (path / _SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
        if not inside or not (path / name).is_file():
            raise PackageCorruptError(path, f"{name[:200] or repr(line)} is missing")
        if sha256_of(path / name) != digest:
            raise PackageCorruptError(path, f"{name} is truncated or altered")
        listed.add(name)
    for name in (_MANIFEST, "weights.bin", "module.c"):
        if name not in listed:
            raise PackageCorruptError(path, f"{name} has no checksum")
    return listed
