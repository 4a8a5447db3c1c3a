"""What a JSON or YAML file may say, declared as a dataclass and read into it.

    @dataclass(frozen=True)
    class Port:
        name: str
        shape: Annotated[tuple[Annotated[int, Range(0, 2**47)] | str, ...], Length(0, 8)]
        is_state: bool = False

    read_json(Port, '{"name": "x", "shape": [1, "T"]}')

Every key is a field, every field without a default has a key, and every value has the type and the
range that is declared: booleans are no numbers, numbers are finite, texts can be encoded. What a
field cannot say of itself alone, `__post_init__` checks and raises as ValueError.
"""

from __future__ import annotations

import enum
import functools
import json
import math
import types
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union

T = TypeVar("T")
_SHOWN = 60  # characters of a value in an error


class FieldError(ValueError):
    """A field that is missing, unknown, or of a wrong type or range.

    For callers, who know the file and raise the error of its kind.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)


class Rule(Protocol):
    """What a type alone does not say; stands in `Annotated`."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value of the type, or None."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float

    def problem(self, value: Any) -> str | None:
        """See `Rule`."""
        inside = self.low <= value <= self.high
        return None if inside else f"{_short(value)} is not in {self.low} to {self.high}"


@dataclass(frozen=True)
class Length:
    """Texts, lists and maps of `least` to `most` items."""

    least: int
    most: int

    def problem(self, value: Any) -> str | None:
        """See `Rule`."""
        inside = self.least <= len(value) <= self.most
        return None if inside else f"its length {len(value)} is not in {self.least} to {self.most}"


@dataclass(frozen=True)
class OneOf:
    """Values of a list."""

    choices: Sequence[Any]

    def problem(self, value: Any) -> str | None:
        """See `Rule`."""
        listed = ", ".join(map(str, self.choices))
        return None if value in self.choices else f"{_short(value)} is none of {listed}"


class Distinct:
    """Lists without two equal items."""

    def problem(self, value: Any) -> str | None:
        """See `Rule`."""
        return None if len(set(value)) == len(value) else f"{_short(value)} names one twice"


Name = Annotated[str, Length(1, 1000)]
"""A text that is not empty."""

Count = Annotated[int, Range(0, 2**31 - 1)]
"""A whole number from 0 on."""

Size = Annotated[int, Range(1, 2**31 - 1)]
"""A whole number from 1 on."""

Amount = Annotated[float, Range(0, math.inf)]
"""A finite number from 0 on."""


def read_json(kind: type[T], text: str | bytes) -> T:
    """What a JSON text says, as a dataclass.

    Raises:
        FieldError: if it is no JSON, or not what the fields declare.
    """
    return read_fields(kind, parse_json(text))


def parse_json(text: str | bytes) -> Any:
    """The values of a JSON text in UTF-8, in which no map has a key twice.

    Raises:
        FieldError: if it is none.
    """
    try:
        return json.loads(text, object_pairs_hook=_map)
    except FieldError:
        raise
    except RecursionError:
        raise FieldError("", "it is nested too deeply") from None
    except ValueError as error:
        raise FieldError("", f"it is no JSON ({error})") from None


def read_fields(kind: type[T], value: Any, where: str = "") -> T:
    """A value of JSON or YAML, as a declared type.

    Args:
        kind: a dataclass, or any other type that a field may have: bool, int, float, str, None,
            Any, Literal, an Enum, tuples, lists and dicts of these, unions, Annotated with rules.
        value: what was read.
        where: what errors call it.

    Raises:
        FieldError: naming the field and what is wrong with it.
    """
    found: T = _read(kind, value, where)
    return found


def _map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise FieldError(_short(twice), "it is there twice")
    return found


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        found = _read(arguments[0], value, where)
        for rule in arguments[1:]:
            if problem := rule.problem(found):
                raise FieldError(where, problem)
        return found
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is Literal:
        same = [a for a in arguments if type(a) is type(value) and a == value]
        return same[0] if same else _refuse(hint, value, where)
    if origin in (tuple, list):
        return _read_list(hint, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            _refuse(hint, value, where)
        keys, items = arguments
        return {
            _read(keys, key, f"{where} key"): _read(items, item, f"{where}[{_short(key)}]")
            for key, item in value.items()
        }
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        same = [a for a in hint if type(a.value) is type(value) and a.value == value]
        return same[0] if same else _refuse(hint, value, where)
    if is_dataclass(hint):
        return _read_dataclass(hint, value, where)
    return _read_scalar(hint, value, where)


def _read_union(hints: Sequence[Any], value: Any, where: str) -> Any:
    """The first that fits; what is wrong with the only one that is not None is said of it alone."""
    if value is None and type(None) in hints:
        return None
    hints = [hint for hint in hints if hint is not type(None)]
    if len(hints) == 1:
        return _read(hints[0], value, where)
    problems = []
    for hint in hints:
        try:
            return _read(hint, value, where)
        except FieldError as error:
            problems.append(str(error).removeprefix(f"{where}: "))
    raise FieldError(where, "; ".join(dict.fromkeys(problems)))


def _read_list(hint: Any, value: Any, where: str) -> Any:
    make, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not isinstance(value, list | tuple):
        _refuse(hint, value, where)
    if make is tuple and (len(arguments) < 2 or arguments[1] is not Ellipsis):
        if len(value) != len(arguments):
            raise FieldError(where, f"it has {len(value)} items, not {len(arguments)}")
        items = arguments
    else:
        items = (arguments[0],) * len(value)
    return make(_read(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(items, value)))  # noqa: B905


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise FieldError(where, f"{_short(value)} is no map of fields")
    hints = _hints(kind)
    inside = f"{where}." if where else ""
    if unknown := [key for key in value if key not in hints]:
        raise FieldError(where, f"there is no field {', '.join(map(_short, unknown[:5]))}")
    optional = {
        f.name for f in fields(kind) if (f.default, f.default_factory) != (MISSING, MISSING)
    }
    if missing := [name for name in hints if name not in value and name not in optional]:
        raise FieldError(where, f"field {', '.join(missing)} is missing")
    found = {key: _read(hints[key], item, f"{inside}{key}") for key, item in value.items()}
    try:
        return kind(**found)
    except FieldError:
        raise
    except (ValueError, RecursionError) as error:
        raise FieldError(where, str(error)) from None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind) if f.init}


def _read_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        _check_texts(value, where)
        return value
    if hint is None or hint is type(None):
        return None if value is None else _refuse(hint, value, where)
    if hint is float and type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else _refuse(hint, value, where)
    if type(value) is not hint:
        _refuse(hint, value, where)
    if hint is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FieldError(where, f"{_short(value)} cannot be encoded in UTF-8") from None
    return value


_CALLED = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "a map",
}


def _check_texts(value: Any, where: str) -> None:
    """Raises FieldError for a text in a value of any type that cannot be encoded."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            _read_scalar(str, part, where)
        elif isinstance(part, dict | list) and id(part) not in seen:
            seen.add(id(part))  # YAML lets a list hold itself
            waiting += [*part, *part.values()] if isinstance(part, dict) else part


def _refuse(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is Literal:
        wanted = "one of " + ", ".join(map(repr, typing.get_args(hint)))
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        wanted = "one of " + ", ".join(repr(item.value) for item in hint)
    else:
        wanted = _CALLED.get(typing.get_origin(hint) or hint, "null")
    raise FieldError(where, f"{_short(value)} is not {wanted}")


def _short(value: Any) -> str:
    """The beginning of a value, on one line and in ASCII."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
