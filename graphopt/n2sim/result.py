"""What pricing a program gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class BlockPrice:
    """The price of one block.

    Attributes:
        function: symbol it lies in.
        address: of its first instruction.
        is_loop: whether it is the body of an innermost loop.
        times: how often it ran.
        cycles_each: cycles of one execution, by itself.
        cycles: of all executions.
        macs_each: multiply-accumulates of one execution.
        code: its instructions.
    """

    function: str
    address: int
    is_loop: bool
    times: int
    cycles_each: float
    cycles: float
    macs_each: int
    code: tuple[str, ...]

    @property
    def macs_per_cycle(self) -> float:
        """Its rate, by itself."""
        return self.macs_each / self.cycles_each


@dataclass(frozen=True)
class Price:
    """The price of the chosen functions of one run.

    Attributes:
        cpu: the core.
        instructions: executed.
        by_class: of them, by :attr:`disassembly.Instruction.kind`.
        cycles: the estimate to quote.
        cycles_blocks: the sum over blocks, each by itself; tells where the time goes.
        macs: useful multiply-accumulates.
        issued_macs: those of the instructions that ran.
        peak_class: class of instructions that the peak is of, or "" without any.
        peak: multiply-accumulates of that class in a cycle at best.
        recorded: share of the instructions whose order is known.
        unknown: instructions that the core lacks; the figures are wrong if there are any.
        exit_status: of the program.
        blocks: the blocks, the costliest first.
    """

    cpu: str
    instructions: int
    by_class: dict[str, int]
    cycles: int
    cycles_blocks: int
    macs: int
    issued_macs: int
    peak_class: str
    peak: float
    recorded: float
    unknown: tuple[str, ...]
    exit_status: int
    blocks: tuple[BlockPrice, ...]

    @property
    def macs_per_cycle(self) -> float:
        """Useful multiply-accumulates in a cycle."""
        return self.macs / self.cycles

    @property
    def peak_share(self) -> float | None:
        """Of the peak, 1 at best; None where there is no peak."""
        return self.macs_per_cycle / self.peak if self.peak else None

    @property
    def main_loop(self) -> BlockPrice | None:
        """The innermost loop that does most of the multiply-accumulates."""
        loops = [block for block in self.blocks if block.is_loop and block.macs_each]
        return max(loops, key=lambda block: block.macs_each * block.times, default=None)

    def as_dict(self, show: int, listing: bool) -> dict[str, Any]:
        """Everything for JSON, with the ``show`` costliest blocks and, if asked, their code."""
        data = asdict(self) | {"macs_per_cycle": self.macs_per_cycle}
        data["peak_share"] = self.peak_share
        data["blocks"] = data["blocks"][:show]
        for block in data["blocks"]:
            block["address"] = hex(block["address"])
            if not listing:
                del block["code"]
        return data

    def text(self, show: int, listing: bool) -> str:
        """The same for people."""
        classes = ", ".join(f"{kind} {count}" for kind, count in self.by_class.items())
        lines = [f"{self.cpu}: {self.instructions} instructions: {classes}"]
        per_cycle = self.instructions / self.cycles
        lines.append(
            f"{self.cycles} cycles (sum of blocks {self.cycles_blocks}), "
            f"{per_cycle:.2f} instructions per cycle"
        )
        if self.peak_share is not None:
            lines.append(
                f"{self.macs} MACs: {self.macs_per_cycle:.2f} per cycle, "
                f"{self.peak_share:.1%} of the {self.peak_class} peak {self.peak:.1f}"
            )
        lines += self._warnings()
        for block in self.blocks[:show]:
            lines += self._block_lines(block, listing)
        return "\n".join(lines)

    def _warnings(self) -> list[str]:
        lines = []
        if self.unknown:
            lines.append(f"WRONG NUMBERS, {self.cpu} lacks: {', '.join(self.unknown)}")
        if self.recorded < 0.999:
            lines.append(f"only {self.recorded:.1%} of the order was recorded")
        if self.exit_status:
            lines.append(f"the program ended with status {self.exit_status}")
        return lines

    def _block_lines(self, block: BlockPrice, listing: bool) -> list[str]:
        head = (
            f"{block.cycles / self.cycles_blocks:6.1%}  {block.function} at {block.address:#x}, "
            f"{'loop' if block.is_loop else 'line'}: {len(block.code)} instructions, "
            f"{block.cycles_each:.2f} cycles, {block.macs_each} MACs, x{block.times}"
        )
        return [head, *(f"        {line}" for line in block.code)] if listing else [head]
