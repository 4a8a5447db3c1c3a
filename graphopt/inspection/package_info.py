"""What is in a package, for which CPUs, and whether it runs on this one."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from graphopt.errors import PackageError
from graphopt.kernels import registry
from graphopt.printable import printable
from graphopt.runtime.package import MANIFEST, Manifest, Port, read_manifest
from graphopt.runtime.sealed import SealedFolder, as_path, open_sealed
from graphopt.runtime.signing import SIGNATURE, PublicKey

#: What a package is, by the file that only one of its kind has.
_KINDS = {
    MANIFEST: "compiled model",
    "llm.json": "language model",
    "recognizer.json": "recognizer of FunASR",
}


@dataclass(frozen=True)
class LevelInfo:
    """An ISA level of a package.

    Attributes:
        name: of the level.
        needs: CPU features.
        missing: those that this CPU lacks; its architecture, if this machine has another.
    """

    name: str
    needs: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class ModuleInfo:
    """A compiled graph of a package.

    Attributes:
        folder: within the package; empty for a package that is one.
        name: of the model.
        version: of graphopt that wrote it.
        format: version of the package format.
        target: for what it is compiled.
        arch: architecture.
        precision: in what it computes.
        levels: the most capable last.
        runs: the level that runs here; empty if none does.
        inputs: as `name: f32[B, 3]`.
        outputs: likewise.
        steps: of a run.
        weights: bytes of its weights.
        code: bytes of its libraries.
    """

    folder: str
    name: str
    version: str
    format: int
    target: str
    arch: str
    precision: str
    levels: tuple[LevelInfo, ...]
    runs: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: int
    weights: int
    code: int


@dataclass(frozen=True)
class PackageInfo:
    """A package. Prints as a table.

    Attributes:
        path: of the folder.
        kind: what it holds, in words.
        modules: its compiled graphs.
        files: number of files, all of which have been checked.
        size: bytes of all files.
        is_signed: whether somebody signed it.
    """

    path: str
    kind: str
    modules: tuple[ModuleInfo, ...]
    files: int
    size: int
    is_signed: bool

    @property
    def runs_here(self) -> bool:
        """Whether every graph has a level that this CPU runs."""
        return all(module.runs for module in self.modules)

    def as_dict(self) -> dict[str, Any]:
        """What JSON shows."""
        return {"runs_here": self.runs_here, **asdict(self)}

    def __rich__(self) -> Table:
        table = Table(title=Text(f"{printable(self.path)}: {self.kind}"), title_justify="left")
        table.add_column("what", no_wrap=True)
        table.add_column("value", overflow="fold")
        signed = "signed" if self.is_signed else "not signed"
        table.add_row("files", f"{self.files}, {_mib(self.size)}, checked, {signed}")
        for module in self.modules:
            table.add_section()
            for what, value in _facts(module):
                table.add_row(Text(what), Text(value))
        table.add_section()
        table.add_row("runs here", Text(self.verdict, style="" if self.runs_here else "bold red"))
        return table

    @property
    def verdict(self) -> str:
        """Whether it runs here, in words."""
        if self.runs_here:
            levels = ", ".join(dict.fromkeys(module.runs for module in self.modules))
            return f"yes, by {levels}"
        left = next(module for module in self.modules if not module.runs)
        lacks = "; ".join(f"{lv.name} needs {' '.join(lv.missing)}" for lv in left.levels)
        return f"no: this machine is {platform.machine()}, and {lacks}"


def inspect_package(
    path: str | os.PathLike[str], trusted_keys: Sequence[PublicKey] | None = None
) -> PackageInfo:
    """Reads what a package says of itself; loads none of its code.

    Args:
        path: the folder.
        trusted_keys: as for `graphopt.load`.

    Raises:
        PackageError: if it is none, or was damaged or changed.
        UntrustedPackageError: if none of the keys signed it.
    """
    folder = as_path(path)
    mark = next((mark for mark in _KINDS if os.path.isfile(folder / mark)), None)
    if mark is None:
        known = ", ".join(_KINDS)
        raise PackageError(f"{folder} is no package of graphopt: it has none of {known}")
    package = open_sealed(folder, mark, _KINDS[mark], trusted_keys)
    size = sum((folder / name).stat().st_size for name in package.names)
    modules = tuple(_modules(package, folder))
    is_signed = (folder / SIGNATURE).is_file()
    return PackageInfo(str(folder), _KINDS[mark], modules, len(package.names), size, is_signed)


def _modules(package: SealedFolder, path: Path) -> Iterator[ModuleInfo]:
    for name in sorted(package.names):
        if name.rpartition("/")[2] == MANIFEST:
            inner = name.rpartition("/")[0]
            manifest = read_manifest(package.folder(inner) if inner else package)
            yield _module(manifest, inner, path / inner)


def _module(manifest: Manifest, folder: str, path: Path) -> ModuleInfo:
    features, arch = registry.cpu_features(), platform.machine()
    levels = []
    for name in manifest.levels:
        row = registry.level(manifest.arch, name)
        levels.append(LevelInfo(name, row.features, registry.missing_features(row, arch, features)))
    return ModuleInfo(
        folder,
        manifest.name,
        manifest.version,
        manifest.format,
        manifest.target,
        manifest.arch,
        manifest.precision,
        tuple(levels),
        next((level.name for level in reversed(levels) if not level.missing), ""),
        tuple(map(_port, manifest.inputs)),
        tuple(map(_port, manifest.outputs)),
        len(manifest.steps),
        (path / "weights.bin").stat().st_size,
        sum(file.stat().st_size for file in (path / "lib").glob("*.so")),
    )


def _port(port: Port) -> str:
    shape = ", ".join(map(str, port.shape))
    return (
        f"{port.name}: {port.dtype}[{shape}]{' (kept from call to call)' if port.is_state else ''}"
    )


def _facts(module: ModuleInfo) -> Iterator[tuple[str, str]]:
    yield "model", f"{module.name}{f' in {module.folder}/' if module.folder else ''}"
    yield "written by", f"graphopt {module.version}, package format {module.format}"
    yield "compiled for", f"{module.target} ({module.arch}), {module.precision}"
    for level in module.levels:
        needs = " ".join(level.needs) or "no feature of the CPU"
        lacks = f"; missing here: {' '.join(level.missing)}" if level.missing else ""
        yield f"level {level.name}", f"needs {needs}{lacks}"
    yield "inputs", "\n".join(module.inputs)
    yield "outputs", "\n".join(module.outputs)
    yield "steps", str(module.steps)
    yield "size", f"weights {_mib(module.weights)}, libraries {_mib(module.code)}"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
