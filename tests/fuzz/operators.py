"""Torch's database of operators: what graphopt makes of each, with its overloads and dtypes.

    python tests/fuzz/operators.py --part 3/10
    python tests/fuzz/operators.py --only softmax --most 100

Every sample is a module of its tensor arguments. It is captured and lowered as `optimize` does at
fp32, and then run node by node: lowered nodes in numpy, the others in torch as between compiled
parts. The result must have the structure, dtypes, shapes and values of torch's own. Of what is
compiled whole, a sample of each operator and dtype is also built, many in a library. Sizes vary but
where there are no elements: a size that varies may not be 0.

An operator of which the first samples of a dtype are torch's own throughout is not tried further.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from reference import difference as distance
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import graphopt
from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.compiler.specialization import run_in_torch
from graphopt.compiler.stable_sorts import StableSorts
from graphopt.config import Config
from graphopt.errors import CaptureError, GraphoptError, LoweringError
from graphopt.frontend.arguments import call_key
from graphopt.frontend.capture import Captured, capture
from graphopt.frontend.import_torch import TORCH_DTYPES, to_numpy
from graphopt.hosts.torch_ops import to_torch
from graphopt.ir import Node, learn_sizes
from graphopt.ir.interpret import run_node
from graphopt.ir.numbers import narrow, widen
from graphopt.testing import BF16_RELATIVE, FP32_RELATIVE, relative_error

#: Largest error over largest magnitude; whole numbers are compared exactly. A product of f64 may
#: add up in another order.
BOUNDS = {
    torch.float32: FP32_RELATIVE,
    torch.bfloat16: BF16_RELATIVE,
    torch.float16: BF16_RELATIVE / 8,
    torch.float64: 1e-12,
}

HALVES = (torch.bfloat16, torch.float16)
COMPILED, IN_PART, LEFT = "compiled", "compiled in part", "left in torch"
NO_CAPTURE, REFUSED, WRONG, RAW = "capture impossible", "refused", "WRONG", "RAW ERROR"
BAD = (WRONG, RAW)
FIRST = 3  # samples of a dtype that say whether anything of an operator is compiled
TOGETHER = 40  # samples in a library


@dataclass(frozen=True)
class Sample:
    """One call of an operator: its arguments in a row, tensors among them."""

    name: str
    call: Any
    leaves: list[Any]
    spec: Any

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    def run(self, tensors: Iterator[torch.Tensor]) -> Any:
        leaves = [next(tensors) if isinstance(x, torch.Tensor) else x for x in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.call(*args, **kwargs)


class Calls(torch.nn.Module):
    """Samples as a module of all their tensors."""

    def __init__(self, *samples: Sample) -> None:
        super().__init__()
        self.samples = samples
        self.eval()

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        results = [sample.run(given) for sample in self.samples]
        return results[0] if len(results) == 1 else results


def samples(op: Any, dtype: torch.dtype) -> Iterator[Sample]:
    """The samples of an operator, which the database makes of random numbers."""
    torch.manual_seed(0)
    variant = f".{op.variant_test_name}" if op.variant_test_name else ""
    for number, made in enumerate(op.sample_inputs("cpu", dtype, requires_grad=False)):
        leaves, spec = pytree.tree_flatten(((made.input, *made.args), made.kwargs))
        name = f"{op.name}{variant}, {dtype}, sample {number}"
        yield Sample(name, op.op, leaves, spec)


def interpret(captured: Captured, tensors: list[torch.Tensor]) -> Any:
    """The result of a captured and lowered module, node by node."""
    graph = captured.graph
    env = {v: t.contiguous() for v, t in zip(graph.inputs, tensors, strict=True)}
    sizes = graph.sizes([t.shape for t in tensors])

    def tensor(value: Any) -> torch.Tensor:
        return env[value] if value.data is None else to_torch(value.data, value.dtype)

    for node in graph.nodes:
        if node.is_lowered:
            arrays = [widen(to_numpy(tensor(v)), v.dtype) for v in node.inputs]
            made = [
                to_torch(np.array(narrow(np.asarray(array), v.dtype)), v.dtype)
                for array, v in zip(run_node(node, arrays, sizes), node.outputs, strict=True)
            ]
        else:
            made = list(run_in_torch(node, {v: tensor(v) for v in node.inputs}, sizes))
        env.update(zip(node.outputs, made, strict=True))
        for value, result in zip(node.outputs, made, strict=True):
            learn_sizes(sizes, value, result.shape)
    return captured.call.unflatten([tensor(v) for v in graph.outputs], tuple(tensors), {})


def difference(sample: Sample, got: Any, wanted: Any) -> str:
    """What is wrong with a sample's result; empty if nothing is.

    Torch rounds some steps to 16 bits, where the numbers may cancel: a result that is no farther
    than torch's own from that of wide numbers is right.
    """
    mine, its = pytree.tree_leaves(got), pytree.tree_leaves(wanted)
    if len(mine) != len(its):
        return f"{len(mine)} results for {len(its)}"
    for number, (x, y) in enumerate(zip(mine, its, strict=True)):
        if not isinstance(y, torch.Tensor):
            if x != y and not (x != x and y != y):
                return f"{x!r} for {y!r}"
            continue
        if x.dtype != y.dtype or x.shape != y.shape:
            return f"{x.dtype}{list(x.shape)} for {y.dtype}{list(y.shape)}"
        wide = torch.float64 if y.dtype.is_floating_point else y.dtype
        error = relative_error(x.to(wide).numpy(), y.detach().to(wide).numpy())
        if not error <= BOUNDS.get(y.dtype, 0.0):
            exact = exact_results(sample)[number] if y.dtype in HALVES else y
            if not distance(x, exact) <= distance(y, exact):
                return f"an error of {error:.2g}"
    return ""


def exact_results(sample: Sample) -> list[Any]:
    """What torch gives for the numbers of a sample as float64."""
    wide = (t.double() if t.dtype in HALVES else t.clone() for t in sample.tensors)
    return pytree.tree_leaves(sample.run(wide))


def is_random(node: Node) -> bool:
    """Whether a node is left in torch that gives other numbers each time."""
    if node.is_lowered:
        return False
    namespace, name, overload = node.op.overload.split(".")
    op = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    return torch.Tag.nondeterministic_seeded in op.tags


def is_uninitialized(node: Node) -> bool:
    """Whether a node as captured gives what memory holds."""
    return not node.is_lowered and "empty" in node.op.overload


def _varying(tensors: Sequence[torch.Tensor]) -> Any:
    """How sizes vary: as `optimize` takes them, or not at all where there are no elements."""
    return None if all(map(torch.numel, tensors)) else _fixed(tensors)


def _fixed(tensors: Sequence[torch.Tensor]) -> Any:
    return tuple(dict.fromkeys(range(t.dim()), torch.export.Dim.STATIC) for t in tensors)


def judge(sample: Sample) -> tuple[str, str]:
    """How a sample ends, and for what is not right what is wrong."""
    tensors, module = sample.tensors, Calls(sample)
    try:
        with StableSorts():
            wanted = module(*(t.clone() for t in tensors))
    except Exception:
        return "torch refuses it", ""
    results = [x for x in pytree.tree_leaves(wanted) if isinstance(x, torch.Tensor)]
    if any(x.dtype not in TORCH_DTYPES.values() for x in [*tensors, *results]):
        return "other dtypes", ""
    try:
        call_key(tuple(tensors), {})  # refuses arguments that no capture can take
        captured = capture(module, tuple(tensors), dynamic_shapes=_varying(tensors))
        if any(map(is_uninitialized, captured.graph.nodes)):
            return "other numbers each time", ""
        nodes = PassManager(Config(verify=True)).run(captured.graph, lowering_passes()).nodes
        if any(map(is_random, nodes)):
            return "other numbers each time", ""
        with torch.no_grad(), StableSorts():
            got = interpret(captured, [t.clone() for t in tensors])
    except CaptureError as error:
        return NO_CAPTURE, str(error)
    except LoweringError as error:  # no refusal, but a rule that failed
        return RAW, str(error)
    except GraphoptError as error:
        return REFUSED, str(error)
    except Exception:
        return RAW, traceback.format_exc()
    if wrong := difference(sample, got, wanted):
        return WRONG, wrong
    lowered = [node.is_lowered for node in nodes]
    return (COMPILED if all(lowered) else IN_PART if any(lowered) else LEFT), ""


def build(group: list[Sample]) -> list[str]:
    """Compiles samples into one library and runs it; a line for each that is wrong."""
    module = Calls(*group)
    tensors = tuple(t for sample in group for t in sample.tensors)
    with StableSorts():
        wanted = module(*tensors)
    compiled = graphopt.optimize(
        module,
        example_inputs=tensors,
        dynamic_shapes=_fixed(tensors),
        precision="fp32",
        num_threads=2,
    )
    with StableSorts():
        got = compiled(*tensors)
    wrong = [difference(s, x, y) for s, x, y in zip(group, got, wanted, strict=True)]
    return [f"{WRONG} when built: {s.name}: {w}" for s, w in zip(group, wrong, strict=True) if w]


def try_operator(op: Any, most: int, brief: bool) -> tuple[Counter[str], list[str], list[Sample]]:
    """Counts of how samples ended, a line for each that is bad, and what to build."""
    counts: Counter[str] = Counter()
    bad: list[str] = []
    chosen: list[Sample] = []
    for dtype in TORCH_DTYPES.values():
        if dtype not in op.supported_dtypes("cpu"):
            continue
        own: Counter[str] = Counter()
        for number, sample in enumerate(samples(op, dtype)):
            if number == most or (number == FIRST and not own[COMPILED] + own[IN_PART]):
                break
            kind, what = judge(sample)
            has_numbers = "empty" not in op.name and all(map(torch.numel, sample.tensors))
            if kind == COMPILED and not own[COMPILED] and has_numbers:
                chosen.append(sample)
            own[kind] += 1
            if kind in BAD:
                bad.append(f"{kind}: {sample.name}: {what}")
        counts += own
        if brief and not counts[COMPILED] + counts[IN_PART]:
            break
    return counts, bad, chosen


def run(
    part: int, parts: int, only: str = "", most: int = 40, brief: bool = False
) -> tuple[Counter[str], list[str]]:
    """Tries every `parts`-th operator from number `part` on.

    Args:
        part: which, from 0.
        parts: of how many.
        only: what the operator's name must contain.
        most: samples of each dtype of an operator.
        brief: whether an operator that stays in torch with one dtype is not tried with others.

    Returns:
        How many samples ended how, and a line for each that is wrong or ended with a raw error.
    """
    total: Counter[str] = Counter()
    bad: list[str] = []
    waiting: list[Sample] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for op in [op for op in op_db if only in op.name][part::parts]:
            counts, lines, chosen = try_operator(op, most, brief)
            total += counts
            bad += lines
            waiting += [s for s in chosen if s.tensors]
        for first in range(0, len(waiting), TOGETHER):
            group = waiting[first : first + TOGETHER]
            bad += build(group)
            total["built"] += len(group)
    return total, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", default="0/1", help="which of how many, from 0")
    parser.add_argument("--only", default="", help="what the operator's name contains")
    parser.add_argument("--most", type=int, default=40, help="samples of each dtype of an operator")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    total, bad = run(part, parts, options.only, options.most)
    print("\n".join(bad))
    print("\n".join(f"{count:6} {kind}" for kind, count in total.most_common()))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
