"""Flags of the command line: each is used or refused by name, before anything is read or built."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graphopt.cli import app

UNUSED = [
    "chat p --top-k 3: --top-k at a temperature of 0",
    "chat p --top-p 0.5: --top-p at a temperature of 0",
    "chat p --seed 1: --seed at a temperature of 0",
    "transcribe p a.wav --stream --language zh: --language with --stream",
    "transcribe p a.wav --stream --use-itn: --use-itn with --stream",
    "transcribe p a.wav --stream --hotword a: --hotword with --stream",
    "transcribe p a.wav --stream --timestamps: --timestamps with --stream",
    "transcribe p a.wav --chunk-size 0,8,4: --chunk-size without --stream",
    "transcribe p a.wav --json --timestamps: --timestamps with --json",
    "bench kernels --target neoverse-n2 --threads 2: --threads cycles of neoverse-n2",
    "bench kernels --target neoverse-n2 --rounds 2: --rounds cycles of neoverse-n2",
    "bench funasr --part vad --seconds 3: --seconds on vad",
    "bench funasr --part error --rounds 3: --rounds on error",
    "bench funasr --part whole --target neoverse-v1: --target on whole",
    "bench funasr --part arm --threads 1: --threads on arm",
    "bench llm m --tokens 9: --tokens without --quality",
    "bench llm m --quality --precision int8: --precision beside --quality",
    "bench llm m --quality --rounds 3: --rounds beside --quality",
    "bench llm m --target neoverse-n2 --peers: --peers cycles of neoverse-n2",
]
WRONG = [
    "compile llm m -o o --target nowhere: unknown target 'nowhere'",
    "compile llm m -o o --precision int3: unknown precision 'int3'",
    "compile llm m -o o --group-size 7: group_size=7",
    "compile llm m -o o --activation-bits 12: activation_bits=12",
    "compile llm m -o o --kv-cache f16: kv_cache=f16",
    "compile llm m -o o --head big: head=big",
    "compile llm m -o o --rounding up: rounding=up",
    "compile llm m -o o --rounding gptq: gptq needs text",
    "compile llm m -o o --precision int8 --group-size 64: group_size=64",
    "compile llm m -o o --precision int8 --requantize: requantize=True",
    "compile funasr m -o o --target nowhere: unknown target 'nowhere'",
    "compile funasr m -o o --precision int3: unknown precision 'int3'",
    "optimize paraformer --target nowhere: unknown target 'nowhere'",
    "bench kernels --target nowhere: unknown target 'nowhere'",
    "bench llm m --group-size 7: group_size=7",
    "bench llm m --threads x: whole numbers",
    "bench funasr --part arm --target nowhere: unknown target 'nowhere'",
]


@pytest.mark.parametrize("line", UNUSED)
def test_flags_without_effect(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command, _, expected = line.partition(": ")
    flag, _, why = expected.partition(" ")
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, command.split())
    shown = re.sub(r"\x1b\[[\d;]*m", "", done.output)
    assert done.exit_code == 2, shown
    assert f"Invalid value for {flag}: has no effect" in shown and why in shown, shown


@pytest.mark.parametrize("line", WRONG)
def test_wrong_values(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command, _, expected = line.partition(": ")
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, command.split())
    assert done.exit_code in (1, 2)
    assert expected in f"{done.exception}{done.output}", (done.exception, done.output)
