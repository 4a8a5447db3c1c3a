"""The README's code runs or at least fits the program it describes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from graphopt import config
from graphopt.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.M | re.S)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line
]


def test_opens_with_ten_lines_of_code() -> None:
    code = [line for line in PYTHON[0].splitlines() if line]
    assert README.startswith("# graphopt\n\n```python\n") and len(code) <= 12


def test_first_lines_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", PYTHON[0]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "mlp-n2.gopt").exists()


def test_graph_before_after_and_its_c(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("torch")
    (code,) = [text for text in PYTHON if "class Block" in text]
    (tmp_path / "block.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "block.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    package = tmp_path / "block.gopt"
    made = [
        (package / "passes" / "1_captured.txt").read_text(),
        (package / "passes" / "3_planned.txt").read_text(),
        excerpt((package / "module.c").read_text()),
    ]
    blocks = [text for language, text in BLOCKS if language in ("text", "c")]
    if request.config.getoption("--update-golden"):
        (ROOT / "README.md").write_text(with_blocks(README, made))
    else:
        assert blocks == made, "README.md shows other texts: pytest --update-golden renews them"


def excerpt(source: str) -> str:
    """The first GEMM of a generated module and the steps of its `run`."""
    function = re.search(r"^static void linear\w+\(.*?^}\n", source, flags=re.M | re.S)
    steps = re.search(r"^    /\* %0 = .*?^}\n", source, flags=re.M | re.S)
    assert function and steps
    head = "static void run(const go_frame *frame, go_team *team) {\n    ...\n"
    return f"{function.group()}\n{head}{steps.group()}"


def with_blocks(page: str, texts: list[str]) -> str:
    """The page with its text and C blocks replaced, in order."""
    rest = iter(texts)
    fences = re.compile(r"^```(text|c)\n.*?^```$", flags=re.M | re.S)
    return fences.sub(lambda fence: f"```{fence.group(1)}\n{next(rest)}```", page)


@pytest.mark.parametrize("code", PYTHON)
def test_python_compiles_and_its_imports_exist(code: str) -> None:
    compile(code, "README.md", "exec")
    lines = code.splitlines()
    for module, names in re.findall(r"^from (graphopt\S*) import (.+)$", code, flags=re.M):
        exec(f"from {module} import {names}")
    assert any(line.startswith(("import graphopt", "from graphopt")) for line in lines)


@pytest.mark.parametrize("line", COMMANDS)
def test_command_exists(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert set(words[1:]) <= set(targets)
    elif words[0] == "graphopt":
        parse(words[1:])
    else:
        extras = re.findall(r"\[(.*?)\]", line)
        project = (ROOT / "pyproject.toml").read_text()
        assert words[:2] == ["pip", "install"]
        assert all(f"\n{name} = [" in project for e in extras for name in e.split(","))


def parse(words: list[str]) -> None:
    """Parse a graphopt command without running it; exits on an unknown option."""
    command = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, list(words))


@pytest.mark.parametrize("line", ["optimize m --bogus", "run", "bench paraformer --rounds x"])
def test_wrong_commands_do_not_parse(line: str) -> None:
    with pytest.raises(Exception, match=r"bogus|Missing|valid integer"):
        parse(line.split())


def test_table_lists_every_switch() -> None:
    listed = set(re.findall(r"^\| `(GRAPHOPT_\w+)", README, flags=re.M))
    read = set(re.findall(r"GRAPHOPT_\w+", Path(config.__file__).read_text()))
    assert listed == read


def test_no_switch_is_read_elsewhere() -> None:
    assert list(switches_outside_config()) == []


def switches_outside_config() -> Iterator[str]:
    """Places in shipped code that read an environment switch of graphopt by themselves."""
    reading = re.compile(r"environ(\.get\(|\[)\"GRAPHOPT_|getenv\(\"GRAPHOPT_")
    for folder in ("graphopt", "passes", "codegen", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                written = re.search(r"environ\[\"GRAPHOPT_\w+\"\] = |del ", line)
                if path.name != "config.py" and reading.search(line) and not written:
                    yield f"{path.relative_to(ROOT)}:{number}"
