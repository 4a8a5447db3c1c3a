"""A profile as events: with the fields of onnxruntime's profiler, and for Perfetto."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from graphopt.compiler.profile import Profile, Run
from graphopt.inspection.profiling.limits import Limit

Event = dict[str, Any]

#: Of types, as onnxruntime calls them.
_TYPES = {
    "f32": "float", "f64": "double", "f16": "float16", "bf16": "bfloat16", "bool": "bool",
    "i8": "int8", "u8": "uint8", "i16": "int16", "i32": "int32", "i64": "int64",
}  # fmt: skip


def node_events(profile: Profile, limits: Sequence[Limit]) -> list[Event]:
    """One event for the run and one for each step, with the fields of onnxruntime's profiler.

    Args:
        profile: a profile.
        limits: of its steps.
    """
    pid = os.getpid()
    whole = {"cat": "Session", "pid": pid, "tid": pid, "ph": "X", "name": "model_run"}
    events: list[Event] = [{**whole, "ts": 0, "dur": _us(profile.whole), "args": {}}]
    at = 0.0
    for number, (row, limit) in enumerate(zip(profile, limits, strict=True)):
        event = {"cat": "Node", "pid": pid, "tid": pid, "ph": "X", "ts": _us(at)}
        name = f"{row['module'] or row['node']}_kernel_time"
        args = _arguments(number, row, profile.whole, limit)
        events.append({**event, "dur": _us(row["ms"]), "name": name, "args": args})
        at += row["ms"]
    return events


def _arguments(number: int, row: dict[str, Any], whole: float, limit: Limit) -> Event:
    """Fields of onnxruntime first, texts as there; then ours, numbers."""
    size = row["bytes"] - row["memory_bytes"]
    before = {"before_ms": row["before_ms"]} if "before_ms" in row else {}
    return {
        "op_name": row["op"],
        "provider": "graphopt",
        "node_index": str(number),
        "input_type_shape": [_typed(*one) for one in row["inputs"]],
        "output_type_shape": [_typed(*one) for one in row["outputs"]],
        "parameter_size": str(row["memory_bytes"]),
        "activation_size": str(size),
        "output_size": str(row.get("output_bytes", "")),
        "thread_scheduling_stats": {"threads": row["threads"], "busy": round(row["busy"], 3)},
        "node": row["node"],
        "kernel": row["kernel"],
        "module": row["module"],
        "fused_modules": row["fused"],
        "ms": row["ms"],
        **before,
        "share": row["ms"] / whole if whole else 0.0,
        "macs": row["macs"] or 0,
        "bytes": row["bytes"],
        "roof": limit.roof,
        "roof_share": limit.share,
        "limit": limit.text,
        "critical": row["critical"],
    }


def _typed(shape: Sequence[int], kind: str) -> dict[str, list[int]]:
    return {_TYPES.get(kind, kind): list(shape)}


def trace(profile: Profile) -> dict[str, Any]:
    """The fastest run for https://ui.perfetto.dev: a track of steps, and one for each thread."""
    events: list[Event] = [_named("process_name", 0, profile.name)]
    threads = range(profile.threads)
    events.append(_named("thread_name", 0, "steps"))
    events += [_named("thread_name", 1 + who, f"thread {who}") for who in threads]
    begun = 0.0
    for run in profile.runs:
        events += _spans(run, begun)
        begun += run.timed.profiled
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _spans(run: Run, begun: float) -> Iterator[Event]:
    for row, spans in zip(run.rows, run.timed.spans, strict=True):
        if not spans:
            continue
        name = f"{row['op'].removeprefix('go.')} {row['module']}".strip()
        args = {key: row[key] for key in ("node", "kernel", "macs", "bytes", "busy")}
        first = min(at for _, at, _ in spans)
        last = max(at + length for _, at, length in spans)
        yield {**_complete(0, begun + first, last - first), "name": name, "args": args}
        for who, at, length in spans:
            yield {**_complete(1 + who, begun + at, length), "name": name, "args": {}}


def _complete(tid: int, at: float, length: float) -> Event:
    return {"ph": "X", "cat": "step", "pid": 0, "tid": tid, "ts": _us(at), "dur": _us(length)}


def _named(kind: str, tid: int, name: str) -> Event:
    return {"ph": "M", "pid": 0, "tid": tid, "name": kind, "args": {"name": name}}


def _us(ms: float) -> float:
    """Microseconds, in whole nanoseconds."""
    return round(ms * 1e3, 3)
