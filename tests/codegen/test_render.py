"""Text of a user's model in C: whatever it is, it stays text."""

import ctypes
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import I64, Maker, build, emit
from torch import nn

import graphopt
from graphopt.codegen.render import c_text
from graphopt.compiler.pipeline import PassManager
from graphopt.compiler.report import Report, node_reports
from graphopt.config import Config
from graphopt.errors import InputValueError
from graphopt.ir import Node, Origin
from graphopt.ir.ops import Check
from graphopt.ir.printer import file_name, print_graph
from graphopt.printable import printable
from graphopt.target import find_target
from graphopt.toolchain.build import Toolchain

HOSTILE = [
    "M*/ int evil; /*",
    "a**// { return 1; } //**",
    'a"b',
    'x"; system("true"); "',
    "a\nb\r#error c\u2028d",
    "tail\\",
    "??/\n??'",
    "\ud800",
    "\0",
    "%s%n",
    "[bold]x[/nothing]",
    "../../etc/passwd",
    "été 模型",
    "n" * 3000,
    "/*/*/**//",
    "",
]


def _random_texts(count: int) -> list[str]:
    source = random.Random(5)
    alphabet = ["*", "/", "\\", '"', "'", "?", "\n", "\r", "\0", "%", "<", ":", "a", " ", "\ud812"]
    return ["".join(source.choices(alphabet, k=source.randrange(1, 12))) for _ in range(count)]


def test_any_text_is_a_comment_and_a_string(tmp_path: Path) -> None:
    texts = [c_text(text) for text in (*HOSTILE, *_random_texts(400))]
    lines = [f"/* {text} */ /*{text}*/" for text in texts]
    table = ",\n".join(f'"{text}"' for text in texts)
    source, library = tmp_path / "texts.c", tmp_path / "texts.so"
    source.write_text("\n".join([*lines, f"const char *const texts[] = {{{table}}};"]) + "\n")
    tools = Toolchain.find(find_target("native").arch)
    flags = ["-std=c11", "-trigraphs", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    flags += [*tools.link_flags(static=False), "-s"]
    command = [*tools.command, *flags, str(source), "-o", str(library)]
    made = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert made.returncode == 0, made.stderr
    read = (ctypes.c_char_p * len(texts)).in_dll(ctypes.CDLL(str(library)), "texts")
    assert [text.decode("ascii") for text in read] == texts
    assert max(map(len, texts)) < 2000


def test_harmless_text_stays() -> None:
    text = "%0 = go.cat(x, y, axis=1)  # f32[B, Max(0,T-2)]  encoders.3.norm"
    assert c_text(text) == text
    assert c_text("model.py:3: y = x[:, :2] * {a: b}") == "model.py:3: y = x[:, :2] * {a: b}"


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_for_people_and_for_files(name: str) -> None:
    line = printable(name)
    assert line.isprintable() and line.encode("utf-8").decode() == line
    file = file_name(name)
    assert file.isascii() and 0 < len(file) < 128 and not set(file) & set('/\\\0\n "')
    assert not file.startswith(".")
    assert file_name(name + "x") != file


def test_printable_text_stays() -> None:
    assert printable("été 模型 a b") == "été 模型 a b" and printable("a\nb\ud800") == r"a\nb\ud800"
    assert file_name("Encoder_0") == "Encoder_0"


def test_a_module_of_hostile_names(tmp_path: Path) -> None:
    """Comments, the module's name and the text of an error, in one library; dumps and reports."""
    m = Maker("M*/ int evil; /*")
    x = m.input('x"\n*/', "B", 4)
    y = x
    for text in HOSTILE:
        y = m.linear(y, 4, name=text)
        m.graph.nodes[-1].origin = Origin(text, text, text)
        m.graph.nodes[-1].decide("test", text)
    count = m.input("\ud800", dtype=I64)
    code = 'x.view(n)"; } /* \\ ??/'
    m.graph.nodes.append(Node.of(Check(m.shape("B")[0]), count, origin=Origin("", "", code)))
    graph = m.output(y)
    PassManager(Config(dump=tmp_path / "dump")).run(graph, [])
    printed = print_graph(graph, reasons=True)
    context = build(emit(graph), "scalar", tmp_path).context(1)
    data = np.ones((2, 4), np.float32)
    (result,) = context.run([data, np.array(2)])
    assert result.shape == (2, 4)
    with pytest.raises(InputValueError, match=r"differs from its shape: x\.view"):
        context.run([data, np.array(3)])
    (dumped,) = (tmp_path / "dump").rglob("*.txt")
    lines = dumped.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# after capture" and len(lines) == len(printed.splitlines()) + 1
    assert len(printed.split("\n")) == 2 * len(HOSTILE) + 4
    report = Report(graph.name, "native", "fp32", (), tuple(node_reports(graph)))
    for text in (str(report), *(row.module for row in report)):
        text.encode("utf-8")
    assert "[bold]x[/nothing]" in str(report)


def test_a_model_of_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Module paths and a class name that would run their C; a package and its dumps."""
    evil = tmp_path / "evil"
    key = f'a**// {{ creat("{evil}", 0600) }} //**'
    inner = nn.ModuleDict(
        {key: nn.Linear(3, 3), 'a"b\n': nn.Linear(3, 3), "\ud800": nn.Linear(3, 3)}
    )

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in self.parts.values():
                x = part(x)
            return x

    Model.__name__ = Model.__qualname__ = "../M*/ int main /*\n"
    monkeypatch.setenv("GRAPHOPT_DUMP", str(tmp_path / "dump"))
    model = Model().eval()
    x = torch.randn(2, 3)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(x,))
    torch.testing.assert_close(fast(x), model(x))
    str(fast.report()).encode("utf-8")
    fast.save(tmp_path / "m.gopt")
    loaded = graphopt.load(tmp_path / "m.gopt")
    torch.testing.assert_close(loaded(x), model(x))
    assert not evil.exists()
    assert {p.parent.parent for p in tmp_path.rglob("*.txt")} == {
        tmp_path / "dump",
        tmp_path / "m.gopt",
    }
