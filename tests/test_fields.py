"""Declared fields: what they take, and what is said of everything else."""

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from graphopt.runtime.fields import (
    Distinct,
    FieldError,
    Length,
    OneOf,
    Range,
    Size,
    parse_json,
    read_fields,
    read_json,
)


class Kind(enum.Enum):
    WIDE = "wide"
    FLAT = "flat"


@dataclass(frozen=True)
class Inner:
    size: Size
    kind: Kind = Kind.WIDE


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, Length(1, 5)]
    inner: Inner
    ratio: Annotated[float, Range(0, 1)] = 0.5
    shape: tuple[Annotated[int, Range(0, 9)] | str, ...] = ()
    pair: tuple[int, str] | None = None
    choice: Literal["a", 1] = "a"
    flags: dict[str, bool] | None = None
    letters: Annotated[list[Annotated[str, OneOf("abc")]], Distinct()] | None = None
    anything: Any = None

    def __post_init__(self) -> None:
        if self.ratio and len(self.shape) > 3:
            raise ValueError("ratio goes with three extents")


def test_everything_that_is_declared() -> None:
    text = """{"name": "x", "inner": {"size": 1, "kind": "flat"}, "ratio": 1, "shape": [0, "T"],
        "pair": [-7, ""], "choice": 1, "flags": {"on": true}, "letters": ["c", "a"],
        "anything": [{}]}"""
    assert read_json(Outer, text) == Outer(
        "x", Inner(1, Kind.FLAT), 1.0, (0, "T"), (-7, ""), 1, {"on": True}, ["c", "a"], [{}]
    )
    assert read_json(Outer, '{"name": "x", "inner": {"size": 1}}') == Outer("x", Inner(1))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"colour": 1}, "there is no field 'colour'"),
    "unknown inside": ({"inner": {"size": 1, "x": 1}}, "inner: there is no field 'x'"),
    "missing inside": ({"inner": {}}, "inner: field size is missing"),
    "no map": ({"inner": [1]}, "inner: [1] is no map of fields"),
    "text": ({"name": 3}, "name: 3 is not a text"),
    "short": ({"name": ""}, "name: its length 0 is not in 1 to 5"),
    "surrogate": ({"name": "\ud800"}, "name: '\\ud800' cannot be encoded in UTF-8"),
    "surrogate in anything": ({"anything": [{"a": ["\ud800"]}]}, "'\\ud800' cannot be encoded"),
    "bool": ({"inner": {"size": True}}, "inner.size: True is not a whole number"),
    "float": ({"inner": {"size": 1.0}}, "inner.size: 1.0 is not a whole number"),
    "low": ({"inner": {"size": 0}}, "inner.size: 0 is not in 1 to 2147483647"),
    "high": ({"inner": {"size": 2**31}}, "inner.size: 2147483648 is not in 1 to 2147483647"),
    "huge": ({"inner": {"size": 10**5000}}, "inner.size: a huge int is not in"),
    "enum": ({"inner": {"size": 1, "kind": "deep"}}, "'deep' is not one of 'wide', 'flat'"),
    "nan": ({"ratio": float("nan")}, "ratio: nan is not a finite number"),
    "over": ({"ratio": 10**400}, "is not a finite number"),
    "outside": ({"ratio": 1.5}, "ratio: 1.5 is not in 0 to 1"),
    "item": ({"shape": [1, "T", 10]}, "shape[2]: 10 is not in 0 to 9; 10 is not a text"),
    "no list": ({"shape": "T"}, "shape: 'T' is not a list"),
    "pair": ({"pair": [1]}, "pair: it has 1 items, not 2"),
    "in a pair": ({"pair": [1, 2]}, "pair[1]: 2 is not a text"),
    "literal": ({"choice": True}, "choice: True is not one of 'a', 1"),
    "dict": ({"flags": {"on": 1}}, "flags['on']: 1 is not true or false"),
    "not listed": ({"letters": ["d"]}, "letters[0]: 'd' is none of a, b, c"),
    "twice": ({"letters": ["a", "a"]}, "letters: ['a', 'a'] names one twice"),
    "together": ({"shape": [1, 2, 3, 4]}, "ratio goes with three extents"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError) as caught:
        read_fields(Outer, {"name": "x", "inner": {"size": 1}, **fields})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        (b"\xff", "no JSON"),
        ("{", "no JSON"),
        ("9" * 9999, "no JSON"),
        ("[" * 99999, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c': it is there twice"),
    ],
)
def test_what_is_no_json(text: str | bytes, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        parse_json(text)
