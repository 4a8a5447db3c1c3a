"""Steps that write and read a cache of keys and values, a state of the graph.

The cache is [layers, 2 (keys, values), sequences, rows, kv heads, head size].
"""

from __future__ import annotations

from graphopt.codegen.function import Fields, FunctionBuilder
from graphopt.codegen.kernel_calls import Emit
from graphopt.codegen.memory import Memory
from graphopt.codegen.scalar_c import literal
from graphopt.ir import DType, Node, Shape, Value
from graphopt.layout import layout_of
from graphopt.symbolic import simplify


def _operand(node: Node, role: str) -> Value:
    value = node.operand(role)
    assert value is not None, f"{node.op} has an operand {role}"
    return value


def _token_strides(f: FunctionBuilder, value: Value) -> str:
    """Strides of the axes batch, time, head of a value [batch, time, head, dim]."""
    return "{" + ", ".join(f.size(s) for s in layout_of(value).strides[:3]) + "}"


def _cache_strides(cache: Value) -> Shape:
    """Strides of the axes sequence, row, head."""
    return layout_of(cache).strides[2:5]


def _cache_pointers(node: Node, f: FunctionBuilder, memory: Memory, write: bool) -> tuple[str, str]:
    """The layer's keys and values."""
    cache = _operand(node, "cache")
    layer, part = layout_of(cache).strides[:2]
    names = []
    for number, name in enumerate(("keys", "values")):
        first = simplify(node.attrs["layer"] * layer + number * part)
        kind = None if write else cache.dtype
        names.append(f.pointer(name, kind, memory.element(cache, first), write))
    return names[0], names[1]


def _refuse_overflow(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Leaves the function if a sequence does not fit the cache; all threads see the same."""
    cache, x = _operand(node, "cache"), node.inputs[0]
    f.frame()
    for role in ("past", "start"):
        f.pointer(role, DType.I64, memory.address(_operand(node, role)))
    batch, tokens = f.size(x.shape[0]), f.size(x.shape[1])
    rows = f.size(cache.shape[3])
    f.line(f"if (!go_fits_cache(frame, past, start, {batch}, {tokens}, {rows})) return;")


def _rope(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    q, k, v = (_operand(node, role) for role in ("q", "k", "v"))
    cache, out = _operand(node, "cache"), node.output
    _refuse_overflow(node, f, memory)
    fields: Fields = {
        "batch": f.size(q.shape[0]),
        "time": f.size(q.shape[1]),
        "heads": f.size(q.shape[2]),
        "kv_heads": f.size(k.shape[2]),
        "dim": f.size(q.shape[3]),
        "position": "past",
    }
    for name, value in (("q", q), ("k", k), ("v", v)):
        fields[name] = f.pointer(name, DType.F32, memory.address(value))
        fields[f"{name}_stride"] = _token_strides(f, value)
    for role in ("cos", "sin"):
        fields[role] = f.pointer(role, DType.F32, memory.address(_operand(node, role)))
    fields["dst"] = f.pointer("dst", None, memory.address(out), write=True)
    fields["dst_stride"] = _token_strides(f, out)
    fields["dst_dtype"] = f"GO_{out.dtype.name}"
    fields["keys"], fields["values"] = _cache_pointers(node, f, memory, write=True)
    strides = ", ".join(f.size(s) for s in _cache_strides(cache))
    fields["cache_stride"] = f"{{{strides}}}"
    f.call(node.attrs["kernel"], "go_rope_args", fields)


def _cached_attention(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """One call per sequence: each has its own number of keys."""
    q, out, cache = node.inputs[0], node.output, _operand(node, "cache")
    _refuse_overflow(node, f, memory)
    sequence, row, head = (f.size(s) for s in _cache_strides(cache))
    q_pointer = f.pointer("q", q.dtype, memory.address(q))
    dst = f.pointer("dst", out.dtype, memory.address(out), write=True)
    keys, values = _cache_pointers(node, f, memory, write=False)
    q_sequence, dst_sequence = (f.size(layout_of(v).strides[0]) for v in (q, out))
    dim = f.size(q.shape[3])
    batch, tokens = f.size(q.shape[0]), f.size(q.shape[1])
    kept = f"b * {sequence} + start[b] * {row}"
    fields: Fields = {
        "batch": "1",
        "heads": f.size(q.shape[2]),
        "kv_heads": f.size(cache.shape[4]),
        "tq": tokens,
        "tk": f"(size_t)(past[b] + {tokens} - start[b])",
        "dim": dim,
        "dim_v": dim,
        "scale": literal(node.attrs["scale"], DType.F32),
        "causal": "1",
        "dtype": f"GO_{q.dtype.name}",
        "q": f"{q_pointer} + b * {q_sequence}",
        "k": f"{keys} + {kept}",
        "v": f"{values} + {kept}",
        "q_stride": _token_strides(f, q),
        "k_stride": f"{{{sequence}, {row}, {head}}}",
        "v_stride": f"{{{sequence}, {row}, {head}}}",
        "dst": f"{dst} + b * {dst_sequence}",
        "dst_stride": _token_strides(f, out),
        "dst_dtype": f"GO_{out.dtype.name}",
        "scratch": f.pointer("scratch", None, memory.scratch(node), write=True),
    }
    f.line(f"for (int64_t b = 0; b < {batch}; b++) {{")
    f.call(node.attrs["kernel"], "go_attention_args", fields)
    f.line("go_barrier(team);")
    f.line("}")


CACHE_CALLS: dict[str, Emit] = {"go.rope": _rope, "go.cached_attention": _cached_attention}
