"""Basic blocks from what ran, with innermost loops in one piece."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphopt.n2sim.disassembly import Instruction


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other.

    Attributes:
        code: the instructions.
        times: how often the block ran; the mean over its instructions, as joined blocks of one
            loop may differ a little.
    """

    code: tuple[Instruction, ...]
    times: float

    @property
    def first(self) -> Instruction:
        """Its first instruction."""
        return self.code[0]

    @property
    def is_loop(self) -> bool:
        """Whether it ends by going back to its beginning."""
        return self.code[-1].target == self.first.address


def form_blocks(
    code: Mapping[int, Instruction], counts: Mapping[int, int], functions: Iterable[str]
) -> list[Block]:
    """Blocks of the executed instructions of the functions, in order of address.

    Args:
        code: the program.
        counts: how often each address ran.
        functions: names of the functions that count.
    """
    chosen = set(functions)
    leaders = {i.target for i in code.values() if i.target is not None}
    runs: list[list[Instruction]] = []
    for instruction in code.values():
        if not counts.get(instruction.address) or instruction.function not in chosen:
            continue
        last = runs[-1][-1] if runs else None
        if last and _continues(last, instruction, leaders, counts):
            runs[-1].append(instruction)
        else:
            runs.append([instruction])
    return [
        Block(tuple(run), sum(counts[i.address] for i in run) / len(run))
        for run in _join_loops(runs, code, counts)
    ]


def _continues(
    last: Instruction, this: Instruction, leaders: set[int], counts: Mapping[int, int]
) -> bool:
    return (
        last.address + 4 == this.address
        and last.function == this.function
        and not last.is_branch
        and this.address not in leaders
        and counts[last.address] == counts[this.address]
    )


def _join_loops(
    runs: list[list[Instruction]], code: Mapping[int, Instruction], counts: Mapping[int, int]
) -> list[list[Instruction]]:
    """Join the runs of each innermost loop that ran about as often as its back edge."""
    backs = [
        (last.target, last.address, counts[last.address])
        for *_, last in runs
        if last.target is not None
        and last.op != "bl"
        and last.target <= last.address
        and code[last.target].function == last.function
    ]
    for low, high, times in backs:
        if any(low <= a and b <= high and (a, b) != (low, high) for a, b, _ in backs):
            continue  # another loop inside
        body = [
            run
            for run in runs
            if low <= run[0].address <= high
            and 0.75 * times <= counts[run[0].address] <= 1.33 * times
        ]
        if len(body) > 1:
            at = runs.index(body[0])
            joined = [instruction for run in body for instruction in run]
            runs = [run for run in runs if all(run is not part for part in body)]
            runs.insert(at, joined)
    return runs
