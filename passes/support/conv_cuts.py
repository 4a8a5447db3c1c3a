"""How a convolution is cut into tasks, and how long it then takes: the cost model of convolutions.

A convolution offers its output positions (batch, rows, columns), its output channels and its groups
as parallel axes. A task is at most `tile_rows` positions of `tile_cols` channels of a group. In
multiply-adds, for r positions, c channels and k = taps x input channels of a group:

    task    = r x (c x (k + FINISH) + COPY x k) + STREAM x c x k + START
    ends    = ceil(tasks / cores) x task + CLAIM x tasks
    balance = MACs of the convolution / (cores x MACs of the core that is busy to the end)

COPY is what gathering a value of a window costs, once for all channels of a task: so few channels
make more of it. STREAM is what a weight costs that comes from a far cache, once for all positions
of a task: so few positions make more of it. CLAIM is how long a core that takes a task keeps
others from taking one. r x k is bounded so that windows stay in a core's
second cache. Positions come in halves of the kernel's tallest tile, channels in whole vectors.

Of a convolution by Winograd's tiles (kernels/winograd.py) positions are tiles, k counts the 36
values of a tile, COPY is what transforming one takes, and FINISH what bringing 36 products back to
16 outputs does, which are kept beside the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from graphopt.kernels.winograd import OUTPUTS, VALUES

_LARGEST_TILE = 256
_COPY, _STREAM, _START, _CLAIM = 2, 8, 8 << 10, 2 << 10
_WINDOW_VALUES = 128 << 10  # of a task, half a MiB
#: UNIT of common/conv.c and common/winograd.c, and the rows that a task may have in any case: those
#: of a band share what is read of weights.
_ROWS, _FEW_ROWS = 6, 60
_COLUMNS, _VECTOR = 32, 16  # of the widest tile, and of a vector
_ROUNDS = 4  # tasks of a core that are tried, at most

#: Instructions of common/winograd_tile.h: for a value of a tile 4 multiply-adds, and a load and a
#: store in either half; for an output channel of it 120, 100 loads and stores, and the epilogue.
_TRANSFORM, _BACK = 6, 240
_FEW_TILES = 24


@dataclass(frozen=True)
class Work:
    """Sizes of a convolution, and costs in multiply-adds.

    Attributes:
        positions: of the result.
        groups: of channels.
        channels: output channels of a group.
        depth: values of a window of a group.
        copy: cost of gathering a value.
        finish: cost of an output beyond its multiply-adds.
        beside: values that a position keeps in a cache beside its window.
        fewest: positions that a task may have in any case.
    """

    positions: int
    groups: int
    channels: int
    depth: int
    copy: int = _COPY
    finish: int = 0
    beside: int = 0
    fewest: int = _FEW_ROWS

    @property
    def macs(self) -> int:
        """All multiply-adds."""
        return self.positions * self.groups * self.channels * self.depth


def winograd_work(batch: int, size: tuple[int, ...], in_c: int, out_c: int) -> Work:
    """The work by Winograd's tiles.

    Args:
        batch: images.
        size: height and width of the result.
        in_c: channels of the image.
        out_c: channels of the result.
    """
    tiles = batch * prod(_ceil(extent, OUTPUTS) for extent in size)
    beside = VALUES * _COLUMNS
    return Work(tiles, 1, out_c, VALUES * in_c, _TRANSFORM, _BACK, beside, _FEW_TILES)


@dataclass(frozen=True)
class Cut:
    """Tasks of at most `rows` positions and `columns` channels."""

    work: Work
    rows: int
    columns: int

    @property
    def tasks(self) -> int:
        """Their number."""
        work = self.work
        pieces = _ceil(work.positions, self.rows) * _ceil(work.channels, self.columns)
        return max(1, work.groups * pieces)

    @property
    def largest(self) -> tuple[int, int]:
        """Positions and channels of the largest task."""
        channels = _round_up(self.work.channels, _VECTOR)
        return min(self.rows, self.work.positions), min(self.columns, channels)

    def cost(self, cores: int) -> int:
        """Until the last core is done."""
        (rows, columns), work = self.largest, self.work
        k = work.depth
        task = rows * (columns * (k + work.finish) + work.copy * k)
        task += _STREAM * columns * k + _START
        return _ceil(self.tasks, cores) * task + _CLAIM * self.tasks

    def balance(self, cores: int) -> float:
        """Share of the cores' time that is work of the convolution."""
        rows, columns = self.largest
        busy = _ceil(self.tasks, cores) * rows * columns * self.work.depth
        return self.work.macs / (cores * max(1, busy))


def best_cut(work: Work, cores: int) -> Cut:
    """The cut that ends soonest by the cost model."""
    return min(_cuts(work, cores), key=lambda cut: (cut.cost(cores), cut.tasks))


def largest_cut(work: Work) -> Cut:
    """Tasks of all channels, and of as many positions as any task may have."""
    rows = work.fewest if work.beside else _LARGEST_TILE
    return Cut(work, rows, _round_up(work.channels, _COLUMNS))


def _cuts(work: Work, cores: int) -> Iterator[Cut]:
    """What is tried: rows as equal as whole tiles allow, for some numbers of tasks."""
    units = max(1, _ceil(work.positions, _ROWS))  # an example may be empty
    fit = _WINDOW_VALUES // (work.depth + work.beside)
    most = max(work.fewest, min(_LARGEST_TILE, fit)) // _ROWS
    least = _ceil(units, most)
    vectors = _ceil(work.channels, _COLUMNS)
    for columns in sorted({_ceil(vectors, pieces) for pieces in range(1, vectors + 1)}):
        for lines in range(least, max(least, min(units, _ROUNDS * cores)) + 1):
            yield Cut(work, _ceil(units, lines) * _ROWS, columns * _COLUMNS)


def _round_up(a: int, unit: int) -> int:
    return _ceil(a, unit) * unit


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
