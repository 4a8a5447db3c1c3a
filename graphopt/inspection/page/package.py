"""The page of a package: what it holds, without the model that it was made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.inspection.page.columns import Columns
from graphopt.inspection.page.facts import byte_text, fact, time_text
from graphopt.inspection.page.html import write_html
from graphopt.inspection.page.measures import call_times, fastest, values_of
from graphopt.runtime.loaded import LoadedModule, open_module
from graphopt.runtime.package import WEIGHTS, Manifest, open_package
from graphopt.runtime.sealed import SealedFolder

Array = np.ndarray[Any, Any]

#: Names of the stages that a package has, by the file of each.
_STAGES = {
    "passes/1_captured.txt": "captured",
    "passes/2_lowered.txt": "lowered",
    "passes/3_planned.txt": "planned",
}
_FUNCTION = r"^static [\w ]+?\**(\w+)\([^;{]*\) \{\n.*?^\}$"
_MISSING = {
    "passes": "a package holds three graphs; inspect the model itself",
    "macs": "a package does not say how much each step works; inspect the model itself",
    "assembly": "a package holds no symbols; inspect the model itself",
    "memory": "a package holds no plan of the memory; inspect the model itself",
    "timeline": "a profile records the time of each step, not what each thread did",
    "accuracy": "a package holds no other numbers to compare with",
}


def write_package_page(folder: Path, path: Path, inputs: Sequence[Array] | None) -> Path:
    """Writes the page of a package.

    Args:
        folder: the package.
        path: of the HTML file, which is replaced.
        inputs: arguments of calls that are timed; None for no times.

    Raises:
        PackageError: if it is none, or one of another kind.
        InputError: if the inputs do not fit.
        StorageError: if the file cannot be written.
    """
    package = open_package(folder)
    return write_html(path, package_data(package, open_module(package, None), inputs))


def package_data(
    package: SealedFolder, module: LoadedModule, inputs: Sequence[Array] | None
) -> dict[str, Any]:
    """What the page shows of a package; see `write_package_page`."""
    manifest, missing = module.manifest, dict(_MISSING)
    columns = Columns()
    for file, name in _STAGES.items():
        if file in package:
            columns.add_text(name, manifest.name, package.text(file))
    keys = [columns.key(f"planned/{step.node.split(', ')[0]}") for step in manifest.steps]
    facts = [
        fact(
            "Weights",
            byte_text((package.path / WEIGHTS).stat().st_size),
            "packed, as they are mapped",
        ),
        fact("Steps", f"{len(manifest.steps)}", f"on {', '.join(manifest.levels)}"),
        fact("Libraries", f"{len(manifest.levels)}", f"for {manifest.arch}"),
    ]
    values, critical = {}, list[int]()
    if inputs is None:
        missing["time"] = "there are no inputs to measure with; give --input"
        facts.insert(0, fact("Time of a call", "", missing["time"]))
    else:
        rows = module.profile(*inputs)
        times = {key: row["ms"] for key, row in zip(keys, rows, strict=True)}
        values["time"] = values_of("Time", "ms", times)
        turns = call_times(lambda: module(*inputs))
        (ms,) = fastest(turns)
        facts.insert(0, fact("Time of a call", time_text(ms), f"fastest of {len(turns)}"))
    return {
        "model": {
            "name": manifest.name,
            "target": manifest.target,
            "precision": manifest.precision,
            "levels": list(manifest.levels),
            "version": manifest.version,
            "checks": [],
        },
        "facts": facts,
        "missing": missing,
        **columns.as_dict(),
        "values": values,
        "critical": critical,
        **_code(package.text("module.c"), manifest, keys),
        "assembly": {},
        "memory": None,
    }


def _code(source: str, manifest: Manifest, keys: Sequence[int]) -> dict[str, Any]:
    """Steps and functions as they stand in the C of a package."""
    texts = {
        found[1]: found[0] for found in re.finditer(_FUNCTION, source, re.MULTILINE | re.DOTALL)
    }
    calls = re.findall(r"^    (\w+)\((.*)\);\n    go_step\(", source, re.MULTILINE)
    functions: dict[str, int] = {}
    steps = []
    for key, (name, arguments) in zip(keys, calls, strict=False):
        number = functions.setdefault(texts.get(name, ""), len(functions))
        steps.append((key, number, f"{name}({arguments});"))
    return {"steps": steps, "functions": list(functions)}
