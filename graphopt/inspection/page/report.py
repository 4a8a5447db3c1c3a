"""Gathers all that is known of a compiled model, and writes it as one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphopt._version import VERSION
from graphopt.compiler.inspected import Inspected
from graphopt.compiler.options import call_of
from graphopt.compiler.program import Program
from graphopt.compiler.stages import Stages
from graphopt.inspection.models import Planned
from graphopt.inspection.page.accuracy import Errors, errors_of
from graphopt.inspection.page.code import assembly_of, code_of
from graphopt.inspection.page.columns import Columns
from graphopt.inspection.page.facts import byte_text, fact, time_text
from graphopt.inspection.page.html import write_html
from graphopt.inspection.page.measures import (
    are_of,
    call_times,
    example_sizes,
    fastest,
    roofs_of,
    speed_up,
    timeline_of,
    times_of,
    work_of,
)
from graphopt.inspection.page.memory import memory_of
from graphopt.output_files import check_file
from graphopt.printable import printable
from graphopt.progress import announce

Inputs = tuple[Any, ...] | dict[str, Any] | None


def write_page(module: Inspected, path: Path, inputs: Inputs, measure: bool, errors: bool) -> Path:
    """Writes the page of a compiled model; see `Inspected.inspect`."""
    check_file(path)
    return write_html(path, page_data(module, inputs, measure, errors))


def page_data(module: Inspected, inputs: Inputs, measure: bool, errors: bool) -> dict[str, Any]:
    """What the page shows, as `page/src/data.ts` describes it; see `Inspected.inspect`."""
    announce("page: stages")
    captured = [stages for stages in module.stages() if len(stages)]
    programs = module.programs()
    report, missing, call = module.report(), dict[str, str](), _call(module, inputs)
    found: Errors | None = None
    if not errors:
        missing["accuracy"] = "not measured; --errors (errors=True) runs every graph in numpy"
    elif call is None:
        missing["accuracy"] = "there are no example inputs to run with; give inputs="
    elif len(captured) != 1 or len(captured[0].parts) != 1 or report.in_torch:
        missing["accuracy"] = "measured only where one graph holds the whole model"
    else:
        args, kwargs = call
        arrays = module.stored_inputs(*args, **kwargs)
        found = errors_of(Planned(report.name, module.options, captured[0], arrays, module, call))
    columns = Columns(captured, found.stages if found else {})
    keys = columns.planned(programs)
    tables = columns.as_dict()
    announce("page: code and memory")
    assembly, why = assembly_of(programs)
    if why:
        missing["assembly"] = why
    memories = [memory_of(p, k, example_sizes(p)) for p, k in zip(programs, keys, strict=True)]
    values = work_of(programs, keys)
    facts = [_nodes_fact(captured, programs), *_size_facts(programs, memories)]
    critical: list[int] = []
    accuracy = timeline = roofs = None
    if found is not None:
        values["error"], accuracy = found.by_key(columns)
        facts.insert(0, found.fact)
    if not measure:
        missing["time"] = "measuring was turned off"
    elif call is None:
        missing["time"] = "there are no example inputs to measure with; give inputs="
    elif not module.options.target.is_host:
        missing["time"] = f"code for {module.options.target.name} does not run on this machine"
    else:
        announce("page: times")
        args, kwargs = call
        rows = module.profile(*args, **kwargs)
        if are_of(rows, programs):
            values["time"], critical = times_of(rows, programs, keys)
            timeline, roofs = timeline_of(rows, programs, keys), roofs_of(rows)
        else:
            missing["time of steps"] = "the model calls its compiled parts from Python"
        facts = [*_time_facts(module, args, kwargs), *facts]
    if "time" in missing:
        facts.insert(0, fact("Speed-up", "", missing["time"]))
    if roofs is None:
        missing["roofs"] = "The roofs are not drawn: they were not measured."
        missing["timeline"] = missing.get("time") or missing["time of steps"]
    return {
        "model": {
            "name": report.name,
            "target": report.target,
            "precision": report.precision,
            "levels": list(report.levels),
            "version": VERSION,
            "checks": [printable(check) for check in report.checks],
        },
        "facts": facts,
        "missing": missing,
        **tables,
        "values": {name: values[name] for name in sorted(values, key=_ORDER.index)},
        "critical": critical,
        **code_of(programs, keys),
        "assembly": assembly,
        "accuracy": accuracy,
        "roofs": roofs,
        "timeline": timeline,
        "memory": max(memories, key=lambda memory: int(memory["arena"]), default=None),
    }


_ORDER = ("time", "macs", "bytes", "error")


def _call(module: Inspected, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments of a call."""
    given = module.options.example_inputs if inputs is None else inputs
    if given is None:
        return None
    return call_of(given)


def _time_facts(
    module: Inspected, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[dict[str, str]]:
    """Time of a call, against the model itself where that can be called."""
    original = module.original

    def compiled() -> Any:
        return module(*args, **kwargs)  # type: ignore[operator]

    if original is None:
        turns = call_times(compiled)
        (ms,) = fastest(turns)
        return [fact("Time of a call", time_text(ms), f"fastest of {len(turns)}")]
    import torch

    def plain() -> Any:
        with torch.inference_mode():
            return original(*args, **kwargs)

    turns = call_times(compiled, plain)
    ms, slow = fastest(turns)
    figure, spread = speed_up(turns)
    eager = f"over torch in eager mode, {torch.get_num_threads()} threads, {time_text(slow)}"
    return [
        fact("Speed-up", figure, f"{eager}; {spread}"),
        fact("Time of a call", time_text(ms), f"fastest of {len(turns)}, in turn with torch"),
    ]


def _nodes_fact(captured: Sequence[Stages], programs: Sequence[Program]) -> dict[str, str]:
    before = sum(len(next(iter(stages)).nodes) for stages in captured)
    after = sum(len(program.graph.nodes) for program in programs)
    steps = sum(len(program.module.steps) for program in programs)
    return fact("Nodes", f"{after}", f"of {before} captured; {steps} of them run code")


def _size_facts(
    programs: Sequence[Program], memories: Sequence[dict[str, Any]]
) -> list[dict[str, str]]:
    weights = sum(program.module.memory.weights.bytes for program in programs)
    arena = max((memory["arena"] for memory in memories), default=0)
    kernels = Counter(
        node.kernel for program in programs for node in program.graph.nodes if node.kernel
    )
    counts = len([kernel for kernel in kernels if kernel not in ("view", "loop")])
    return [
        fact("Weights", byte_text(weights), "packed, as they are mapped"),
        fact("Memory of a call", byte_text(arena), "between steps, at the example sizes"),
        fact("Kernels", f"{counts}", "different ones, beside generated loops"),
    ]
