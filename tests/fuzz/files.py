"""Damages files of many kinds and opens them, in processes of their own: `make fuzz-files`.

    python tests/fuzz/files.py --seed 1 --count 5000
    python tests/fuzz/files.py --kinds module_package --seed 1 --first 17 --count 1

Whatever happens to a file, graphopt refuses it with a `GraphoptError` or works with it; it never
raises anything else, never crashes, and never takes more than `SECONDS`.

A kind of file is a module in `tests/fuzz/kinds` with a `KIND`:

    KIND = Kind(make, mutations, use)

`make(path)` writes a valid sample, a file or a folder, once, in a process of its own; what only it
needs, such as torch, is imported in it. Each case copies the sample, changes the copy by one of the
mutations and calls `use(path)`, which opens and uses it as a user does. The mutations of files,
folders, JSON and YAML are in `tests/support/mutations.py`; `is_refused=True` says that what one
leaves must be refused, and one that stands in the list several times is tried more often. One round
of the list runs in `make test`, by `test_damaged_files.py`. Seed, kind and number decide a case.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "support")]

from mutations import Mutation  # noqa: E402

from graphopt.errors import GraphoptError  # noqa: E402

SECONDS = 5  # of CPU time
_PATIENCE = 120  # seconds without a sign of a process that computes nothing
_REFUSED, _TAKEN = "refused", "taken"
_MEMORY = 16 << 30  # addresses of a process, for counts of billions


@dataclass(frozen=True)
class Kind:
    """A kind of file; see above."""

    make: Callable[[Path], object]
    mutations: Sequence[Mutation]
    use: Callable[[Path], object]


@dataclass
class Result:
    """What came of the cases of a kind.

    Attributes:
        tried: cases.
        refused: of those, with a typed error.
        failures: texts, each with the case that repeats it.
        seen: names of the mutations.
    """

    tried: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def kinds() -> list[str]:
    """Names of all kinds."""
    return sorted(path.stem for path in (HERE / "kinds").glob("*.py"))


def find(name: str) -> Kind:
    """The kind of that name."""
    kind: Kind = importlib.import_module(f"fuzz.kinds.{name}").KIND
    return kind


def run(name: str, folder: Path, seed: int, first: int, count: int) -> Result:
    """Tries cases of a kind, in a new process after each that ends one.

    Args:
        name: of the kind.
        folder: for sample and copies.
        seed: of the cases.
        first: number of the first case.
        count: of cases.
    """
    sample, result = folder / "sample", Result()
    _finish(_start(["make", name, str(sample)]), f"{name}: no sample")
    end = first + count
    while first < end:
        arguments = ["cases", name, str(sample), str(folder), str(seed), str(first), str(end)]
        process, case, mutation = _start(arguments), -1, "the sample itself"
        for line in _lines(process):
            if line.startswith("@case "):
                case, mutation = json.loads(line.removeprefix("@case "))
                result.seen.add(mutation)
            elif line.startswith("@done "):
                what = json.loads(line.removeprefix("@done "))
                result.tried += 1
                result.refused += what == _REFUSED
                first = case + 1
                if what not in (_REFUSED, _TAKEN):
                    result.failures.append(_failure(name, seed, case, mutation, what))
        ended = _finish(process, "")
        if first < end:
            if case < 0:
                raise RuntimeError(f"{name}: the sample itself: {ended}")
            result.tried += 1
            result.failures.append(_failure(name, seed, case, mutation, ended))
            first = case + 1
    return result


def _failure(name: str, seed: int, case: int, mutation: str, what: str) -> str:
    command = f"--kinds {name} --seed {seed} --first {case} --count 1"
    return f"{command}  ({mutation})\n{what}"


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a process prints; one that waits for something is ended."""
    assert process.stdout is not None
    while select.select([process.stdout], [], [], _PATIENCE)[0]:
        line = process.stdout.readline()
        if not line:
            return
        yield line.rstrip("\n")
    process.send_signal(signal.SIGALRM)


def _finish(process: subprocess.Popen[str], failure: str) -> str:
    """How a process ended; RuntimeError with that text if it failed and must not."""
    assert process.stderr is not None
    _, said = process.communicate()
    code = process.returncode
    names = {-signal.SIGPROF: f"takes more than {SECONDS} s", -signal.SIGALRM: "waits for ever"}
    how = names.get(code) or (signal.Signals(-code).name if code < 0 else f"exit status {code}")
    if code and failure:
        raise RuntimeError(f"{failure}: {how}\n{said[-3000:]}")
    return f"{how}\n{said[-1500:]}"


def _make(name: str, sample: str) -> None:
    find(name).make(Path(sample))


def _cases(name: str, sample: str, folder: str, seed: str, first: str, end: str) -> None:
    kind = find(name)
    faulthandler.enable()
    kind.use(Path(sample))  # whatever is loaded once is not the first case's
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for case in range(int(first), int(end)):
        rng = random.Random(f"{seed} {name} {case}")
        mutation = kind.mutations[case % len(kind.mutations)]
        print("@case", json.dumps([case, mutation.name]), flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            copy = Path(scratch) / "copy"
            _copy(Path(sample), copy)
            mutation.change(copy, rng)
            print("@done", json.dumps(_tried(kind, mutation, copy)), flush=True)


def _tried(kind: Kind, mutation: Mutation, path: Path) -> str:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        kind.use(path)
    except GraphoptError:
        return _REFUSED
    except Exception:
        return traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "it is taken as if nothing were wrong" if mutation.is_refused else _TAKEN


def _copy(sample: Path, copy: Path) -> None:
    if sample.is_dir():
        shutil.copytree(sample, copy)
    else:
        shutil.copyfile(sample, copy)


def main() -> None:
    """Prints a line for each kind, and each failure with what repeats it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000, help="of cases, over all kinds")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first case")
    parser.add_argument("--kinds", default=",".join(kinds()), help="names with commas")
    options = parser.parse_args()
    names, failed = options.kinds.split(","), False
    for place, name in enumerate(names):
        count = (options.count + len(names) - 1 - place) // len(names)
        with tempfile.TemporaryDirectory() as folder:
            result = run(name, Path(folder), options.seed, options.first, count)
        failed = failed or bool(result.failures)
        print(
            f"{name}: {result.tried} tried, {result.refused} refused, "
            f"{len(result.failures)} failed",
            flush=True,
        )
        for failure in result.failures:
            print(failure, flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    if sys.argv[1:2] in (["make"], ["cases"]):
        {"make": _make, "cases": _cases}[sys.argv[1]](*sys.argv[2:])
    else:
        main()
