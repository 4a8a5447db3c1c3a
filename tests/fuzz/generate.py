"""Makes a random model from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lines import Line
from overloads import KINDS
from program import Program, Sizes
from scene import Scene, Unfit

from graphopt.target import PRECISIONS

#: What the float input of every model looks like: dense, transposed, strided, with a gap in
#: front, repeated without memory of its own, overlapping.
_LAYOUTS = (
    "torch.randn(B, T, {w})",
    "torch.randn(B, T, {w})",
    "torch.randn(B, {w}, T).transpose(1, 2)",
    "torch.randn(T, B, {w}).transpose(0, 1)",
    "torch.randn(B, T, 2 * {w})[..., ::2]",
    "torch.randn(B, T + 3, {w})[:, 3:]",
    "torch.randn(B, 1, {w}).expand(B, T, {w})",
    "torch.randn(B, T + {w} - 1).unfold(1, {w}, 1)",
)
_OTHERS = (
    "torch.randn(B, T, {w})",
    "torch.randn(B, 1, {w})",
    "torch.randn(B, T)",
    "torch.randn(T, {w})",
    "torch.randn(B, {w})",
    "torch.randn({w})",
    "torch.randn(B, 3, T, {w})",
    "torch.randn(B, T, {w}, dtype=torch.float64)",
    "torch.randn(B, T, {w}).to(torch.bfloat16)",
    "torch.randn(B, T, {w}).to(torch.float16)",
    "torch.randint(0, 7, (B, T))",
    "torch.randint(0, 6, (B,))",
    "torch.randint(-5, 6, (B, T, 1))",
    "torch.randint(-5, 6, (B, T), dtype=torch.int32)",
    "torch.randint(0, 9, (B, T), dtype=torch.uint8)",
    "torch.randint(-9, 9, (T,), dtype=torch.int8)",
    "torch.randint(-9, 9, (B, 1), dtype=torch.int16)",
    "torch.rand(B, T) < 0.7",
    "torch.rand(B, T, 1) < 0.7",
    "torch.rand(B, 1, T) < 0.7",
)
#: Chosen more often than others: where products are, and what reaches far.
_FREQUENT = (
    "operators",
    "aten.linear",
    "attention",
    "feed forward",
    "residual block",
    "write to a part",
    "write through a view",
    "aten.slice",
    "aten.reshape",
    "aten.cat",
)
_ATTEMPTS = 12


def generate(seed: int, kinds: Sequence[str] = (), precision: str = "") -> Program:
    """A random model.

    Args:
        seed: decides everything.
        kinds: of the steps to have, in order, as far as they fit; random if empty.
        precision: one of `PRECISIONS`; random if empty, in half of the models fp32.
    """
    chance = random.Random(seed)
    precision = precision or chance.choice(("fp32",) * 4 + PRECISIONS)
    width = chance.choice((8, 8, 5, 16) if precision in ("fp32", "bf16") else (32, 64))
    sizes: list[Sizes] = [_size(chance), (chance.choice((2, 4)), chance.choice((7, 9)))]
    texts = [
        chance.choice(_LAYOUTS),
        *chance.sample(_OTHERS, chance.randint(0, 3)),
    ]
    inputs = tuple((f"x{i}", text.format(w=width)) for i, text in enumerate(texts))
    scene = Scene(chance, precision, width, tuple(sizes), inputs)
    wanted = list(kinds) or _kinds(chance)
    for kind in wanted:
        for _ in range(_ATTEMPTS):
            try:
                made = KINDS[kind](scene)
            except Unfit:
                continue
            line = made if isinstance(made, Line) else Line(made, 1)
            if scene.add(kind, line.text, line.results):
                break
    extremes: list[Sizes] = [(1, 1), (1, 9), (3, 1), (0, 5), (2, 0)]
    sizes += chance.sample(extremes, 2)
    program = Program(
        inputs, tuple(scene.steps), _outputs(scene, bool(kinds)), tuple(sizes), precision
    )
    return program if kinds else program.needed()


def _size(chance: random.Random) -> Sizes:
    """Sizes of the example inputs, which are 1 now and then."""
    return chance.choice((2, 2, 3, 1)), chance.choice((5, 6, 5, 6, 1))


def _kinds(chance: random.Random) -> list[str]:
    return chance.choices((*KINDS, *_FREQUENT * 3), k=chance.randint(2, 9))


def _outputs(scene: Scene, every: bool) -> tuple[str, ...]:
    """The last value, others, and now and then an argument, a weight, or the same one twice."""
    chance = scene.random
    made = [name for step in scene.steps for name in step.results]
    if every:
        return tuple(made) or ("x0",)
    outputs = made[-1:] + chance.sample(made, min(len(made), chance.randint(0, 2)))
    if chance.random() < 0.1 or not outputs:
        outputs.append(chance.choice(scene.inputs)[0])
    members = [text for step in scene.steps for text in step.members]
    if chance.random() < 0.1 and members:
        name, _, text = chance.choice(members).partition("; ")[2].partition(" = ")
        outputs += [name] if text.startswith("nn.Parameter") else []
    return tuple(outputs)
