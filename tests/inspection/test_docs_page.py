"""docs/inspect.md: its commands and its Python give what it shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "inspect.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.M | re.S)
RUN = """
import contextlib, io, json, runpy, sys
from typer.testing import CliRunner
from graphopt.cli import app
sys.path.insert(0, "")
made = []
for language, text in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if language == "python":
            exec(text, {})
    made.append(printed.getvalue() or CliRunner().invoke(app, json.loads(text)).stdout)
with contextlib.redirect_stdout(io.StringIO()) as printed:
    try:
        runpy.run_path("found.py", run_name="__main__")
    except SystemExit as ended:
        made.append(f"{printed.getvalue()}ends with {ended.code}")
print(json.dumps(made))
"""


def run(blocks: list[tuple[str, str]], folder: Path) -> list[str]:
    """What blocks of the page print, in one process; and `found.py`, which one of them writes."""
    given = json.dumps(
        [
            (kind, text if kind == "python" else json.dumps(shlex.split(text)[1:]))
            for kind, text in blocks
        ]
    )
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    made = (text.replace(f"{folder}/", "") for text in json.loads(done.stdout))
    return ["\n".join(line.rstrip() for line in text.splitlines()) + "\n" for text in made]


def shape(text: str) -> str:
    """The text without numbers, of which other processors round the last digits, and their room."""
    return re.sub(r"[\s\u2500-\u257f]+", " ", re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "0", text))


def test_what_the_page_shows(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model, *rest = FENCE.findall(PAGE.read_text())
    (tmp_path / "speech.py").write_text(model[1])
    *made, found = run([block for block in rest if block[0] != "text"], tmp_path)
    assert "quantize_weights moves the result by" in found and "ends with 1" in found
    if request.config.getoption("--update-golden"):
        texts = iter(made)

        def renewed(fence: re.Match[str]) -> str:
            return f"```text\n{next(texts)}```" if fence[1] == "text" else fence[0]

        PAGE.write_text(FENCE.sub(renewed, PAGE.read_text()))
    else:
        wanted = [text for language, text in rest if language == "text"]
        remedy = "pytest --update-golden renews docs/inspect.md"
        assert list(map(shape, made)) == list(map(shape, wanted)), remedy
