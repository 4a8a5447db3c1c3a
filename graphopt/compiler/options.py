"""Which options of `graphopt.optimize` a kind of model uses, and which values they take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graphopt.errors import OptionError
from graphopt.target import Target

#: What every option is when it is not given.
DEFAULTS: dict[str, Any] = {
    "example_inputs": None,
    "dynamic_shapes": None,
    "strict": False,
    "group_size": 32,
    "activation_bits": 8,
    "kv_cache": None,
    "head": "auto",
    "rounding": "nearest",
    "calibration": None,
    "check": True,
}
#: Options whose values are names.
_NAMES = ("target", "precision", "kv_cache", "head", "rounding")
_MODULE = {"example_inputs", "dynamic_shapes", "strict", "check"}
_PARTS = {"strict", "check"}
_DECODER = {"kv_cache", "head", "check"}
_LARGEST_GROUP = 1024


def narrow_options(precision: str) -> set[str]:
    """Options that say how numbers become narrow, of those that a precision uses."""
    if "int4" in precision:
        return {"group_size", "activation_bits", "rounding"}
    return {"activation_bits"} if "int8" in precision else set()


def used_by_module(precision: str) -> set[str]:
    """What any module uses, at a precision that is not `auto`."""
    return _MODULE | narrow_options(precision)


def used_by_auto_model(precision: str) -> set[str]:
    """What the parts of a FunASR AutoModel use."""
    return _PARTS | narrow_options(precision)


def used_by_decoder(precision: str) -> set[str]:
    """What a language model without example inputs uses."""
    used = _DECODER | narrow_options(precision)
    return used | {"calibration"} if "int4" in precision else used


def check_values(options: Mapping[str, Any]) -> None:
    """Raises OptionError for a value that an option cannot have, whatever the model.

    Which names, threads and bits there are is checked by what reads them.
    """
    for name in _NAMES:
        value = options[name]
        if isinstance(value, str) or (name, value is None) == ("kv_cache", True):
            continue
        if name != "target":
            raise OptionError(name, value, "give a name")
        if not isinstance(value, Target):
            how = "give a name or a Target; inputs go by keyword, such as example_inputs=(x,)"
            raise OptionError(name, value, how)
    for name in ("strict", "check"):
        if not isinstance(options[name], bool):
            raise OptionError(name, options[name], "give True or False")
    check_group_size(options["group_size"])
    example = options["example_inputs"]
    if not isinstance(example, tuple | list | dict | None):
        what = type(example).__name__
        how = "give a tuple of positional arguments, as example_inputs=(x,), or a dict of keywords"
        raise OptionError("example_inputs", what, how)
    if isinstance(example, dict) and not all(isinstance(key, str) for key in example):
        how = "the keys of a dict are names of parameters; a tuple is for positional arguments"
        raise OptionError("example_inputs", "dict", how)
    shapes = options["dynamic_shapes"]
    if not isinstance(shapes, dict | tuple | list | None):
        raise OptionError(
            "dynamic_shapes", shapes, "give a dict by parameter, or a tuple, as torch.export takes"
        )


def check_group_size(size: object) -> None:
    """Raises OptionError for what no weights of int4 can share a scale by."""
    whole = isinstance(size, int) and not isinstance(size, bool)
    if size is not None and not (whole and size % 32 == 0 and 32 <= size <= _LARGEST_GROUP):  # type: ignore[operator]
        remedy = f"give a multiple of 32 up to {_LARGEST_GROUP}, or None for a scale per channel"
        raise OptionError("group_size", size, remedy)


def refuse_unused(options: Mapping[str, Any], used: Collection[str], kind: str) -> None:
    """Raises OptionError for the first option that is given and not used.

    Args:
        options: every option of `DEFAULTS`, as given.
        used: names of those that count.
        kind: what does not use it, such as "a language model in int8".
    """
    for name, default in DEFAULTS.items():
        given = options[name]
        if name not in used and not (type(given) is type(default) and given == default):
            raise OptionError(name, given, f"{kind} does not use it; leave it out")
