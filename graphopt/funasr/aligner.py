"""Texts aligned with speech by a package, without torch and FunASR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphopt.errors import PackageError
from graphopt.funasr.models.monotonic_aligner import Aligner
from graphopt.funasr.recognizer import open_part, open_recognizer, reading
from graphopt.runtime.signing import PublicKey


def load_aligner(
    path: str | Path,
    num_threads: int | None = None,
    trusted_keys: Sequence[PublicKey] | None = None,
) -> Aligner:
    """Opens a package of `compile_directories` that holds a MonotonicAligner.

    Args:
        path: the folder.
        num_threads: threads of a run; all CPUs that this process may use if None.
        trusted_keys: as for `graphopt.load`.

    Raises:
        PackageError: if it is none, or recognizes speech.
        PackageCorruptError: if a file is missing, altered or makes no sense.
        PackageTargetError: when run, if this CPU lacks what the package is built for.
        UntrustedPackageError, SigningKeyError: as for `graphopt.load`.
    """
    package = open_recognizer(path, trusted_keys)
    with reading(package) as parts:
        aligner: Aligner | None = open_part(package, parts, "align", num_threads)
        if aligner is None:
            raise PackageError(
                f"{path} aligns no texts; compile the directory of a MonotonicAligner"
            )
        return aligner
