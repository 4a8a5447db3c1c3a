"""Loads and calls damaged copies of a package, as a program, so that a crash is seen from outside.

    python damage.py package scratch first count

Prints the seed of every case before it runs, and a traceback where anything but a `GraphoptError`
comes out. `seed` decides everything about a case.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphopt
from graphopt.errors import GraphoptError
from graphopt.sealed import seal


def files(package: Path) -> list[Path]:
    return sorted(p for p in package.rglob("*") if p.is_file())


def flip(package: Path, rng: random.Random) -> None:
    path = rng.choice(files(package))
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(package: Path, rng: random.Random) -> None:
    path = rng.choice(files(package))
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def delete(package: Path, rng: random.Random) -> None:
    rng.choice(files(package)).unlink()


def swap(package: Path, rng: random.Random) -> None:
    one, two = rng.sample(files(package), 2)
    spare = package / "spare"
    one.rename(spare)
    two.rename(one)
    spare.rename(two)


def replace_by_folder(package: Path, rng: random.Random) -> None:
    path = rng.choice(files(package))
    path.unlink()
    path.mkdir()


def weights(package: Path, rng: random.Random) -> None:
    path = package / "weights.bin"
    path.write_bytes(rng.randbytes(path.stat().st_size + rng.choice([0, 0, -64, 64])))
    seal(package)


def text(package: Path, rng: random.Random) -> None:
    path = package / "manifest.json"
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    seal(package)


JUNK: list[Any] = [None, True, -1, 0, 1, 2**70, 0.5, "", "x", "tensor", [], [[]], {}, {"tensor": 0}]
JUNK += [{"tensor": 9}, {"tuple": []}, {"list": [{"value": 1}]}, {"dict": {"": {"value": None}}}]


def nested(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    else:
        keys = list(range(len(value))) if isinstance(value, list) else []
    return [(value, k) for k in keys] + [place for k in keys for place in nested(value[k])]


def values(package: Path, rng: random.Random) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(nested(manifest))
        if isinstance(container, list) and key >= len(container):
            continue
        if rng.random() < 0.3:
            container.pop(key)
        elif key in container or isinstance(container, list):
            container[key] = rng.choice(JUNK)
    (package / "manifest.json").write_text(json.dumps(manifest))
    seal(package)


def garbage(package: Path, rng: random.Random) -> None:
    junk = [
        "",
        "null",
        "[]",
        "{}",
        "3",
        "[" * 99999,
        '{"format": 1}',
        '{"format": [1]}',
        "\x00",
        "NaN",
    ]
    (package / "manifest.json").write_text(rng.choice([*junk, "9" * 9999]))
    seal(package)


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    flip,
    cut,
    delete,
    swap,
    replace_by_folder,
    weights,
    text,
    values,
    values,
    values,
    garbage,
]


def run_case(package: Path, scratch: Path, seed: int) -> str:
    """`refused`, or `ran` if the damage does not matter to a call."""
    rng = random.Random(seed)
    copy = scratch / f"{seed}.gopt"
    shutil.copytree(package, copy)
    DAMAGES[seed % len(DAMAGES)](copy, rng)
    x = np.ones((1, 3, 48), np.float32)
    try:
        graphopt.load(copy)(x)
    except GraphoptError:
        return "refused"
    finally:
        shutil.rmtree(copy)
    return "ran"


def main(package: str, scratch: str, first: str, count: str) -> None:
    for seed in range(int(first), int(first) + int(count)):
        print(f"seed {seed} {DAMAGES[seed % len(DAMAGES)].__name__}", end=" ", flush=True)
        try:
            print(run_case(Path(package), Path(scratch), seed), flush=True)
        except Exception:
            print("ESCAPED", traceback.format_exc(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
