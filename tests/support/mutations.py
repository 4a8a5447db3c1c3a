"""Ways in which files and folders go wrong: each changes a file, or one in a folder, in place."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graphopt.runtime.sealed import SUMS, seal

Change = Callable[[Path, random.Random], None]


@dataclass(frozen=True)
class Mutation:
    """A change of a sample.

    Attributes:
        name: what reports call it.
        change: does it.
        is_refused: whether what it leaves must be refused, not only survived.
    """

    name: str
    change: Change
    is_refused: bool = False


def files(path: Path) -> list[Path]:
    """The path if it is a file, else the files in the folder, in one order."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def flip(path: Path, rng: random.Random) -> None:
    """Other bits, few of them."""
    file = _one(path, rng)
    data = bytearray(file.read_bytes())
    for bit in rng.sample(range(8 * len(data)), min(8 * len(data), rng.randint(1, 8))):
        data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    """The end is missing."""
    file = _one(path, rng)
    os.truncate(file, rng.randrange(file.stat().st_size))


def grow(path: Path, rng: random.Random) -> None:
    """Something stands behind the end."""
    with _one(path, rng).open("ab") as stream:
        stream.write(rng.randbytes(rng.choice([1, 64, 5000])))


def empty(path: Path, rng: random.Random) -> None:
    """Nothing in it."""
    os.truncate(_one(path, rng), 0)


def delete(path: Path, rng: random.Random) -> None:
    """The file is missing."""
    _one(path, rng).unlink()


def folder(path: Path, rng: random.Random) -> None:
    """A folder in its place."""
    file = _one(path, rng)
    file.unlink()
    file.mkdir()


def pipe(path: Path, rng: random.Random) -> None:
    """A pipe in its place, to which nobody writes."""
    file = _one(path, rng)
    file.unlink()
    os.mkfifo(file)


def link(path: Path, rng: random.Random) -> None:
    """A link in its place: to the file itself, to nothing, in a circle, to a device."""
    file = _one(path, rng)
    aside = path.parent / f"{path.name}-aside"
    file.rename(aside)
    file.symlink_to(rng.choice([aside, "nothing", file.name, "/dev/zero"]))


def swap(path: Path, rng: random.Random) -> None:
    """Two files of a folder under each other's name."""
    one, two = rng.sample(files(path), 2)
    same = one.read_bytes() == two.read_bytes()
    aside = path.parent / f"{path.name}-aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    if same:
        flip(path, rng)


def extra(path: Path, rng: random.Random) -> None:
    """A file more in a folder."""
    (rng.choice(files(path)).parent / "more").write_bytes(rng.randbytes(9))


def garbage(path: Path, rng: random.Random) -> None:
    """Noise of the same length."""
    file = _one(path, rng)
    file.write_bytes(rng.randbytes(file.stat().st_size + 1))


def block(path: Path, rng: random.Random) -> None:
    """A stretch of zeros, of ones, or of what stands elsewhere in the file."""
    file = _one(path, rng)
    data = bytearray(file.read_bytes())
    size = rng.randint(1, min(len(data), 4096))
    at, elsewhere = rng.randrange(len(data)), rng.randrange(len(data))
    piece = rng.choice([bytes(size), b"\xff" * size, data[elsewhere : elsewhere + size]])
    data[at : at + len(piece)] = piece
    file.write_bytes(data)


#: Numbers at the ends of ranges, as headers of binary files hold them.
_NUMBERS = [0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]


def number(path: Path, rng: random.Random) -> None:
    """A huge or otherwise extreme number in the first kilobytes of a file."""
    file = _one(path, rng)
    data = bytearray(file.read_bytes())
    size = rng.choice([2, 4, 8])
    at = rng.randrange(min(len(data), rng.choice([64, 4096])))
    data[at : at + size] = (rng.choice(_NUMBERS) % 2 ** (8 * size)).to_bytes(size, "little")
    file.write_bytes(data)


_JUNK: list[Any] = [None, True, -1, 0, 1, 2**31, 2**70, 0.5, 1e308, "", "x", "../x", "\ud800"]
_JUNK += ["x" * 5000, [], [[]], {}, {"tensor": 0}, {"tensor": 9}, {"tuple": []}]
_JUNK += [{"list": [{"value": 1}]}, {"dict": {"": {"value": None}}}, float("nan"), float("inf")]


def change_values(tree: Any, rng: random.Random) -> Any:
    """A JSON value with some of its values removed, doubled, or of other types and sizes."""
    for _ in range(rng.randint(1, 3)):
        places = _places(tree)
        if not places:
            return rng.choice(_JUNK)
        container, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.2:
            container.pop(key)
        elif kind < 0.3 and isinstance(container, list):
            container.insert(key, container[key])
        elif kind < 0.3:
            container[f"{key}x"] = container[key]
        elif kind < 0.5 and type(container[key]) in (int, float):
            value = container[key]
            container[key] = rng.choice(
                [-value, value + 1, value * 2**33, float(value), str(value)]
            )
        else:
            container[key] = rng.choice(_JUNK)
    return tree


def json_values(name: str) -> Change:
    """`change_values` of the JSON file of that name in a folder."""

    def change(path: Path, rng: random.Random) -> None:
        tree = json.loads((path / name).read_text(encoding="utf-8"))
        (path / name).write_text(json.dumps(change_values(tree, rng)), encoding="utf-8")

    return change


def yaml_values(name: str) -> Change:
    """`change_values` of the YAML file of that name in a folder."""

    def change(path: Path, rng: random.Random) -> None:
        tree = yaml.safe_load((path / name).read_text(encoding="utf-8"))
        text = yaml.safe_dump(change_values(tree, rng), allow_unicode=False)
        (path / name).write_text(text, encoding="utf-8")

    return change


_TEXTS = ["", "null", "[]", "{}", "3", "[" * 99999, '{"format": 1}', '{"format": [1]}', "\0", "NaN"]
_TEXTS += ["9" * 9999, '{"a": 1, "a": 2}', '"\\ud800"', "- &a [*a]", "\ufeff{}"]


def text(name: str) -> Change:
    """Another text altogether in the file of that name in a folder."""
    return lambda path, rng: _write(path / name, rng.choice(_TEXTS).encode())


def text_bytes(name: str) -> Change:
    """Some other bytes in the text file of that name in a folder."""

    def change(path: Path, rng: random.Random) -> None:
        data = bytearray((path / name).read_bytes())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        _write(path / name, bytes(data))

    return change


def of(name: str, change: Change) -> Change:
    """A change of the file of that name in a folder."""
    return lambda path, rng: change(path / name, rng)


def resealed(change: Change) -> Change:
    """A change of a package after which its checksums are right again."""

    def both(path: Path, rng: random.Random) -> None:
        change(path, rng)
        seal(path)

    return both


def of_header(size: int) -> Change:
    """Some other bytes among the first `size` of a file."""

    def change(path: Path, rng: random.Random) -> None:
        data = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(min(len(data), size))] = rng.randrange(256)
        path.write_bytes(data)

    return change


#: What happens to files on disks and ways, not to what they say.
ACCIDENTS = (flip, cut, grow, empty, delete, folder, pipe, link, garbage, block, number)


def accidents(is_refused: bool) -> list[Mutation]:
    """All accidents of a file, or of any file of a folder."""
    return [Mutation(change.__name__, change, is_refused) for change in ACCIDENTS]


def package_accidents() -> list[Mutation]:
    """What may happen to a package; its checksums tell all of it."""
    changes = [c for c in (*ACCIDENTS, swap, extra) if c not in (block, number)]
    return [Mutation(change.__name__, change, is_refused=True) for change in changes]


def _one(path: Path, rng: random.Random) -> Path:
    """A file with content, or the sums, which are shorter than what they protect."""
    found = [file for file in files(path) if file.stat().st_size]
    sums = path / SUMS
    return sums if sums in found and rng.random() < 0.1 else rng.choice(found)


def _write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = (
        list(value)
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else []
    )
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]
