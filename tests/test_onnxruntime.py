"""Compiled modules in onnxruntime: the op graphopt::Run in every version, and files with it."""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt import errors

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import models  # noqa: E402
from captured import Function  # noqa: E402

from graphopt.compiler import onnx_export  # noqa: E402
from graphopt.hosts.onnxruntime import PlainFormWarning  # noqa: E402

SCRIPT = Path(__file__).parent / "support" / "onnxruntime_session.py"
VERSIONS = ("1.17.3", "1.20.1", "1.23.2")
ARCH = platform.machine()


@pytest.fixture(scope="module")
def model() -> Any:
    return models.network()


@pytest.fixture(scope="module")
def fast(model: Any) -> Any:
    return graphopt.optimize(model, precision="int8", example_inputs=(torch.randn(2, 5, 48),))


@pytest.fixture(scope="module")
def written(fast: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx with its plain form, and what it gives for x."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    fast.to_onnx(folder / "net.onnx", plain=True)
    x = torch.randn(2, 7, 48)
    np.save(folder / "x.npy", x.numpy())
    np.save(folder / "y.npy", fast(x).numpy())
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    shutil.copytree(written, tmp_path / "net")
    return tmp_path / "net"


def package_of(folder: Path) -> Path:
    (package,) = (path for path in (folder / "net.graphopt").iterdir() if path.is_dir())
    return package


def opened(folder: Path) -> Any:
    path = folder / "net.onnx"
    return ort.InferenceSession(str(path), graphopt.ort_session_options(path, quiet()))


def quiet() -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options


@pytest.mark.parametrize("version", [*VERSIONS, ort.__version__])
def test_one_file_in_every_version(version: str, written: Path) -> None:
    place = Path(sys.prefix) / f"onnxruntime-{version}"
    environment = dict(os.environ)
    if version != ort.__version__:
        if not place.is_dir():
            pytest.skip(f"onnxruntime {version} is not installed: make onnxruntimes")
        environment["PYTHONPATH"] = str(place)
    done = subprocess.run(
        [sys.executable, SCRIPT, written],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "Got: 47 Expected: 48" in seen.pop("refused")
    assert seen.pop("plain") < 0.05  # f32 beside int8
    assert seen == {
        "version": version,
        "native": True,
        "threads": [True, True],
        "unoptimized": True,
        "unaligned": True,
        "longer": True,
        "at_once": 80,
        "shape": ["B", "T", 24],
        "type": "tensor(float)",
        "still": True,
        "plain_is_native": False,
    }


def test_options_of_the_users_own(written: Path) -> None:
    options = quiet()
    assert graphopt.ort_session_options(written / "net.onnx", options) is options
    with pytest.raises(errors.OptionError, match="options=7: give onnxruntime"):
        graphopt.ort_session_options(written / "net.onnx", 7)
    with pytest.raises(
        errors.PackageError, match=r"onnxruntime-.*\.so is missing; copy the folder"
    ):
        graphopt.ort_session_options(written / "other.onnx")
    with pytest.raises(errors.PackageError, match="is no path"):
        graphopt.ort_library(3)  # type: ignore[arg-type]


def test_without_a_path_packages_are_found_below_the_working_directory(
    written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(written)
    net = ort.InferenceSession("net.onnx", graphopt.ort_session_options())
    assert np.array_equal(net.run(None, {"input": np.load("x.npy")})[0], np.load("y.npy"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        Exception, match=r"package [0-9a-f]{32} is missing: it is not in .*, net\.gr"
    ):
        ort.InferenceSession(str(written / "net.onnx"), graphopt.ort_session_options(None, quiet()))


def test_packages_for_several_targets_lie_beside_one_file(copied: Path) -> None:
    other = "aarch64" if ARCH == "x86_64" else "x86_64"
    package = package_of(copied)
    arm = package.with_name(package.name.replace(ARCH, other))
    shutil.copytree(package, arm)
    x, y = np.load(copied / "x.npy"), np.load(copied / "y.npy")
    assert np.array_equal(opened(copied).run(None, {"input": x})[0], y)
    shutil.rmtree(package)
    with pytest.raises(Exception, match=f"is built for {other}-native, this CPU is {ARCH}"):
        opened(copied)


def test_a_file_for_another_cpu_alone(tmp_path: Path) -> None:
    if ARCH != "x86_64":
        pytest.skip("there is no named target of another architecture")
    built = graphopt.optimize(
        torch.nn.ReLU().eval(), target="neoverse-n1", example_inputs=(torch.randn(2, 3),)
    )
    built.to_onnx(tmp_path / "net.onnx", plain=False)
    assert [p.name for p in (tmp_path / "net.graphopt").glob("*.so")] == ["onnxruntime-aarch64.so"]
    with pytest.raises(errors.PackageError, match=f"onnxruntime-{ARCH}.so is missing"):
        graphopt.ort_session_options(tmp_path / "net.onnx")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def missing_features(package: Path) -> None:
    (package / "lib" / "levels").write_text("best no_such_feature\n")
    seal(package)


def seal(package: Path) -> None:
    from graphopt.runtime.sealed import seal as write_sums

    write_sums(package)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: shutil.rmtree(p), "is missing: it is not in .*net.graphopt; name the folder"),
        (lambda p: damage(p / "weights.bin"), r"weights\.bin is truncated or altered"),
        (lambda p: (p / "weights.bin").write_bytes(b""), r"weights\.bin is truncated or altered"),
        (lambda p: (p / "weights.bin").unlink(), r"weights\.bin: No such file"),
        (lambda p: [damage(f) for f in p.glob("lib/*.so")], r"\.so is truncated or altered"),
        (lambda p: (p / "SHA256SUMS").unlink(), "SHA256SUMS: No such file"),
        (lambda p: (p / "SHA256SUMS").write_text("nonsense\n"), "levels is not listed in SHA256"),
        (missing_features, "this CPU .* runs none of the levels of .*; make the package for it"),
        (
            lambda p: [f.write_bytes(b"\x7fELF") for f in p.glob("lib/*.so")] + [seal(p)],
            r"\.so does not load: ",
        ),
        (
            lambda p: (p / "weights.bin").write_bytes(b"short") and seal(p),
            r"weights\.bin is not of the right size",
        ),
        (
            lambda p: (p / "weights.bin").rename(p / "w") and (p / "weights.bin").symlink_to("w"),
            r"weights\.bin: Too many levels of symbolic links",
        ),
    ],
)
def test_a_package_that_is_not_as_it_was(
    copied: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(package_of(copied))
    with pytest.raises(Exception, match=f"graphopt::Run: .*{message}"):
        opened(copied)


def test_large_weights_are_watched(tmp_path: Path) -> None:
    model = torch.nn.Linear(3000, 3000).eval()  # more than what is copied
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(torch.randn(2, 3000),))
    fast.to_onnx(tmp_path / "net.onnx", plain=False)
    net, x = opened(tmp_path), torch.randn(2, 3000)
    assert np.array_equal(net.run(None, {"input": x.numpy()})[0], fast(x).numpy())
    weights = package_of(tmp_path) / "weights.bin"
    os.utime(weights, ns=(1, 1))
    with pytest.raises(Exception, match="was changed in place while it is open"):
        net.run(None, {"input": x.numpy()})


def made(folder: Path, inputs: list[Any] | None = None, **changed: Any) -> Any:
    """A session of the file with another node."""
    net = onnx.load(folder / "net.onnx")
    (node,) = net.graph.node
    kept = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} | changed
    given = net.graph.input if inputs is None else inputs
    outputs = changed.pop("outputs", ["y"])
    kept = {k: v for k, v in kept.items() if k != "outputs" and v is not None}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Run", [i.name for i in given], outputs, domain="graphopt", **kept)],
        "net",
        given,
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in outputs
        ],
    )
    made = onnx.helper.make_model(graph, opset_imports=net.opset_import, ir_version=8)
    options = graphopt.ort_session_options(folder / "net.onnx", quiet())
    return ort.InferenceSession(made.SerializeToString(), options)


def port(name: str, dtype: int = 1, shape: Any = None) -> Any:
    return onnx.helper.make_tensor_value_info(name, dtype, shape)


GOOD = "f32[B,T,48] input -> f32[B,T,24] output0"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"signature": None}, "the attribute signature is '', and none"),
        ({"signature": ""}, "signature is"),
        ({"signature": "f32[B"}, "signature is"),
        ({"signature": "-> -> f32[B] y"}, "signature is"),
        ({"signature": "q7[B] input -> f32[B] y"}, "signature is"),
        ({"signature": f"f32[{','.join('abcdefghi')}] input -> f32[B] y"}, "signature is"),
        ({"signature": "f32[" + "B" * 99 + "] input -> f32[B] y"}, "signature is"),
        ({"signature": "i64[B,T,48] input -> f32[B,T,24] y"}, "input of package .* is f32 of 3"),
        ({"signature": "f32[B,T,48] input -> f32[B,T] y"}, "y of package .* is f32 of 3 dim"),
        (
            {"signature": "f32[B] input, f32[B] b -> f32[B] y"},
            "has 1 inputs and 1 outputs, its sig",
        ),
        ({"outputs": ["y", "z"]}, "1 inputs and 2 outputs, its signature says 1 and 1"),
        (
            {"outputs": ["y", "z"], "signature": "f32[B,T,48] x -> f32[B,T,24] y, f32[] z"},
            "takes 1 tensors and makes 1, the node's signature says 1 and 2",
        ),
        ({"package": None}, "package '' with entry '' names no folder"),
        ({"package": "../net"}, "is neither a name nor a full path"),
        ({"package": "/nowhere"}, "/nowhere/SHA256SUMS: No such file"),
        ({"package": "0" * 32}, "package 0{32} is missing"),
        ({"entry": "../other"}, "with entry '../other' names no folder"),
        ({"entry": "e" * 300}, "names no folder"),
        ({"entry": "inner"}, "inner/lib/levels is not listed"),
        ({"interface": 1000}, "has interface 7, and 1000 is needed; make it again"),
    ],
)
def test_a_node_that_makes_no_sense(written: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        made(written, **changed)


def test_inputs_that_do_not_fit_are_named(written: Path) -> None:
    x = np.load(written / "x.npy")
    untyped = made(written, [port("input", shape=None)])
    for given, message in {
        (2, 48): r"input 0 \(input\) has 2 dimensions, compiled for f32\[B,T,48\]",
        (2, 7, 47): "has size 47 along axis 2, not 48; input 0 is input",
        (0, 7, 48): "has size 0 along axis 0; input 0 is input",
        (): r"input 0 \(input\) has 0 dimensions",
    }.items():
        with pytest.raises(Exception, match=message):
            untyped.run(None, {"input": np.zeros(given, np.float32)})
    assert np.array_equal(untyped.run(None, {"input": x})[0], np.load(written / "y.npy"))
    for dtype, name in (
        (np.float64, "f64"),
        (np.int8, "i8"),
        (np.uint16, "an element type of its"),
    ):
        net = made(written, [port("input", onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))])
        with pytest.raises(Exception, match=f"has dtype {name}.*, compiled for f32"):
            net.run(None, {"input": x.astype(dtype)})
    net = made(written, [port("input", onnx.TensorProto.STRING)])
    with pytest.raises(Exception, match="has dtype an element type of its own, compiled for f32"):
        net.run(None, {"input": np.full(x.shape, "x")})


def test_several_dtypes(
    tmp_path: Path,
) -> None:
    def several(x: Any, n: Any, flag: Any) -> Any:
        halves = x.reshape(x.shape[0], -1, 2)
        return halves.sum(-1), n + 1, (x > 0) & flag, x.transpose(1, 2).to(torch.float64)

    given = torch.randn(2, 5, 4), torch.arange(3), torch.tensor(True)
    fast = graphopt.optimize(Function(several), precision="fp32", example_inputs=given, strict=True)
    fast.to_onnx(tmp_path / "net.onnx", plain=False)
    net = opened(tmp_path)
    names = [i.name for i in net.get_inputs()]
    given = torch.randn(3, 4, 4), torch.arange(5), torch.tensor(True)
    results = net.run(None, dict(zip(names, (t.numpy() for t in given), strict=True)))
    for got, expected in zip(results, fast(*given), strict=True):
        assert got.dtype == expected.numpy().dtype and np.array_equal(got, expected.numpy())
    shapes = [(o.type, o.shape) for o in net.get_outputs()]
    assert shapes[1][0] == "tensor(int64)" and shapes[2] == (
        "tensor(bool)",
        net.get_inputs()[0].shape,
    )


def test_what_stays_in_torch_is_plain_onnx_between_nodes(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Determinants(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(16, 16)

        def forward(self, x: Any) -> Any:
            y = self.linear(x)
            found = torch.linalg.det(y[:, :2, :2])
            return {"all": y.relu() + found[:, None, None], "found": found, "half": y[:, ::2].exp()}

    fast = graphopt.optimize(
        Determinants().eval(), precision="int8", example_inputs=(torch.randn(2, 7, 16),)
    )
    with pytest.warns(PlainFormWarning, match=r"torch runs aten\.linalg_det"):
        fast.to_onnx(tmp_path / "net.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert nodes == ["Run", "Det", "Run"]
    net = opened(tmp_path)
    assert net.get_outputs()[0].shape == ["B", "T", 16]
    for shape in ((3, 9, 16), (1, 2, 16)):
        x = torch.randn(shape)
        wanted, results = fast(x), net.run(None, {"x": x.numpy()})
        assert np.array_equal(results[2], wanted["half"].numpy())
        # onnxruntime and LAPACK round a determinant in their own ways
        assert np.allclose(results[0], wanted["all"].numpy(), atol=1e-5)


def test_torch_exports_an_optimized_module_with_the_same_node(fast: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    free, path = torch.export.Dim.AUTO, tmp_path / "net.onnx"
    open_sizes = {"input": {0: free, 1: free}}
    given = (torch.randn(2, 5, 48),)
    torch.onnx.export(fast, given, path, dynamic_shapes=open_sizes, dynamo=True, verbose=False)
    (node,) = onnx.load(path).graph.node
    assert node.op_type == "Run" and list(node.input) == ["input"]
    net = ort.InferenceSession(str(path), graphopt.ort_session_options())
    x = torch.randn(3, 9, 48)
    assert np.array_equal(net.run(None, {"input": x.numpy()})[0], fast(x).numpy())


def test_sizes_that_a_run_decides(tmp_path: Path) -> None:
    from graphopt.funasr.layers.cif import cif

    def fire(x: Any, alphas: Any) -> Any:
        tokens, _, counts = cif(x, alphas, 1.0, "integrate", "floor")
        return tokens * 2, counts

    given = torch.randn(2, 9, 8), torch.rand(2, 9)
    fast = graphopt.optimize(Function(fire), precision="fp32", example_inputs=given, strict=True)
    fast.to_onnx(tmp_path / "net.onnx", plain=False)
    net = opened(tmp_path)
    names = [i.name for i in net.get_inputs()]
    for length in (9, 30, 1):
        given = torch.randn(2, length, 8), torch.rand(2, length)
        results = net.run(None, dict(zip(names, (t.numpy() for t in given), strict=True)))
        for got, expected in zip(results, fast(*given), strict=True):
            assert got.shape == tuple(expected.shape) and np.array_equal(got, expected.numpy())


STORM = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
register = library.RegisterCustomOps
register.restype = ctypes.c_void_p
statuses, op = [], []
def said(code, text):
    statuses.append(text.decode())
    return 16
def added(domain, pointer):
    op.append(pointer)
    return None
WORD = ctypes.c_void_p
create = ctypes.CFUNCTYPE(WORD, ctypes.c_int, ctypes.c_char_p)(said)
add = ctypes.CFUNCTYPE(WORD, WORD, WORD)(added)
fails = ctypes.CFUNCTYPE(WORD, *[WORD] * 6)(lambda *a: 16)
works = ctypes.CFUNCTYPE(WORD, *[WORD] * 6)(lambda *a: None)
address = lambda f: ctypes.cast(f, WORD).value
def table(rest):
    slots = (WORD * 300)(*[address(rest)] * 300)
    slots[0], slots[27], slots[93], slots[99] = map(address, (create, add, works, works))
    return slots
broken, working = table(fails), table(works)
def base(of):
    get = ctypes.CFUNCTYPE(WORD, ctypes.c_uint32)(of)
    name = ctypes.CFUNCTYPE(ctypes.c_char_p)(lambda: b"1.16.0")
    return (WORD * 2)(address(get), address(name)), get, name
bases = {
    "old": base(lambda v: ctypes.addressof(broken) if v == 1 else None),
    "none": base(lambda v: None),
    "broken": base(lambda v: ctypes.addressof(broken)),
    "working": base(lambda v: ctypes.addressof(working)),
}
assert register(None, None) is None
for name, (pointer, *_) in bases.items():
    for options in (None, pointer):
        register(options, pointer)
assert any("1.16.0 is too old" in text for text in statuses), statuses
assert any("no session options" in text for text in statuses), statuses
members = ctypes.cast(op[0], ctypes.POINTER(WORD))
kernel = (WORD * 4)()
for i in range(1, 22):
    if members[i] is None:
        continue
    call = ctypes.CFUNCTYPE(WORD, *[WORD] * 4)(members[i])
    for given in ((None,) * 4, (op[0], None, None, None), (op[0], None, None, kernel),
                  (op[0], pointer, None, kernel), (None, pointer, None, kernel)):
        if i not in (9, 18):  # a kernel is what the op made, or null
            call(*given)
    call(None, None, None, None)
made = (WORD * 1)(1)
create_kernel = ctypes.CFUNCTYPE(WORD, *[WORD] * 4)(members[17])
assert create_kernel(op[0], None, None, made) and not made[0]
print("done", len(statuses))
"""


def test_null_pointers_crash_nothing(written: Path) -> None:
    library = graphopt.ort_library(written / "net.onnx")
    done = subprocess.run(
        [sys.executable, "-c", STORM, library], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith("done"), (done.returncode, done.stderr)


def test_what_to_onnx_refuses(model: Any, fast: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(errors.PackageError, match="0 specializations were captured"):
        graphopt.optimize(model).to_onnx(path)
    partly = graphopt.optimize(models.Partly().eval(), example_inputs=(torch.randn(2, 7, 16),))
    with pytest.raises(
        errors.OnnxPartsError, match=r"torch runs aten.special_i0e of it, and .*prim"
    ):
        partly.to_onnx(path, plain=False)
    with pytest.raises(errors.OnnxExportError, match="what is compiled around it has none"):
        partly.to_onnx(path, plain=True)
    (tmp_path / "net.graphopt").write_text("in the way")
    with pytest.raises(errors.GraphoptError, match=r"net\.graphopt"):
        fast.to_onnx(path, plain=False)
    with pytest.raises(errors.PackageError, match="is no path"):
        fast.to_onnx(None, plain=False)
    assert not path.exists()


def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 4).eval()
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(torch.randn(2, 4),))
    with torch.no_grad():
        model.weight.mul_(2)
    with pytest.raises(errors.PackageError, match="weights of Linear are others than those that"):
        fast.to_onnx(tmp_path / "net.onnx")


def test_a_model_without_a_plain_form_says_so(
    fast: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")

    def export(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no rule for aten.odd\nlines of torch")

    monkeypatch.setattr(torch.onnx, "export", export)
    path = tmp_path / "net.onnx"
    reason = r"has no plain form in ONNX: torch does not export it \(no rule for aten.odd\); write"
    with pytest.raises(errors.OnnxExportError, match=reason):
        fast.to_onnx(path, plain=True)
    assert not path.exists()
    with pytest.warns(PlainFormWarning, match=reason):
        fast.to_onnx(path)
    assert not onnx.load(path).functions
    x = torch.randn(1, 3, 48)
    assert np.array_equal(opened(tmp_path).run(None, {"input": x.numpy()})[0], fast(x).numpy())
    monkeypatch.setattr(onnx_export, "MOST_BYTES", 100)
    with pytest.raises(errors.OnnxExportError, match="bytes, too many for one ONNX file"):
        fast.to_onnx(path, plain=True)
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(errors.MissingDependencyError, match=r"graphopt\[onnx\]"):
            fast.to_onnx(path, plain=True)


def test_the_library_is_a_small_one_of_its_own() -> None:
    library = ctypes.CDLL(graphopt.ort_library())
    assert library.RegisterCustomOps and not hasattr(library, "go_open")
