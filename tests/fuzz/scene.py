"""What a random model holds while it is being made: its values, computed as they are written."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from program import NAMESPACE, Sizes, Step, double, names_in, widened
from reference import difference, wide

from graphopt.compiler.rounding_noise import ROUNDINGS

HALVES = (torch.bfloat16, torch.float16)
FLOATS = (torch.float32, torch.float64, *HALVES)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
#: Results that differ by more than this, over their largest magnitude, under the roundings of a
#: precision are no measure of anything.
ILL_CONDITIONED = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.2, "int8+bf16": 0.2, "int4": 0.4}
LARGEST = 1e4  # beyond it squares and exponentials soon leave f32


class Unfit(Exception):
    """There is no operand for a kind of step."""


@dataclass
class _World:
    """All values at one size and one way of rounding."""

    names: dict[str, Any]
    size: int
    seed: int | None  # of the noise; None for exact, -1 for float32

    def execute(self, lines: Sequence[str], precision: str) -> None:
        if self.seed == -1:
            with torch.no_grad():
                for line in lines:
                    exec(line, NAMESPACE, self.names)
            return
        with wide(None if self.seed is None else ROUNDINGS[precision], self.seed or 0):
            for line in lines:
                exec(widened(line), NAMESPACE, self.names)


@dataclass
class Scene:
    """A model in the making.

    Attributes:
        random: the source of all choices.
        precision: which decides what roundings a value must bear.
        width: of the innermost axis of most values.
        sizes: two (B, T); every step is tried at both, so that it works at more than one.
        inputs: name and text of each argument.
        steps: the lines so far.
    """

    random: random.Random
    precision: str
    width: int
    sizes: tuple[Sizes, ...]
    inputs: tuple[tuple[str, str], ...]
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._members: dict[str, str] = {}
        self._fresh: list[str] = []
        self._count = 0
        self._build()

    # What kinds ask for.

    def pick(self, fits: Callable[[torch.Tensor], bool], recent: float = 0.6) -> str:
        """The name of a value that fits, rather one of the last."""
        fitting = [name for name in self.values if fits(self[name])]
        if not fitting:
            raise Unfit
        if self.random.random() < recent:
            fitting = fitting[-3:]
        return self.random.choice(fitting)

    def floats(self, *ranks: int, dtypes: Sequence[torch.dtype] = (torch.float32,)) -> str:
        """A float32 value of one of the ranks (any but 0 if none is given)."""
        return self.pick(lambda t: t.dtype in dtypes and (t.dim() in ranks or not ranks))

    def any_float(self) -> str:
        """A value of a float type, mostly float32."""
        return self.floats(dtypes=FLOATS if self.random.random() < 0.2 else FLOATS[:1])

    def integers(self) -> str:
        """A value of an integer type."""
        return self.pick(lambda t: t.dtype in INTEGERS)

    def bools(self) -> str:
        """A mask: a value, or a comparison."""
        if self.random.random() < 0.4:
            return self.pick(lambda t: t.dtype is torch.bool)
        return f"({self.floats()} {self.random.choice('<>')} {self.number(-1, 1)})"

    def anything(self, *ranks: int) -> str:
        """A value of any type."""
        return self.pick(lambda t: t.dim() in ranks or not ranks)

    def own(self, *ranks: int) -> str:
        """A float32 value that no argument shares memory with, so that it may be written to."""
        given = {self[name].untyped_storage().data_ptr() for name, _ in self.inputs}

        def fits(tensor: torch.Tensor) -> bool:
            ours = tensor.untyped_storage().data_ptr() not in given
            return ours and tensor.dtype is torch.float32 and tensor.dim() in ranks

        return self.pick(fits)

    def beside(self, name: str, same: bool = False) -> str:
        """A value that broadcasts with another (has its shape, if `same`), mostly of its type."""
        shapes = [self.at(name, size).shape for size in range(len(self.sizes))]
        dtype = self[name].dtype

        def fits(other: str) -> bool:
            mixed = self.random.random() < 0.1 and self[other].dtype in FLOATS + INTEGERS
            if self[other].dtype is not dtype and not mixed:
                return False
            for size, shape in enumerate(shapes):
                found = self.at(other, size).shape
                try:
                    if torch.broadcast_shapes(shape, found) != shape or (same and found != shape):
                        return False
                except RuntimeError:
                    return False
            return True

        fitting = [other for other in self.values if fits(other)]
        if not fitting:
            raise Unfit
        return self.random.choice(fitting)

    def operand(self, name: str) -> str:
        """What stands beside a value: another, a part of it, a weight, a number, a size."""
        choice = self.random.random()
        if choice < 0.5:
            return self.beside(name)
        value = self[name]
        if choice < 0.6 and value.dim() > 1:
            return f"{name}[{self.random.choice([':1', '-1:', '..., :1', ':, :1'])}]"
        if choice < 0.75 and value.dim() and value.dtype is torch.float32:
            width = self.dim(name, -1)
            if width.isdigit():
                return self.parameter(int(width))
        if choice < 0.8 and value.dim() and value.dtype in (torch.float32, torch.int64):
            return f"{name}.shape[{self.axis(name)}]"
        if value.dtype in INTEGERS:
            return str(self.random.randint(1, 3))
        return self.number(-2, 2)

    def number(self, low: float, high: float) -> str:
        """A number with few digits that is not 0."""
        value = round(self.random.uniform(low, high), 2) or 0.5
        return str(value)

    def axis(self, name: str) -> int:
        """An axis of a value, counted from either end."""
        rank = self[name].dim()
        if rank == 0:
            raise Unfit
        return self.random.randrange(-rank, rank)

    def dim(self, name: str, axis: int) -> str:
        """The extent of an axis: a number if it is the same at all sizes."""
        extents = {self.at(name, size).shape[axis] for size in range(len(self.sizes))}
        return str(extents.pop()) if len(extents) == 1 else f"{name}.shape[{axis}]"

    def static(self, name: str, axis: int) -> int:
        """The extent of an axis that is the same at all sizes."""
        text = self.dim(name, axis)
        if not text.isdigit() or text == "0":
            raise Unfit
        return int(text)

    def least(self, name: str, axis: int) -> int:
        """The smallest extent that an axis has at any size."""
        return min(self.at(name, size).shape[axis] for size in range(len(self.sizes)))

    def member(self, text: str) -> str:
        """A module, parameter or buffer of the model: `nn.Linear(8, 8)`; some are shared."""
        if text in self._members and self.random.random() < 0.4:
            return self._members[text]
        name = f"m{self._count}"
        seed = self.random.randrange(1000)
        if text.startswith("buffer "):
            made = f'self.register_buffer("{name}", {text.removeprefix("buffer ")})'
        else:
            made = f"self.{name} = {text}"
        self._fresh.append(f"torch.manual_seed({seed}); {made}")
        self._members[text] = f"self.{name}"
        self._count += 1
        return f"self.{name}"

    def parameter(self, *shape: int) -> str:
        """A parameter, or a buffer, of a shape."""
        if self.random.random() < 0.3:
            return self.member(f"buffer torch.randn{shape}")
        return self.member(f"nn.Parameter(torch.randn{shape})")

    def __getitem__(self, name: str) -> torch.Tensor:
        """A value at the first sizes."""
        return self.at(name, 0)

    def at(self, name: str, size: int) -> torch.Tensor:
        """A value at the sizes of an index, in float32."""
        return self._worlds[size].names[name]  # type: ignore[no-any-return]

    @property
    def values(self) -> list[str]:
        """Names of all values, the latest last."""
        made = (name for step in self.steps for name in step.results)
        return [*(name for name, _ in self.inputs), *made]

    # What the maker does.

    def add(self, kind: str, text: str, results: int) -> bool:
        """Writes a line if it works at all sizes and bears rounding; returns whether it did."""
        fresh, self._fresh = self._fresh, []
        start = sum(len(step.results) for step in self.steps)
        names = tuple(f"v{start + i}" for i in range(results))
        members = (*self._declared(text), *fresh)
        used = names_in(text)
        step = Step(kind, names, text, tuple(m for m in members if self._named(m) in used))
        try:
            for world in self._worlds:
                self._declare(world, fresh)
                world.execute([step.line], self.precision)
            bearable = self._bearable(names or tuple(step.reads & set(self.values)))
        except Exception:
            bearable = False
        if bearable:
            self.steps.append(step)
            self._lines.update({self._named(line): line for line in fresh})
            return True
        self._members = {t: n for t, n in self._members.items() if n in self._lines}
        if results:
            for world in self._worlds:
                for name in names:
                    world.names.pop(name, None)
        else:
            self._build()
        return False

    def _build(self) -> None:
        """Computes all values anew."""
        self._lines = {self._named(m): m for step in self.steps for m in step.members}
        seeds: tuple[int | None, ...] = (-1, None, 0, 1)
        self._worlds = [
            self._world(size, seed) for seed in seeds for size in range(len(self.sizes))
        ]
        for world in self._worlds:
            self._declare(world, list(self._lines.values()))
            world.execute([step.line for step in self.steps], self.precision)

    def _world(self, size: int, seed: int | None) -> _World:
        batch, time = self.sizes[size]
        torch.manual_seed(batch * 100 + time)
        given = eval(
            f"({', '.join(text for _, text in self.inputs)},)",
            {**NAMESPACE, "B": batch, "T": time},
        )
        names: dict[str, Any] = {"self": _Members()}
        for (name, _), tensor in zip(self.inputs, given, strict=True):
            names[name] = tensor if seed == -1 else double(tensor)
        return _World(names, size, seed)

    def _declare(self, world: _World, lines: Sequence[str]) -> None:
        for line in lines:
            holder = _Members()
            exec(line, NAMESPACE, {"self": holder})
            for name, value in vars(holder).items():
                if isinstance(value, torch.nn.Module):
                    value.eval()
                setattr(world.names["self"], name, value if world.seed == -1 else double(value))

    def _declared(self, text: str) -> list[str]:
        used = names_in(text)
        return [line for name, line in self._lines.items() if name in used]

    @staticmethod
    def _named(line: str) -> str:
        """`self.m3` of the line that makes it."""
        _, _, made = line.partition("; ")
        if made.startswith("self.register_buffer"):
            return f"self.{made.split(chr(34))[1]}"
        return made.partition(" = ")[0]

    def _bearable(self, names: Sequence[str]) -> bool:
        """Whether the values are moderate numbers on which rounding has little effect."""
        count = len(self.sizes)
        for name in names:
            for size in range(count):
                value, exact, *noisy = (
                    world.names[name] for world in self._worlds if world.size == size
                )
                if not isinstance(value, torch.Tensor) or value.numel() > 20_000:
                    return False
                if not exact.is_floating_point():
                    if any(not torch.equal(exact, other) for other in (value, *noisy)):
                        return False
                    continue
                finite = exact[torch.isfinite(exact)]
                if finite.numel() < exact.numel() and self.random.random() < 0.7:
                    return False
                scale = float(finite.abs().max()) if finite.numel() else 1.0
                limit = ILL_CONDITIONED[self.precision]
                if value.dtype in HALVES or self.precision == "fp32":
                    limit = max(limit, 0.1 * self._has_halves)
                worst = max(difference(other, exact) for other in (value, *noisy))
                if scale > LARGEST or worst > limit * scale:
                    return False
        return True

    @property
    def _has_halves(self) -> bool:
        names = self._worlds[0].names.values()
        return any(isinstance(t, torch.Tensor) and t.dtype in HALVES for t in names)


class _Members(SimpleNamespace):
    """Stands for the model's `self`."""

    def register_buffer(self, name: str, tensor: torch.Tensor) -> None:
        setattr(self, name, tensor)
