"""What is read from text, without LLVM and qemu: late addends, classes, blocks, windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphopt.errors import MissingEmulatorError, MissingToolError
from graphopt.n2sim import execution
from graphopt.n2sim.blocks import form_blocks
from graphopt.n2sim.disassembly import Instruction
from graphopt.n2sim.execution import Execution
from graphopt.n2sim.llvm import Llvm
from graphopt.n2sim.simulator import forwarded, sample_windows


def code(*lines: str, function: str = "f") -> list[Instruction]:
    parts = [line.partition(" ") for line in lines]
    return [Instruction(4 * i, op, rest, function) for i, (op, _, rest) in enumerate(parts)]


CHAIN = "smmla v0.4s, v30.16b, v31.16b"


def test_next_accumulate_gets_the_addend_late() -> None:
    assert forwarded(code(CHAIN, CHAIN, CHAIN), cyclic=False, width=5) == {0: 1, 1: 1}


def test_links_wrap_around_in_a_loop() -> None:
    assert forwarded(code(CHAIN, "nop"), cyclic=True, width=5) == {0: 1}


@pytest.mark.parametrize(
    "lines",
    [
        (CHAIN, "smmla v1.4s, v0.16b, v31.16b", CHAIN),  # read by a multiplicand first
        (CHAIN, "smmla v0.4s, v0.16b, v31.16b"),  # addend and multiplicand at once
        (CHAIN, "sdot v0.4s, v30.16b, v31.16b"),  # another kind of accumulate
        (CHAIN, "str q0, [x0]", CHAIN),  # read by a store
        (CHAIN, *["nop"] * 15, CHAIN),  # so far apart that latency does not matter
    ],
)
def test_others_wait_in_full(lines: tuple[str, ...]) -> None:
    assert forwarded(code(*lines), cyclic=False, width=5) == {}


def test_each_row_has_its_latency() -> None:
    for op, late in (("fmla", 2), ("bfmmla", 3), ("udot", 1), ("smlal2", 1), ("bfdot", 2)):
        line = f"{op} v0.4s, v1.4s, v2.4s"
        assert forwarded(code(line, line), cyclic=False, width=5) == {0: late}, op


@pytest.mark.parametrize(
    ("line", "macs"),
    [
        ("smmla v0.4s, v1.16b, v2.16b", 32),
        ("smmla z0.s, z1.b, z2.b", 64),
        ("sdot v0.2s, v1.8b, v2.4b[0]", 8),
        ("bfmmla v0.4s, v1.8h, v2.8h", 16),
        ("fmla v0.4s, v1.4s, v2.s[1]", 4),
        ("fmla v0.2s, v1.2s, v2.s[1]", 2),
        ("fmla v0.2d, v1.2d, v2.2d", 2),
        ("fmla z0.s, p0/m, z1.s, z2.s", 8),
        ("fmla s0, s1, v2.s[0]", 1),
        ("fadd v0.4s, v1.4s, v2.4s", 0),
    ],
)
def test_macs_of_256_bit_vectors(line: str, macs: int) -> None:
    assert code(line)[0].macs(256) == macs


def test_calls_are_priced_as_jumps() -> None:
    call = code("bl 0x4010 <go_x+0x10>")[0]
    assert (call.text, call.target) == ("b .Lx", 0x4010)


LOOP = ("mov x0, #3", "subs x0, x0, #1", "b.eq 0x10 <f+0x10>", "b 0x4 <f+0x4>", "ret ")


def test_innermost_loop_is_one_block() -> None:
    program = {i.address: i for i in code(*LOOP)}
    blocks = form_blocks(program, {0: 1, 4: 40, 8: 40, 12: 39, 16: 1}, ["f"])
    assert [[i.op for i in b.code] for b in blocks] == [["mov"], ["subs", "b.eq", "b"], ["ret"]]
    assert [b.is_loop for b in blocks] == [False, True, False]
    assert blocks[1].times == pytest.approx(119 / 3)


def test_other_functions_do_not_count() -> None:
    program = {i.address: i for i in code(*LOOP)}
    assert form_blocks(program, dict.fromkeys(program, 1), ["g"]) == []


def repeated(times: int) -> Execution:
    return Execution({}, [(64, 9), (0, 4)], np.ones(times, np.uint32), 0)


def test_windows_are_spread_and_warmed_up() -> None:
    program = {i.address: i for i in code(*["nop"] * 4)}
    windows = sample_windows(repeated(100), program, windows=2, size=40)
    assert [(len(head), len(body)) for head, body in windows] == [(8, 40), (8, 40)]
    (whole,) = sample_windows(repeated(5), program, windows=8, size=40)
    assert len(whole[0]) == 0 and len(whole[1]) == 20


def test_missing_tools_name_their_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLVM_SUFFIX", raising=False)
    with pytest.raises(MissingToolError, match="apt-get install llvm-22"):
        Llvm.find()
    with pytest.raises(MissingEmulatorError, match="apt-get install qemu-user"):
        execution.execute(["x"], {}, set(), 128, 1)
