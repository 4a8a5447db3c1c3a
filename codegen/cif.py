"""The step of continuous integrate-and-fire, which computes the number of tokens."""

from __future__ import annotations

from graphopt.codegen.function import Fields, FunctionBuilder
from graphopt.codegen.memory import Memory
from graphopt.codegen.scalar_c import literal
from graphopt.ir import DType, Node
from graphopt.ir.layout import layout_of
from graphopt.ir.ops import Cif


def emit_cif(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Calls the kernel, then checks the number of tokens against the room for them.

    Args:
        node: a `go.cif`; its computed dim has a bound.
        f: gets the parameters and the body.
        memory: where operands, results and scratch memory are.
    """
    op, hidden, alphas = node.as_op(Cif), node.operands["hidden"], node.operands["alphas"]
    tokens, peaks, counts = node.outputs
    bound = memory.graph.dims[op.dim].bound
    assert bound is not None
    f.frame()
    strides = {v: [f.size(s) for s in layout_of(v).strides[:2]] for v in (hidden, alphas)}
    fields: Fields = {
        "batch": f.size(hidden.shape[0]),
        "frames": f.size(hidden.shape[1]),
        "channels": f.size(hidden.shape[2]),
        "max_tokens": f.size(bound),
        "rule": f"GO_CIF_{op.rule.upper()}",
        "count": f"GO_CIF_COUNT_{op.count.upper()}",
        "threshold": literal(op.threshold, DType.F32),
        "hidden": f.pointer("hidden", DType.F32, memory.address(hidden)),
        "hidden_stride": f"{{{', '.join(strides[hidden])}}}",
        "alphas": f.pointer("alphas", DType.F32, memory.address(alphas)),
        "alphas_stride": f"{{{', '.join(strides[alphas])}}}",
        "dst": f.pointer("dst", DType.F32, memory.address(tokens), write=True),
        "peaks": f.pointer("peaks", DType.F32, memory.address(peaks), write=True),
        "counts": f.pointer("counts", DType.I32, memory.address(counts), write=True),
        "tokens": f.computed_dim(memory.graph.computed_dims().index(op.dim)),
        "scratch": f.pointer("scratch", None, memory.scratch(node), write=True),
    }
    f.call(node.kernel, "go_cif_args", fields)
    f.line("go_barrier(team);")
    text = "the weights of the frames must give a token for each of them at most"
    f.line(f'while (go_next(team, 1) < 1) go_check_dim(frame, computed, "{text}");')
