"""What an import makes of sizes, constants and functions, and what it refuses by name."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.errors import InputShapeError, OnnxModelError, OnnxNodesError
from graphopt.ir.interpret import check_sizes, run_graph
from graphopt.ir.verify import verify
from graphopt.onnx.files import Model, open_model
from graphopt.onnx.importer import Imported, compiled_graph, import_model
from graphopt.onnx.rules import RULES
from tests.onnx_models.made import imported, model

RNG = np.random.default_rng(0)


def ops(found: Imported) -> Counter[str]:
    return Counter(node.op.name for node in found.graph.nodes)


def test_arithmetic_on_shapes_leaves_nothing_behind() -> None:
    """The heads of attention, split as torch's exporter does it, for any batch and length."""
    found = imported(
        """m (float[B, T, 12] x) => (float[N, 4, M, 3] y) {
            s = Shape(x)
            zero = Constant<value = int64 {0}>()
            one = Constant<value = int64 {1}>()
            b = Gather(s, zero)
            t = Gather(s, one)
            axis = Constant<value = int64[1] {0}>()
            bu = Unsqueeze(b, axis)
            tu = Unsqueeze(t, axis)
            heads = Constant<value = int64[2] {4, 3}>()
            shape = Concat<axis = 0>(bu, tu, heads)
            split = Reshape(x, shape)
            y = Transpose<perm = [0, 2, 1, 3]>(split)
        }"""
    )
    assert ops(found) == {"go.reshape": 1, "go.permute": 1}
    x = RNG.standard_normal((2, 5, 12), np.float32)
    (y,) = run_graph(found.graph, [x])
    assert np.array_equal(y, x.reshape(2, 5, 4, 3).transpose(0, 2, 1, 3))


def test_a_branch_on_a_size_that_is_known_is_taken() -> None:
    body = """m (float[B, T, 3] x) => (float[B, T, 3] y) {
        s = Shape(x)
        two = Constant<value = int64 {2}>()
        width = Gather(s, two)
        three = Constant<value = int64 {3}>()
        same = Equal(width, three)
        y = If (same) <
            then_branch = a () => (float[B, T, 3] z) { z = Neg(x) },
            else_branch = b () => (float[B, T, 3] z) { z = Foo.bar(x) }
        >
    }"""
    found = imported(body)
    x = RNG.standard_normal((1, 2, 3), np.float32)
    assert np.array_equal(run_graph(found.graph, [x])[0], -x)


def test_sizes_that_must_be_equal_are_one() -> None:
    """Also to a number, in a chain, so that the graph is legal."""
    body = "m (float[B, D] x, float[C, E] y) => (float[B, D] z) { a = Add(x, y) z = Mul(a, w) }"
    found = imported(body, w=np.ones(3, np.float32))
    verify(found.graph, "import")
    assert not found.graph.conditions
    x = RNG.standard_normal((2, 3), np.float32)
    assert np.array_equal(run_graph(found.graph, [x, x])[0], x + x)
    for shapes in ([(2, 3), (4, 3)], [(2, 4), (2, 4)]):
        with pytest.raises(InputShapeError):
            check_sizes(found.graph, shapes)


def test_constants_are_computed_and_narrow_weights_unpacked() -> None:
    weight = np.array([[-8, 7], [3, -1]], np.int8)
    made = model(
        """m (float[B, 2] x) => (float[B, 2] y) {
            w = DequantizeLinear<axis = 1>(q, scale)
            y = MatMul(x, w)
        }""",
        21,
        scale=np.array([0.5, 2.0], np.float32),
    )
    packed = onnx.helper.make_tensor("q", onnx.TensorProto.INT4, (2, 2), weight.reshape(-1))
    made.graph.initializer.append(packed)
    found = compiled_graph(Model(made, "m"))
    assert ops(found) == {"go.linear": 1}
    x = RNG.standard_normal((3, 2), np.float32)
    assert np.allclose(run_graph(found.graph, [x])[0], x @ (weight * [0.5, 2.0]))


def test_functions_of_the_model_are_imported_in_place_of_their_calls() -> None:
    made = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
        m (float[B, 2] x) => (float[B, 2] y) { y = own.scaled<by = 3.0>(x) }
        <domain: "own", opset_import: ["" : 18]>
        scaled<by>(a) => (b) { f = Constant<value_float: float = @by>() b = Mul(a, f) }"""
    )
    found = compiled_graph(Model(made, "m"))
    x = RNG.standard_normal((2, 2), np.float32)
    assert np.array_equal(run_graph(found.graph, [x])[0], x * np.float32(3))


def test_all_that_cannot_be_compiled_is_listed_at_once() -> None:
    with pytest.raises(OnnxNodesError) as error:
        imported(
            """m (float[B, 4] x) => (float[B, 4] y) {
                a = NonZero(x)
                b = Matmul(x, x)
                y = Unique(x)
            }"""
        )
    assert [node for node, *_ in error.value.nodes] == ["a", "b", "y"]
    assert "MatMul is compiled" in str(error.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("m (float[2, 3] x) => (float[2, 4] y) { y = MatMul(x, x) }", "the sizes 3 and 2"),
        ("m (float[2] x) => (float[2] y) { z = Neg(y) y = Neg(z) }", "computed behind it"),
        ("m (float[2] x) => (float[2] y) { y = Neg(nothing) }", "nothing computes"),
        ("m (float[2] x) => (float[2] y) { y = Softmax<axis = 3>(x) }", "axis 3 of a tensor"),
        ("m (float[2] x, int64[2] i) => (float[2] y) { y = Add(x, i) }", "of f32 and i64"),
        ("m (float[5] x) => (float[2, 2] y) { s = Constant<value = int64[2] {2, 2}>() "
         "y = Reshape(x, s) }", "the sizes 5 and 4"),
        ("m (float[2] x) => (float[2] y) { }", "nothing computes its output"),
    ],
)  # fmt: skip
def test_contradictions_name_the_node(body: str, why: str) -> None:
    with pytest.raises(OnnxModelError, match=why):
        imported(body)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(OnnxModelError, match="No such file"):
        open_model(path)
    path.write_bytes(b"\x08\xff nothing of onnx")
    with pytest.raises(OnnxModelError, match="protobuf"):
        open_model(path)
    newer = model("m (float[2] x) => (float[2] y) { y = Neg(x) }", 99)
    with pytest.raises(OnnxModelError, match="opset 99"):
        open_model(newer)


@pytest.mark.parametrize("name", ["qq_" + letter for letter in "bmxwadycf"])
def test_names_that_are_no_text_are_refused(name: str, tmp_path: Path) -> None:
    """Of dims, graphs, inputs, constants, nodes' tensors and attributes, branches and functions."""
    held = model(
        """qq_m (float[qq_b, 4] qq_x, bool t) => (float[qq_b, 4] qq_y) {
            qq_d = Softmax <qq_a = 1> (qq_x)
            f = If (t) <then_branch = g () => (float[B, 4] qq_c) { qq_c = Neg(qq_d) },
                        else_branch = g () => (float[B, 4] h) { h = Exp(qq_d) }>
            qq_y = Add(f, qq_w)
        }""",
        qq_w=np.ones(4, np.float32),
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    held.functions.append(onnx.helper.make_function("qq_f", "g", [], [], [], opsets))
    content = held.SerializeToString()
    assert name.encode() in content
    (tmp_path / "m.onnx").write_bytes(content.replace(name.encode(), b"qq\xff\xfe"))
    with pytest.raises(OnnxModelError, match=r"qq.*is no UTF-8"):
        open_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"location": "../outside.bin"}, "outside of the model's folder"),
        ({"location": "missing.bin"}, "cannot be read"),
        ({"offset": "4096"}, "beyond the end"),
        ({"length": "3"}, "its shape asks for"),
        ({}, ""),
    ],
)
def test_external_data_is_mapped_from_the_models_folder(
    change: dict[str, str], why: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weight = RNG.standard_normal((4, 3), np.float32)
    (tmp_path / "outside.bin").write_bytes(weight.tobytes())
    (folder / "m.bin").write_bytes(weight.tobytes())
    made = model("m (float[B, 4] x) => (float[B, 3] y) { y = MatMul(x, w) }", w=weight)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "m.bin", **change}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    opened = open_model(folder / "m.onnx")
    if why:
        with pytest.raises(OnnxModelError, match=why):
            compiled_graph(opened)
        return
    x = RNG.standard_normal((2, 4), np.float32)
    assert np.allclose(run_graph(compiled_graph(opened).graph, [x])[0], x @ weight)


def test_what_a_node_was_given_and_nothing_read_is_refused() -> None:
    with pytest.raises(OnnxNodesError, match="attribute unheard_of"):
        imported("m (float[2] x) => (float[2] y) { y = Neg<unheard_of = 1>(x) }")


def test_every_op_of_the_table_is_one_of_the_standard() -> None:
    known = {(s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history()}
    others = {key for key in RULES if key[0] == "" and key not in known}
    assert others == {("", "SimplifiedLayerNormalization")}  # of onnxruntime, in ONNX's domain


def test_counts_say_what_a_model_has() -> None:
    made: Any = model("m (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) y = Exp(b) }")
    assert import_model(Model(made, "m")).counts == {"Neg": 2, "Exp": 1}
