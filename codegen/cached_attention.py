"""Steps that write and read a cache of keys and values, a state of the graph.

The cache is [layers, 2 (keys, values), sequences, rows, kv heads, head size]; the scales of one in
int8, a second state, are [layers, 2, sequences, kv heads, rows].
"""

from __future__ import annotations

from graphopt.codegen.function import Fields, FunctionBuilder
from graphopt.codegen.kernel_calls import Emit
from graphopt.codegen.memory import Memory
from graphopt.codegen.scalar_c import literal
from graphopt.ir import DType, Node, Shape, Value
from graphopt.ir.layout import layout_of
from graphopt.ir.op import Op
from graphopt.ir.ops import CachedAttention, Rope
from graphopt.ir.symbolic import simplify


def _token_strides(f: FunctionBuilder, value: Value) -> str:
    """Strides of the axes batch, time, head of a value [batch, time, head, dim]."""
    return "{" + ", ".join(f.size(s) for s in layout_of(value).strides[:3]) + "}"


def _cache_strides(cache: Value) -> Shape:
    """Strides of the axes sequence, row, head."""
    return layout_of(cache).strides[2:5]


def _parts(
    node: Node, role: str, names: tuple[str, str], f: FunctionBuilder, memory: Memory, write: bool
) -> tuple[str, str]:
    """Pointers to what a state holds of the layer's keys and of its values."""
    assert isinstance(node.op, Rope | CachedAttention)
    state = node.operands[role]
    layer, part = layout_of(state).strides[:2]
    pointers = []
    for number, name in enumerate(names):
        first = simplify(node.op.layer * layer + number * part)
        kind = None if write and role == "cache" else state.dtype
        pointers.append(f.pointer(name, kind, memory.element(state, first), write))
    return pointers[0], pointers[1]


def _scale_strides(scales: Value, f: FunctionBuilder) -> str:
    """Strides of the axes sequence, head."""
    sequence, head = (f.size(s) for s in layout_of(scales).strides[2:4])
    return f"{{{sequence}, {head}}}"


def _refuse_overflow(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Leaves the function if a sequence does not fit the cache; all threads see the same."""
    cache, x = node.operands["cache"], node.operands["q"]
    f.frame()
    for role in ("past", "start"):
        f.pointer(role, DType.I64, memory.address(node.operands[role]))
    batch, tokens = f.size(x.shape[0]), f.size(x.shape[1])
    rows = f.size(cache.shape[3])
    f.line(f"if (!go_fits_cache(frame, past, start, {batch}, {tokens}, {rows})) return;")


def _rope(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    q, k, v = (node.operands[role] for role in ("q", "k", "v"))
    cache, out = node.operands["cache"], node.output
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
        fields[role] = f.pointer(role, DType.F32, memory.address(node.operands[role]))
    fields["dst"] = f.pointer("dst", None, memory.address(out), write=True)
    fields["dst_stride"] = _token_strides(f, out)
    fields["dst_dtype"] = f"GO_{out.dtype.name}"
    names = ("keys", "values")
    fields["keys"], fields["values"] = _parts(node, "cache", names, f, memory, write=True)
    strides = ", ".join(f.size(s) for s in _cache_strides(cache))
    fields["cache_stride"] = f"{{{strides}}}"
    scales = node.operands.get("scales")
    if scales is not None:
        names = ("key_scales", "value_scales")
        fields |= zip(names, _parts(node, "scales", names, f, memory, write=True), strict=True)
        fields["scale_stride"] = _scale_strides(scales, f)
    f.call(node.kernel, "go_rope_args", fields)


def _cached_attention(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """As many sequences in a call as share the scratch memory of one that fills the cache."""
    q, out, cache = node.operands["q"], node.output, node.operands["cache"]
    _refuse_overflow(node, f, memory)
    sequence, row, head = (f.size(s) for s in _cache_strides(cache))
    q_pointer = f.pointer("q", q.dtype, memory.address(q))
    dst = f.pointer("dst", out.dtype, memory.address(out), write=True)
    keys, values = _parts(node, "cache", ("keys", "values"), f, memory, write=False)
    q_sequence, dst_sequence = (f.size(layout_of(v).strides[0]) for v in (q, out))
    dim = f.size(q.shape[3])
    batch, tokens, rows = (f.size(s) for s in (*q.shape[:2], cache.shape[3]))
    fields: Fields = {
        "batch": f"(size_t)go_smaller(together, {batch} - b)",
        "heads": f.size(q.shape[2]),
        "kv_heads": f.size(cache.shape[4]),
        "tq": tokens,
        "tk": "(size_t)longest",
        "dim": dim,
        "dim_v": dim,
        "scale": literal(node.as_op(CachedAttention).scale, DType.F32),
        "causal": "GO_CAUSAL_LAST",
        "unseen_zero": "1",
        "dtype": f"GO_{q.dtype.name}",
        "q": f"{q_pointer} + b * {q_sequence}",
        "k": f"{keys} + b * {sequence}",
        "v": f"{values} + b * {sequence}",
        "past": "past + b",
        "start": "start + b",
        "q_stride": _token_strides(f, q),
        "k_stride": f"{{{sequence}, {row}, {head}}}",
        "v_stride": f"{{{sequence}, {row}, {head}}}",
        "dst": f"{dst} + b * {dst_sequence}",
        "dst_stride": _token_strides(f, out),
        "dst_dtype": f"GO_{out.dtype.name}",
        "scratch": f.pointer("scratch", None, memory.scratch(node), write=True),
    }
    scales = node.operands.get("scales")
    if scales is not None:
        names = ("k_scale", "v_scale")
        step = f.size(layout_of(scales).strides[2])
        for name in _parts(node, "scales", names, f, memory, write=False):
            fields[name] = f"{name} + b * {step}"
        fields["scale_stride"] = _scale_strides(scales, f)
    f.line(f"const int64_t longest = go_most_keys(past, start, {batch}, {tokens});")
    f.line(f"const int64_t together = go_sequences_together({rows}, longest);")
    f.line(f"for (int64_t b = 0; b < {batch}; b += together) {{")
    f.call(node.kernel, "go_attention_args", fields)
    f.line("go_barrier(team);")
    f.line("}")


CACHE_CALLS: dict[type[Op], Emit] = {Rope: _rope, CachedAttention: _cached_attention}
