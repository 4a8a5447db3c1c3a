"""Which layer computes in which precision, as a file that a person can edit.

    precision = "int8"              # of layers that are not named; without it, the option's

    [layers]
    "encoder.0.feed_forward" = "bf16"   # and all that is below it
    "encoder.0.feed_forward.w_2" = "fp32"

Layers are named by their path in the user's model; the longest name that fits decides. A precision
for the whole model is the plan that names no layer.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.errors import PlanError
from graphopt.kernels.formats import INT4_BLOCKS, INT8, Format, formats_of
from graphopt.target import PRECISIONS

if TYPE_CHECKING:
    from graphopt.compiler.report import NodeReport

_PARENT = re.compile(r"[./]?[^./]*$")
_KEYS = ("precision", "layers")


@dataclass(frozen=True)
class PrecisionPlan:
    """A precision for each layer.

    Attributes:
        precision: of layers that are not named; `auto`, or none, for that of the option.
        layers: precisions by the path of a layer, or of a module with layers below it.

    Raises:
        PlanError: for a precision that there is not.
    """

    precision: str = ""
    layers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in ("", "auto", *PRECISIONS):
            raise PlanError("precision", self.precision, f"give one of {_known()}")
        for name, precision in self.layers.items():
            if precision not in PRECISIONS:
                raise PlanError(name, precision, f"give one of {_known()}")

    @staticmethod
    def of(given: PrecisionPlan | Mapping[str, Any] | str | Path) -> PrecisionPlan:
        """A plan from a file, or from what a file may hold.

        Raises:
            PlanError: for what is no plan.
        """
        match given:
            case PrecisionPlan():
                return given
            case str() | Path():
                return PrecisionPlan._read(Path(given))
            case Mapping():
                return PrecisionPlan._parse(given)
        how = "give the path of a file, a PrecisionPlan, or a dict with precision and layers"
        raise PlanError("", type(given).__name__, how)

    @staticmethod
    def _read(path: Path) -> PrecisionPlan:
        try:
            return PrecisionPlan._parse(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            why = error.strerror if isinstance(error, OSError) else error
            raise PlanError("", str(path), f"{why}; a plan is a TOML file") from error

    @staticmethod
    def _parse(given: Mapping[str, Any]) -> PrecisionPlan:
        for key in given:
            if key not in _KEYS:
                raise PlanError(str(key), given[key], f"a plan has {' and '.join(_KEYS)} alone")
        precision, layers = given.get("precision", ""), given.get("layers", {})
        if not isinstance(precision, str):
            raise PlanError("precision", precision, f"give one of {_known()}")
        if not isinstance(layers, Mapping):
            raise PlanError("layers", layers, "give a table of layers with their precisions")
        return PrecisionPlan(precision, dict(_flat("", layers)))

    def text(self, title: str = "", notes: Mapping[str, str] = {}) -> str:
        """The file.

        Args:
            title: a comment above it.
            notes: comments behind layers, by name.
        """
        lines = [f"# {line}".rstrip() for line in title.splitlines()]
        lines += [f'precision = "{self.precision}"'] if self.precision else []
        lines += ["", "[layers]"] if self.layers else []
        for name, precision in self.layers.items():
            note = f"  # {notes[name]}" if name in notes else ""
            lines.append(f'{_quoted(name)} = "{precision}"{note}')
        return "\n".join(lines) + "\n"

    def with_default(self, precision: str) -> PrecisionPlan:
        """The same, with the precision of what is not named."""
        return replace(self, precision=precision)

    def within(self, path: str) -> PrecisionPlan:
        """The plan of a submodule, whose layers are named from there."""
        below = {n[len(path) + 1 :]: p for n, p in self.layers.items() if n.startswith(f"{path}.")}
        return PrecisionPlan(self.precision_of(path), below)

    @property
    def name(self) -> str:
        """All precisions that it has, as reports show them: `fp32,int8`."""
        used = {self.precision, *self.layers.values()}
        return ",".join(precision for precision in PRECISIONS if precision in used)

    @property
    def formats(self) -> tuple[Format, ...]:
        """Formats that products may get."""
        return formats_of(self.name)

    def entry(self, module: str) -> str:
        """The name in the plan that decides about a layer; empty if none does."""
        while module and module not in self.layers:
            module = _PARENT.sub("", module)
        return module

    def precision_of(self, module: str) -> str:
        """The precision of a layer."""
        return self.layers.get(self.entry(module), self.precision)

    def gives(self, module: str, format: Format) -> bool:
        """Whether a layer's products may get a format; those in int4 that cannot, get int8."""
        formats = formats_of(self.precision_of(module))
        return format in formats or (format is INT8 and INT4_BLOCKS in formats)

    def packs_rows(self, module: str) -> bool:
        """Whether a layer's products read rows that are packed."""
        return any(format.rows for format in formats_of(self.precision_of(module)))

    def check_names(self, modules: Iterable[str]) -> None:
        """Raises PlanError for a name that is none of these modules, nor above one."""
        known = dict.fromkeys(above for module in modules for above in _above(module))
        for name, precision in self.layers.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3) or list(known)[:3]
                hint = f"near it are {', '.join(near)}" if near else "no layer of it has a name"
                raise PlanError(name, precision, f"the model has no such module; {hint}")

    def check(self, rows: Iterable[NodeReport]) -> None:
        """Looks whether every entry decided something.

        Args:
            rows: of the whole report.

        Raises:
            PlanError: for a name that no layer has, or a precision that no product below it got,
                with the reasons.
        """
        if not self.layers:
            return
        given: dict[str, list[NodeReport]] = {name: [] for name in self.layers}
        rows = list(rows)
        self.check_names(row.module for row in rows)
        for row in rows:
            if row.precision and (name := self.entry(row.module)):
                given[name].append(row)
        for name, products in given.items():
            wanted = self.layers[name]
            if not products:
                why = "no product of weights is there that other entries leave to it"
                raise PlanError(name, wanted, f"{why}; leave it out")
            if not any(row.precision in _names(wanted) for row in products):
                row = products[0]
                told = [why for why in row.reasons if not why.startswith("select_kernels")]
                why = "; ".join(told) or f"its kernel {row.kernel} has no other precision"
                raise PlanError(name, wanted, f"it computes in {row.precision}: {why}; change it")


def _names(precision: str) -> set[str]:
    return {format.name for format in formats_of(precision)}


def _above(module: str) -> Iterator[str]:
    while module:
        yield module
        module = _PARENT.sub("", module)


def _flat(path: str, layers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names that are written without quotes are tables in tables."""
    for name, precision in layers.items():
        whole = f"{path}.{name}" if path else str(name)
        if isinstance(precision, Mapping):
            yield from _flat(whole, precision)
        elif isinstance(precision, str):
            yield whole, precision
        else:
            raise PlanError(whole, precision, f"give one of {_known()}")


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _known() -> str:
    return ", ".join(PRECISIONS)
