"""A package, loaded and callable: needs numpy, neither torch nor a compiler."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import (
    InputDtypeError,
    PackageChangedError,
    PackageCorruptError,
    PackageTargetError,
)
from graphopt.kernels import registry
from graphopt.runtime import process, structure
from graphopt.runtime.library import (
    ContextPool,
    Item,
    Library,
    MachineCode,
    Made,
    PortType,
    dense_tensor,
)
from graphopt.runtime.package import (
    SOURCE,
    WEIGHTS,
    Manifest,
    library_of,
    open_package,
    read_manifest,
)
from graphopt.runtime.sealed import SealedFolder
from graphopt.runtime.signing import PublicKey

Array = np.ndarray[Any, Any]


def load(
    path: str | Path,
    num_threads: int | None = None,
    *,
    trusted_keys: Sequence[PublicKey] | None = None,
) -> LoadedModule:
    """Opens a package after checking all of its files. It is machine code: load what you trust.

    Args:
        path: a `.gopt` folder.
        num_threads: threads of a run; all CPUs that this process may use if None.
        trusted_keys: public keys of ed25519, PEM files or their content as bytes, one of which must
            have signed the package (`graphopt sign`); None: any package is taken.

    Raises:
        PackageError: if it is none, of another format, or if the system refuses to read it.
        PackageCorruptError: if a file is missing, truncated, altered, not listed in SHA256SUMS, a
            link or no plain file, or if a field of the manifest makes no sense.
        UntrustedPackageError, SigningKeyError: if none of the trusted keys signed it as it is, or
            one is no key.
        LevelStartError: if the system does not let this process run the best level of the CPU.
    """
    return open_module(open_package(path, trusted_keys), num_threads)


def open_module(package: SealedFolder, num_threads: int | None) -> LoadedModule:
    """The module of a package, or of a package within another one; see `load`."""
    return LoadedModule(package, read_manifest(package), num_threads)


class LoadedModule(MachineCode):
    """Callable like the model it was made from; arrays in, arrays out (torch in, torch out).

    Attributes:
        path: folder of the package.
        manifest: its description.
        num_threads: threads of a run.
    """

    def __init__(self, package: SealedFolder, manifest: Manifest, num_threads: int | None) -> None:
        self.path = package.path
        self.manifest = manifest
        self.num_threads = num_threads
        self._source = package.data(SOURCE)
        self._weights = package.file(WEIGHTS)
        self._library = self._open(package)
        self._contexts = ContextPool(num_threads)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module.

        Raises:
            InputError: if the arguments do not fit.
            PackageTargetError: if this CPU lacks what the package is built for.
            PackageChangedError: if somebody wrote to the weights since they were mapped.
        """
        with process.calls:
            given = self._match(args, kwargs)
            outputs = self._run(self._stored(given), None)
            return self._result(outputs, given, (args, kwargs))

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Runs on stored arrays (bf16 as uint16) in the order of the manifest.

        Args:
            inputs: dense arrays; those that are states (`Port.is_state`) are written to.

        Raises:
            InputError, PackageTargetError: as for a call.
        """
        return self._run(inputs, None)

    def map(self, function: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
        """What a function gives for each item, on threads that count as those of a run.

        For what surrounds a model, such as features; `graphopt.limit_threads` holds for these
        threads and those of runs together.

        Args:
            function: must not run a module; it lets other Python threads go on where it computes.
            items: as many threads as `num_threads`, or as there are items or CPUs, if that is less.

        Raises:
            PackageTargetError: as for a call.
        """
        return self._runnable().map(function, items, self.num_threads)

    def emulate(self, *args: Any, sve_bits: int = 128, level: str = "", **kwargs: Any) -> Any:
        """Runs the package's own code under qemu; needs qemu-user and a compiler.

        Args:
            *args: arguments of the model; arrays that are states are written to, as by `run`.
            sve_bits: length of an SVE vector.
            level: ISA level; the most capable of the package if empty.
            **kwargs: arguments of the model.
        """
        from graphopt.config import Config
        from graphopt.runtime.emulate import Emulation
        from graphopt.toolchain.build import Builder

        self._check_weights()
        given = self._match(args, kwargs)
        builder = Builder(Config.from_environment().cache, 2)
        ports = self.manifest.inputs
        emulation = Emulation(
            builder,
            self._source.decode(),
            self.manifest.arch,
            [p.name for p in ports],
            [p.shape for p in ports],
            [number for number, port in enumerate(ports) if port.is_state],
        )
        outputs = emulation.run(
            self._weights,
            self._stored(given),
            level or self.manifest.levels[-1],
            sve_bits,
        )
        return self._result(outputs, given, (args, kwargs))

    def profile(self, *args: Any, repeats: int = 5, **kwargs: Any) -> list[dict[str, Any]]:
        """Median milliseconds of every step: dicts of `node`, `op`, `kernel`, `module`, `ms`.

        Args:
            args: positional arguments of the call.
            repeats: runs that are timed.
            kwargs: keyword arguments of the call.
        """
        given = self._stored(self._match(args, kwargs))
        seconds = self._runnable().times(repeats)
        self._run(given, None)
        for row in seconds:
            self._run(given, row)
        times = np.median(seconds, 0) * 1e3
        return [
            {**asdict(step), "ms": float(ms)}
            for step, ms in zip(self.manifest.steps, times, strict=True)
        ]

    @property
    def arena_bytes(self) -> int:
        """Working memory that the contexts hold which no caller is using now."""
        return self._contexts.arena_bytes

    def _match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The tensors of a call, whose positional arguments may be given by keyword."""
        names = self.manifest.parameters[len(args) :]
        count = next((i for i, name in enumerate(names) if name not in kwargs), len(names))
        args += tuple(kwargs[name] for name in names[:count])
        rest = {key: value for key, value in kwargs.items() if key not in names[:count]}
        return structure.match(self.manifest.call, args, rest)

    def _stored(self, given: Sequence[Any]) -> list[Array]:
        return [
            stored(value, port.name)
            for value, port in zip(given, self.manifest.inputs, strict=True)
        ]

    def _run(self, inputs: Sequence[Array], seconds: Array | None) -> list[Array]:
        self._check_weights()
        return self._contexts.run(self._runnable, inputs, seconds)

    def _runnable(self) -> Library:
        if self._library is None:
            manifest = self.manifest
            needs = f"{manifest.target} ({manifest.arch}: {', '.join(manifest.levels)})"
            raise PackageTargetError(self.path, needs, platform.machine())
        return self._library

    def _open(self, package: SealedFolder) -> Library | None:
        """The most capable library of the package that this CPU runs."""
        manifest = self.manifest
        for level in reversed(registry.host_levels()):
            if level.arch == manifest.arch and level.name in manifest.levels:
                library = Library(
                    package.file(library_of(level.name)),
                    self._weights,
                    [port.name for port in manifest.inputs],
                    [port.shape for port in manifest.inputs],
                )
                _compare(manifest, library, f"{self.path}: lib/{level.name}.so")
                self._check_weights()
                return library
        return None

    def _check_weights(self) -> None:
        if not self._weights.is_unchanged():
            raise PackageChangedError(self.path)

    def _result(self, outputs: list[Array], given: list[Any], call: Any) -> Any:
        tensors = like_given(outputs, [port.dtype for port in self.manifest.outputs], given)
        result = structure.build(self.manifest.result, tensors)
        if not self.manifest.changes_arguments:
            return result
        structure.write_back(call, result[structure.AFTER])
        return result[structure.RESULT]


def _compare(manifest: Manifest, library: Library, name: str) -> None:
    """PackageCorruptError where a manifest and its library say different things."""
    said: dict[str, object] = {
        kind: tuple(PortType(p.dtype, len(p.shape), p.is_state) for p in ports)
        for kind, ports in (("inputs", manifest.inputs), ("outputs", manifest.outputs))
    }
    said |= {"steps": len(manifest.steps)}
    found = {"inputs": library.inputs, "outputs": library.outputs, "steps": library.step_count}
    for kind, value in said.items():
        if value != found[kind]:
            raise PackageCorruptError(name, f"it has other {kind} than the manifest says")


def like_given(outputs: Sequence[Array], dtypes: Sequence[str], given: Sequence[Any]) -> list[Any]:
    """Outputs as torch tensors if some input was one, else as arrays.

    Args:
        outputs: stored arrays (bf16 as uint16).
        dtypes: names of their types.
        given: the inputs of the call.
    """
    torch = sys.modules.get("torch")
    if torch is None or not any(isinstance(a, torch.Tensor) for a in given):
        return list(outputs)
    tensors = [torch.from_numpy(a) for a in outputs]
    return [
        t.view(torch.bfloat16) if dtype == DType.BF16.value else t
        for t, dtype in zip(tensors, dtypes, strict=True)
    ]


def stored(value: Any, name: str) -> Array:
    """An argument as the runtime takes it: numpy, bf16 as its bits."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = dense_tensor(value)
        value = value.view(torch.uint16) if value.dtype is torch.bfloat16 else value
        return value.numpy()  # type: ignore[no-any-return]
    array = np.asarray(value)
    if array.dtype == object:
        raise InputDtypeError(name, "a number", "object")
    return array
