"""Packages: saved here, run from numpy or torch, without torch or compiler, replaced, refused."""

import json
import os
import pickle
import subprocess
import sys
from copy import copy as shallow_copy
from copy import deepcopy
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import graphopt
from graphopt import errors
from graphopt.kernels import registry
from graphopt.runtime import sealed
from graphopt.runtime.package import Port
from graphopt.runtime.sealed import seal

torch = pytest.importorskip("torch")

import models  # noqa: E402


@pytest.fixture(scope="module")
def model() -> Any:
    return models.network()


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "net.gopt"
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(torch.randn(2, 5, 48),))
    fast.save(path)
    return path


def save(model: Any, inputs: Any, path: Path, **options: Any) -> Path:
    graphopt.optimize(model, precision="fp32", example_inputs=inputs, **options).save(path)
    return path


def numpy_tree(tree: Any) -> Any:
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.numpy(), tree)


def assert_same(got: Any, expected: Any) -> None:
    """The same nesting, types and constants, and values within f32 rounding."""
    found, spec = torch.utils._pytree.tree_flatten(got)
    wanted, expected_spec = torch.utils._pytree.tree_flatten(expected)
    assert spec == expected_spec
    for one, two in zip(found, wanted, strict=True):
        assert type(one) is type(two)
        if isinstance(one, np.ndarray | torch.Tensor):
            assert one.dtype == two.dtype
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
        else:
            assert one == two


def test_numpy_in_numpy_out_and_torch_in_torch_out(saved: Path, model: Any) -> None:
    loaded = graphopt.load(saved)
    for shape in ((2, 5, 48), (1, 1, 48), (3, 19, 48)):
        x = torch.randn(shape)
        with torch.inference_mode():
            expected = model(x)
        assert_same(loaded(x), expected)
        assert_same(loaded(x.numpy()), expected.numpy())


def test_copies_share_a_module_that_cannot_be_pickled(saved: Path) -> None:
    loaded = graphopt.load(saved)
    assert deepcopy({"held": loaded})["held"] is loaded and shallow_copy(loaded) is loaded
    with pytest.raises(errors.PackageError, match="holds machine code"):
        pickle.dumps(loaded)


def test_equal_to_the_bit_with_the_module_it_was_saved_from(model: Any, tmp_path: Path) -> None:
    x = torch.randn(2, 7, 48)
    fast = graphopt.optimize(model, precision="int8", example_inputs=(x,))
    fast.save(tmp_path / "a.gopt")
    with pytest.raises(errors.ThreadCountError):
        graphopt.load(tmp_path / "a.gopt", num_threads=0)
    for threads in (1, 3):
        assert torch.equal(graphopt.load(tmp_path / "a.gopt", num_threads=threads)(x), fast(x))


def test_nested_arguments_constants_and_keywords(tmp_path: Path) -> None:
    model = models.Nested().eval()
    pair, bias = models.nested_arguments()
    example = {"pair": pair, "bias": bias, "scale": 2.0}
    loaded = graphopt.load(save(model, example, tmp_path / "n.gopt"))
    pair, bias = models.nested_arguments(batch=3)
    with torch.inference_mode():
        expected = model(pair, bias, scale=2.0)
    assert_same(loaded(pair, bias, scale=2.0), expected)
    assert_same(loaded(bias=bias, scale=2.0, pair=pair), expected)
    assert_same(loaded(numpy_tree(pair), bias=bias.numpy(), scale=2.0), numpy_tree(expected))
    for wrong in (
        lambda: loaded(pair, bias),
        lambda: loaded(pair, bias, scale=3.0),
        lambda: loaded(pair, bias, scale=bias),
        lambda: loaded(pair, scale=2.0),
        lambda: loaded(pair, None, scale=2.0),
        lambda: loaded(pair[0], bias, scale=2.0),
        lambda: loaded((pair[0], {"add": bias}), bias, scale=2.0),
        lambda: loaded(pair, bias, 2.0),
        lambda: loaded(pair, bias, scale=2.0, more=1),
        lambda: loaded((pair[0].tolist(), pair[1]), bias, scale=2.0),
        lambda: loaded(),
    ):
        with pytest.raises(errors.InputCountError, match="as the original model is called"):
            wrong()


@pytest.mark.parametrize("convert", [lambda t: t, numpy_tree], ids=["torch", "numpy"])
def test_a_cache_dict_is_updated_in_place(tmp_path: Path, convert: Any) -> None:
    model = models.Caching().eval()
    x = torch.randn(1, 4, 8)
    loaded = graphopt.load(save(model, (x, models.empty_cache()), tmp_path / "c.gopt"))
    theirs, ours = models.empty_cache(), convert(models.empty_cache())
    kept, seen = ours["kept"], ours["seen"]
    for length in (4, 1, 9):
        x = torch.randn(1, length, 8)
        with torch.inference_mode():
            expected = model(x, theirs)
        assert_same(loaded(convert(x), ours), convert(expected))
        assert_same(ours, convert(theirs))
        del theirs["input"], ours["input"]
    assert ours["kept"] is kept and ours["seen"] is seen


def test_bfloat16_and_integers(tmp_path: Path) -> None:
    model = models.Lookup().eval()
    tokens = torch.tensor([[1, 2, 9]])
    loaded = graphopt.load(save(model, (tokens,), tmp_path / "l.gopt"))
    with torch.inference_mode():
        assert_same(loaded(tokens.numpy()), model(tokens).numpy())
    with pytest.raises(errors.InputValueError, match="10"):
        loaded(np.array([[1, 10]]))
    assert_same(loaded(tokens), model(tokens).detach())  # an error leaves it usable


BLOCK = """
import importlib, pkgutil, sys
ALLOWED = {"graphopt", "numpy", *sys.stdlib_module_names}
class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""
LOADER = """
import numpy as np, graphopt, graphopt.runtime
for module in pkgutil.walk_packages(graphopt.runtime.__path__, "graphopt.runtime."):
    importlib.import_module(module.name)
x = np.load(sys.argv[2])
np.save(sys.argv[3], graphopt.load(sys.argv[1])(x))
for name in ("optimize", "capture"):
    try:
        getattr(graphopt, name)
    except ImportError as error:
        assert "pip install 'graphopt[torch]'" in str(error), error
    else:
        raise AssertionError(f"{name} without torch")
"""
#: The command line. Each line of `HINTS`: an extra and a command that needs it.
COMMANDS = """
from graphopt import cli
from graphopt.errors import MissingDependencyError
package, x, out, hints = sys.argv[1:]
def call(*words):
    cli.app(words, standalone_mode=False)
for words in (["--help"], ["compile", "--help"], ["bench", "llm", "--help"], ["targets"]):
    call(*words)
call("run", package, "--input", x, "--output", out, "--profile")
for line in hints.splitlines():
    extra, *words = line.split()
    try:
        call(*words)
    except MissingDependencyError as error:
        assert f"pip install 'graphopt[{extra}]'" in str(error), (words, error)
    else:
        raise AssertionError(f"{words} without {extra}")
"""
HINTS = """\
torch optimize fsmn-vad --out {0}/o.gopt
torch balance fsmn-vad
sign keygen {0}/key
sign sign {1} --key {0}/key
llm compile llm {0}/none.gguf --out {0}/o.gopt
funasr compile funasr {0} --out {0}/o.gopt
torch bench paraformer --rounds 1"""


def run_alone(code: str, *words: str, path: str) -> None:
    """Runs a program that imports what `BLOCK` allows."""
    environment = {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BLOCK + code, *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def brought_by(*distributions: str) -> set[str]:
    """The modules of distributions and of what they require."""
    found, todo = set(), list(distributions)
    while todo:
        if (name := canonicalize_name(todo.pop())) not in found:
            found.add(name)
            needed = map(Requirement, requires(name) or ())
            todo += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    homes = packages_distributions()
    return {m for m, owners in homes.items() if found & set(map(canonicalize_name, owners))}


def test_command_line_of_the_smallest_install(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 6, 48), np.float32))
    places = [str(saved), *(str(tmp_path / name) for name in ("x.npy", "y.npz"))]
    allowed = f"ALLOWED |= {brought_by('typer', 'rich')}\n"
    run_alone(allowed + COMMANDS, *places, HINTS.format(tmp_path, saved), path=str(tmp_path))
    assert np.load(tmp_path / "y.npz")["0"].shape[:2] == (2, 6)


def test_loader_needs_numpy_alone(saved: Path, model: Any, tmp_path: Path) -> None:
    x = torch.randn(2, 6, 48)
    np.save(tmp_path / "x.npy", x.numpy())
    places = [str(saved), *(str(tmp_path / n) for n in ("x.npy", "y"))]
    run_alone(LOADER, *places, path=str(tmp_path))
    with torch.inference_mode():
        assert_same(np.load(tmp_path / "y.npy"), model(x).numpy())


def test_files_are_what_the_documentation_says(saved: Path) -> None:
    names = {str(p.relative_to(saved)) for p in saved.rglob("*") if p.is_file()}
    levels = {f"lib/{level.name}.so" for level in registry.host_levels()}
    passes = {f"passes/{n}.txt" for n in ("1_captured", "2_lowered", "3_planned")}
    fixed = {"lib/levels", "manifest.json", "SHA256SUMS", "module.c", "weights.bin"}
    assert names == levels | passes | fixed
    check = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    assert subprocess.run(check, cwd=saved, capture_output=True, check=False).returncode == 0
    assert len((saved / "SHA256SUMS").read_text().splitlines()) == 2 * (len(names) - 1)
    assert saved.stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_replaced_package_is_another_module(model: Any, tmp_path: Path) -> None:
    path, x = tmp_path / "a.gopt", torch.randn(1, 4, 48)
    first = graphopt.load(save(model, (x,), path))
    before = first(x)
    other = torch.nn.Sequential(model, torch.nn.Linear(24, 5)).eval()
    second = graphopt.load(save(other, (x,), path))
    with torch.inference_mode():
        assert_same(second(x), other(x))
    assert torch.equal(first(x), before)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gopt"]


@pytest.mark.parametrize("mapped", [False, True], ids=["copied", "mapped"])
def test_a_package_overwritten_in_place_is_noticed_or_does_not_matter(
    mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `cp -r new/. old/`, while the old one is open."""
    x = torch.randn(1, 512)
    old, new = (torch.nn.Linear(512, 512).eval() for _ in range(2))
    path, other = save(old, (x,), tmp_path / "old"), save(new, (x,), tmp_path / "new")
    if mapped:  # the weights, which take 1 MiB, more than any other file
        monkeypatch.setattr(sealed, "COPIED_BYTES", (path / "weights.bin").stat().st_size - 1)
        os.utime(path / "weights.bin", (1, 1))
    first = graphopt.load(path)
    assert_same(first(x), old(x).detach())
    subprocess.run(["cp", "-r", f"{other}/.", path], check=True)
    assert_same(graphopt.load(path)(x), new(x).detach())
    if not mapped:
        assert_same(first(x), old(x).detach())
        return
    with pytest.raises(errors.PackageChangedError, match=r"changed in place.*load it again"):
        first(x)


def test_nothing_else_is_overwritten(model: Any, tmp_path: Path) -> None:
    x = (torch.randn(1, 4, 48),)
    folder, file, site = tmp_path / "folder", tmp_path / "file", tmp_path / "site"
    folder.mkdir()
    file.write_text("mine")
    site.mkdir()
    (site / "manifest.json").write_text("{}")
    for taken in (folder, file, site):
        with pytest.raises(errors.PackageError, match="is no package; remove it or choose"):
            save(model, x, taken)
    for place in (file / "below", Path("/proc/a.gopt"), tmp_path / ("x" * 300)):
        with pytest.raises(errors.PackageError, match="cannot write"):
            save(model, x, place)
    with pytest.raises(errors.PackageError, match="is no path"):
        save(model, x, "a\0b")  # type: ignore[arg-type]
    assert file.read_text() == "mine" and (site / "manifest.json").read_text() == "{}"


def test_saving_needs_one_captured_form_and_every_node(model: Any, tmp_path: Path) -> None:
    with pytest.raises(errors.PackageError, match="example_inputs="):
        graphopt.optimize(model).save(tmp_path / "a.gopt")
    with pytest.raises(errors.UnsupportedNodesError, match="i0e"):
        save(models.Partly().eval(), (torch.randn(2, 3, 16),), tmp_path / "a.gopt")
    assert not list(tmp_path.iterdir())


def test_another_cpu(
    saved: Path, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(1, 4, 48)
    loaded = graphopt.load(save(model, (x,), tmp_path / "a.gopt", target="neoverse-n2"))
    if os.uname().machine != "aarch64":
        with pytest.raises(errors.PackageTargetError, match=r"neoverse-n2 \(aarch64.*--emulate"):
            loaded(x)
    monkeypatch.setattr(registry, "host_levels", tuple)  # a CPU older than every level
    with pytest.raises(errors.PackageTargetError, match="optimize the model for this machine"):
        graphopt.load(saved)(x)


def edit(path: Path, **fields: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.update(fields)
    manifest = {key: value for key, value in manifest.items() if value is not ...}
    (path / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = {
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "no graphopt package"),
    "no weights": (lambda p: (p / "weights.bin").unlink(), "weights.bin is missing"),
    "cut weights": (lambda p: os.truncate(p / "weights.bin", 64), "weights.bin is truncated"),
    "altered C": (lambda p: (p / "module.c").write_text("int x;"), "module.c is truncated or alt"),
    "altered manifest": (lambda p: edit(p, name="x"), "manifest.json is truncated or altered"),
    "more": (lambda p: (p / "lib" / "extra.so").write_text(""), "lib/extra.so is not listed"),
}


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", saved, tmp_path / "copy.gopt"], check=True)
    return tmp_path / "copy.gopt"


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(copy: Path, damage: Any, message: str) -> None:
    damage(copy)
    with pytest.raises(errors.PackageError, match=message) as caught:
        graphopt.load(copy)
    assert str(copy) in str(caught.value)


PORT = {"name": "x", "dtype": "f32", "shape": []}
STEP = {"node": "%0", "op": "go.linear", "kernel": "", "module": ""}
NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "missing field": ({"inputs": ...}, "field inputs is missing"),
    "extra field": ({"colour": "red"}, "no field 'colour'"),
    "newer format": ({"format": 2, "colour": "red"}, "has format 2.*upgrade graphopt"),
    "no format": ({"format": None}, "has format None"),
    "format of a kind": ({"format": True}, "has format True"),
    "dtype": ({"inputs": [{**PORT, "dtype": "f8"}]}, r"inputs\[0\].dtype: 'f8' is none of f32"),
    "rank": ({"inputs": [{**PORT, "shape": [1] * 9}]}, r"inputs\[0\].shape: its length 9"),
    "extent": ({"outputs": [{**PORT, "shape": [2**70]}]}, r"outputs\[0\].shape\[0\]: 118059"),
    "state": ({"inputs": [{**PORT, "is_state": 1}]}, "is_state: 1 is not true or false"),
    "inputs": ({"inputs": []}, "no template"),
    "outputs": ({"outputs": []}, "no template"),
    "more outputs": ({"outputs": [PORT] * 2}, "other outputs than the"),
    "levels": ({"levels": ["avx99"]}, "lib/avx99.so is missing"),
    "level outside": ({"levels": ["../../lib"]}, "is missing"),
    "no levels": ({"levels": []}, "levels: its length 0"),
    "a level twice": ({"levels": ["scalar", "scalar"]}, "levels: .* names one twice"),
    "call": ({"call": {"tensor": 0}}, "manifest.json makes no sense: call is no pair"),
    "deep call": ({"call": json.loads('{"list": [' * 150 + "]}" * 150)}, "in each other"),
    "result": ({"result": {"tensor": 7}}, "no template of 1"),
    "steps": ({"steps": 3}, "steps: 3 is not a list"),
    "a step": ({"steps": [{**STEP, "op": 3}]}, r"steps\[0\].op: 3 is not a text"),
    "changes": ({"changes_arguments": True}, "does not say how arguments change"),
    "parameters": ({"parameters": ["a", "b"]}, "more than the positional"),
    "name": ({"name": "\ud800"}, "name: .* cannot be encoded"),
}


@pytest.mark.parametrize(("fields", "message"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_with_right_checksums_is_named(copy: Path, fields: Any, message: str) -> None:
    edit(copy, **fields)
    seal(copy)
    with pytest.raises(errors.PackageError, match=message):
        graphopt.load(copy)


@pytest.mark.parametrize("file", ["lib", "weights.bin"])
def test_code_and_weights_must_fit(copy: Path, file: str) -> None:
    if file == "lib":
        for library in (copy / "lib").glob("*.so"):
            library.write_bytes(b"\x7fELF and nothing else")
    else:
        os.truncate(copy / file, 64)
    seal(copy)
    with pytest.raises(errors.PackageCorruptError, match=r"does not load|not of the right size"):
        graphopt.load(copy)


def test_zeros_for_an_input_that_makes_no_sense() -> None:
    assert Port("cache", "f32", ("B", 3, 5)).zeros({0: 2}).shape == (2, 3, 5)
    with pytest.raises(errors.PackageError, match="cache has the shape"):
        Port("cache", "f32", ("B", "T", 5)).zeros({0: 2})
    with pytest.raises(errors.OutOfMemoryError, match="shape"):
        Port("cache", "f32", ("B", 2**46, 2**10)).zeros({0: 2})
