"""Multiply-adds and bytes of nodes, against counts by hand."""

from typing import Any

import numpy as np
import pytest
from decoders import SHAPE, tiny_decoder

from graphopt.codegen.weights import WeightsFile
from graphopt.compiler.options import Options
from graphopt.ir import DType, Node, Value, constant
from graphopt.ir.cost import Call, memory_bytes, moved_bytes
from graphopt.ir.ops import Attention, Linear
from graphopt.ir.symbolic import symbol
from graphopt.kernels.formats import INT4_BLOCKS, INT8
from graphopt.llm.compiled import compile_decoder
from graphopt.target import find_target

PAST, START, TOKENS, ROWS = 5, 2, 3, 16


def work(precision: str, group: int = 32, bits: int = 8) -> dict[tuple[str, str], dict[str, Any]]:
    """Steps of one layer by module and op: 3 tokens behind 5, of which 2 are padding."""
    options = Options(
        find_target("neoverse-n2"), precision, 1, group_size=group or None, activation_bits=bits
    )
    program, engine = compile_decoder(tiny_decoder(layers=1), options)
    shape = (1, 2, 1, ROWS, SHAPE.kv_heads, SHAPE.head_dim)
    cache = np.zeros(shape, engine.cache_shape.dtype.numpy)
    tokens = np.zeros((1, TOKENS), np.int64)
    numbers = [np.array([n]) for n in (PAST, START, TOKENS - 1)]
    steps = program.work([tokens, *numbers, cache])
    return {(step["module"], step["op"]): step for step in steps}


@pytest.mark.parametrize(
    ("precision", "group", "column"),
    [
        ("int4", 32, 32 + 2 * 2 + 4),  # nibbles, two scales, the shift
        ("int4", 0, 32 + 16),  # nibbles, scale and sums as Arm's panels have them
        ("int8", 32, 64 + 16),
        ("bf16", 32, 64 * 2),
        ("fp32", 32, 64 * 4),
    ],
)
def test_weights_of_a_product(precision: str, group: int, column: int) -> None:
    step = work(precision, group)["layers.0.attention.qkv", "go.linear"]
    assert step["macs"] == TOKENS * 128 * 64
    assert step["memory_bytes"] == 128 * column
    row = {"int4": 64 + 16, "int8": 64 + 16, "bf16": 128, "fp32": 256}[precision]
    assert step["bytes"] == 128 * column + TOKENS * (row + 128 * 4)


def test_the_head_multiplies_what_the_embedding_looks_up() -> None:
    steps = work("int4")
    head = steps["head", "go.linear"]
    assert (head["macs"], head["memory_bytes"]) == (101 * 64, 104 * (64 + 16))  # whole panels
    embedding = steps["embedding", "go.gather"]
    assert embedding["memory_bytes"] == TOKENS * 64
    assert embedding["bytes"] == TOKENS * (64 + 8 + 64 * 4)


@pytest.mark.parametrize(("precision", "width"), [("int4", 2), ("fp32", 4)])
def test_attention_over_a_cache(precision: str, width: int) -> None:
    """The last token sees 6 keys, those before it fewer; the rest of the cache is not touched."""
    steps = work(precision)
    attention = steps["layers.0.attention", "go.cached_attention"]
    assert attention["keys"] == 6
    assert attention["macs"] == (4 + 5 + 6) * 4 * 2 * 16
    keys = 6 * 2 * (2 * 16) * width
    assert attention["memory_bytes"] == keys
    assert attention["bytes"] == keys + TOKENS * 64 * (width + 4) + 2 * 8  # the result is f32
    rope = steps["layers.0.attention", "go.rope"]
    assert (rope["macs"], rope["memory_bytes"]) == (0, 0)
    read = TOKENS * (64 + 2 * 32 + 2 * 8) * 4 + 2 * 8
    assert rope["bytes"] == read + TOKENS * (64 + 2 * 32) * width


def test_attention_counts_what_the_causal_rule_lets_queries_see() -> None:
    time = symbol("T")
    q, k = (Value(DType.F32, (2, heads, time, 8)) for heads in (4, 2))
    v = Value(DType.F32, (2, 2, time, 8))
    call = Call({time: 5}, "aarch64")
    node = Node.of(Attention(1.0), q, k, v)
    assert node.op.macs(node, call) == 2 * 4 * 25 * 16
    node.op.causal = True
    assert node.op.macs(node, call) == 2 * 4 * 15 * 16
    assert memory_bytes(node, call) == 0
    assert moved_bytes(node, call) == 2 * 5 * 8 * 4 * (4 + 2 + 2 + 4)


def test_scales_that_come_with_weights_count_once() -> None:
    x = Value(DType.F32, (1, 64), packed="qa8r")
    weight = constant(np.zeros((32, 64), np.int8))
    scale = Value(DType.BF16, (32, 2), data=np.zeros((32, 2), np.uint16))
    node = Node.of(Linear(format=INT4_BLOCKS, group=32), x, weight, scale)
    assert memory_bytes(node, Call({}, "aarch64")) == 32 * (32 + 2 * 2 + 4)


@pytest.mark.parametrize(
    "arch, size",
    [
        ("aarch64", 1_081_344),
        ("x86_64", 1_064_960),
    ],
)
def test_packed_weights_are_those_of_the_file(arch: str, size: int) -> None:
    x = Value(DType.F32, (1, 512), packed="qa8r")
    weight, scale = constant(np.zeros((2048, 512), np.int8)), constant(np.ones(2048, np.float32))
    node = Node.of(Linear(format=INT8), x, weight, scale)
    assert memory_bytes(node, Call({}, arch)) == size
    file = WeightsFile(arch)
    file.gemm(weight, INT8, scale=scale)
    assert file.bytes == size
