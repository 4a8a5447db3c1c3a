"""What a model is compiled for: which values there are, and what a kind of model uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.compiler.pipeline import check_activation_bits
from graphopt.compiler.precision_plan import PrecisionPlan
from graphopt.errors import CalibrationError, OptionError
from graphopt.ir.numbers import QUANTIZED
from graphopt.kernels.formats import INT4_BLOCKS, formats_of
from graphopt.passes.support.rounding import check_rounding
from graphopt.runtime.library import check_threads
from graphopt.target import Target, find_target

#: Options whose values are names.
_NAMES = ("target", "precision", "kv_cache", "head", "rounding")
#: Options that every kind of model uses.
_ALWAYS = {"target", "precision"}
_LARGEST_GROUP = 1024


@dataclass(frozen=True)
class Options:
    """The options of `graphopt.optimize`, where they are explained, and of the command line.

    Attributes:
        target: the target itself.
        precision: never `auto`; of a plan all that it has, with commas between them.
        calibration: where a tokenizer is at hand, also a text.
        faithful: whether an ONNX model that came quantized is computed with the scales it asks for.
        requantize: whether weights that a file has quantized are made f32 when they are read;
            otherwise `int4` takes those in blocks of 4 bits as they are.
        asked: the precision as it was asked for.
        plan: precisions of layers that have another than the rest, which it has too.
    """

    target: Target
    precision: str
    num_threads: int | None = None
    example_inputs: tuple[Any, ...] | list[Any] | dict[str, Any] | None = None
    dynamic_shapes: Any = None
    strict: bool = False
    group_size: int | None = 32
    activation_bits: int = 8
    kv_cache: str | None = None
    head: str = "auto"
    rounding: str = "nearest"
    calibration: Sequence[Any] | None = None
    context: int | None = None
    requantize: bool = False
    faithful: bool = False
    check: bool = True
    asked: str = "auto"
    plan: PrecisionPlan | None = None

    @staticmethod
    def of(**given: Any) -> Options:
        """The options from keywords, of which only the ones given count.

        Raises:
            OptionError, UnknownTargetError, UnknownPrecisionError, ThreadCountError: for a value
                that an option cannot have, whatever the model.
            CalibrationError: for `gptq` without calibration.
            PlanError: for a plan that cannot be read, or with a precision that there is not.
        """
        defaults: dict[str, Any] = {"target": "native", "precision": "auto"}
        defaults |= {f.name: f.default for f in dataclasses.fields(Options)[2:]}
        given = {**defaults, **given}
        _check_values(given)
        target = find_target(given["target"])
        check_threads(given["num_threads"])
        planned = target.precision(given["precision"])
        if given["plan"] is not None:
            plan = _plan_of(given["plan"], target, given["precision"])
            planned, given["plan"] = plan.name, plan
        check_activation_bits(given["activation_bits"])
        check_rounding(given["rounding"])
        if given["rounding"] == "gptq" and given["calibration"] is None:
            raise CalibrationError("rounding by gptq needs text")
        changed = {"target": target, "precision": planned, "asked": given["precision"]}
        return Options(**{**given, **changed})

    @property
    def group(self) -> int:
        """Int4 weights that share a scale; 0 for a scale per channel."""
        return self.group_size or 0

    @property
    def as_blocks(self) -> bool:
        """Whether weights that come quantized stay so when they are read."""
        return "int4" in self.precision and not self.requantize

    def within(self, path: str) -> Options:
        """Those of a submodule, whose layers its plan names from there."""
        if self.plan is None:
            return self
        plan = self.plan.within(path)
        return dataclasses.replace(self, plan=plan, precision=plan.name)

    def refuse_unused(self, used: Collection[str], kind: str) -> None:
        """Raises OptionError for the first option that is given and not used.

        Args:
            used: names of those that count beside those of how numbers become narrow.
            kind: what does not use it, such as "a language model in int8".
        """
        counted = {*used, *narrow_options(self.precision), *_ALWAYS, "asked"}
        for field in dataclasses.fields(self):
            given, default = getattr(self, field.name), field.default
            if field.name not in counted and not _same(given, default):
                raise OptionError(field.name, given, f"{kind} does not use it; leave it out")


def _plan_of(given: Any, target: Target, asked: str) -> PrecisionPlan:
    """A plan, with the precision of layers that it does not name."""
    plan = PrecisionPlan.of(given)
    if plan.precision and asked != "auto":
        why = "the plan says it too; leave out one of them"
        raise OptionError("precision", asked, why)
    return plan.with_default(target.precision(plan.precision or asked))


def _same(given: Any, default: Any) -> bool:
    return type(given) is type(default) and bool(given == default)


def narrow_options(precision: str) -> set[str]:
    """Options that say how numbers become narrow, of those that a precision uses."""
    formats = formats_of(precision)
    of_int4 = {"group_size", "rounding"} if INT4_BLOCKS in formats else set()
    return of_int4 | ({"activation_bits"} if in_rows(precision) else set())


def in_rows(precision: str) -> bool:
    """Whether products of a precision take activations of 8 bits with a scale per row."""
    return any(format.rows == QUANTIZED for format in formats_of(precision))


def _check_values(options: Mapping[str, Any]) -> None:
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
    for name in ("strict", "check", "requantize", "faithful"):
        if not isinstance(options[name], bool):
            raise OptionError(name, options[name], "give True or False")
    check_group_size(options["group_size"])
    context = options["context"]
    if context is not None and (type(context) is not int or context < 1):
        raise OptionError("context", context, "give a number of positions, or None for all")
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


def call_of(
    inputs: Sequence[Any] | dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call, from inputs that are either."""
    return ((), inputs) if isinstance(inputs, dict) else (tuple(inputs), {})
