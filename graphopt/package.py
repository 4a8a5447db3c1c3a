"""Packages: a folder that holds a compiled module for machines without torch or compiler.

    name.gopt/
        manifest.json     what it is, what it takes and returns, in JSON
        SHA256SUMS        a line per file, as sha256sum writes them
        module.c          the generated C
        weights.bin       constants, packed and aligned, to be mapped
        lib/<level>.so    one library per ISA level
        passes/*.txt      the graph as captured, lowered and planned
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphopt._version import VERSION
from graphopt.errors import PackageCorruptError, PackageError
from graphopt.structure import Template

FORMAT = 1
_SUMS = "SHA256SUMS"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Port:
    """An input or output: name, dtype and extents (numbers or names of dims)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


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
    path = Path(path)
    if path.exists() and not (path / _MANIFEST).is_file():
        raise PackageError(f"{path} exists and is no package; remove it or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, content in files.items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_text(content)
        text = json.dumps(asdict(manifest), indent=1, sort_keys=True)
        (staging / _MANIFEST).write_text(text + "\n")
        names = sorted(str(p.relative_to(staging)) for p in staging.rglob("*") if p.is_file())
        sums = "".join(f"{_sha256(staging / name)}  {name}\n" for name in names)
        (staging / _SUMS).write_text(sums)
        staging.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read_manifest(path: Path) -> Manifest:
    """Checks every file of a package and reads its manifest.

    Raises:
        PackageError: if there is no package, or one of a newer format.
        PackageCorruptError: if a file is missing, truncated, altered or makes no sense.
    """
    path = Path(path)
    if not (path / _MANIFEST).is_file():
        raise PackageError(f"{path} is no graphopt package: it has no {_MANIFEST}")
    _check_sums(path)
    try:
        data = json.loads((path / _MANIFEST).read_text())
        if data["format"] != FORMAT:
            raise PackageError(
                f"package {path} has format {data['format']}, this graphopt {VERSION} reads "
                f"{FORMAT}; upgrade graphopt or save the package again"
            )
        ports = {key: tuple(_port(p) for p in data.pop(key)) for key in ("inputs", "outputs")}
        lists = {key: tuple(data.pop(key)) for key in ("levels", "steps")}
        manifest = Manifest(**data, **ports, **lists)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackageCorruptError(path, f"its manifest makes no sense ({error})") from error
    return manifest


def _port(data: dict[str, Any]) -> Port:
    return Port(data["name"], data["dtype"], tuple(data["shape"]))


def _check_sums(path: Path) -> None:
    try:
        lines = (path / _SUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PackageCorruptError(path, f"{_SUMS} cannot be read ({error})") from error
    listed: set[str] = set()
    for line in lines:
        digest, _, name = line.partition("  ")
        file = path / name
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or not file.is_file():
            raise PackageCorruptError(path, f"{name or line!r} is missing")
        if _sha256(file) != digest:
            raise PackageCorruptError(path, f"{name} is truncated or altered")
        listed.add(name)
    for name in (_MANIFEST, "weights.bin", "module.c"):
        if name not in listed:
            raise PackageCorruptError(path, f"{name} has no checksum")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
