"""Products of matrices and vectors: linear, matmul and its relatives, einsum."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import Any

from graphopt.ir import Dim, DType, Shape, Value, scalar, symbolic
from graphopt.ir.ops import Linear, Matmul, Reduce
from graphopt.ir.scalar import Scalar
from graphopt.passes.lowering.builder import Builder, Unsupported, broadcast, require_f32
from graphopt.passes.lowering.schema import Lowering, Rule, rules

#: Elements of a product that is made by multiplying and adding up, for types without a kernel.
_MOST_TERMS = 1 << 20


def product(b: Builder, left: Value, right: Value) -> Value:
    """The product of matrices, of which those in front are batches, and vectors, as torch's matmul.

    Constant matrices become the weights of a linear. Where the right matrix is one for several
    batches, these are rows of one product; what else broadcasts is repeated.

    Args:
        b: gets the nodes.
        left: [.., m, k] or [k].
        right: [.., k, n] or [k].
    """
    if left.rank == 0 or right.rank == 0:
        raise Unsupported("a product with a number")
    if left.rank == 1:
        y = product(b, b.reshape(left, (1, *left.shape)), right)
        return b.reshape(y, (*y.shape[:-2], *y.shape[-1:]) if right.rank > 1 else y.shape[:-1])
    if right.rank == 1:
        y = product(b, left, reshaped(b, right, (*right.shape, 1)))
        return b.reshape(y, y.shape[:-1])
    if left.dtype is right.dtype and left.dtype in (DType.F64, DType.I64, DType.I32):
        return _by_terms(b, left, right)
    require_f32("matmul", left, right)
    while right.rank > 2 and right.shape[0] == 1 and left.rank >= right.rank:
        right = reshaped(b, right, right.shape[1:])
    if right.rank == 2:
        return _rows_times(b, left, right)
    rank = max(left.rank, right.rank)
    left, right = (b.reshape(v, (*[1] * (rank - v.rank), *v.shape)) for v in (left, right))
    batch = broadcast(left.shape[:-2], right.shape[:-2])
    rows = (*batch, left.shape[-2], right.shape[-1])
    shared = rank - 2
    while shared and right.shape[shared - 1] == 1 and left.shape[shared - 1] != 1:
        shared -= 1
    if shared < rank - 2:  # batches that the right matrix does not have are rows
        front = left.shape[:shared]
        left = b.reshape(left, (*front, symbolic.product(left.shape[shared:-1]), left.shape[-1]))
        right = b.reshape(right, (*right.shape[:shared], *right.shape[-2:]))
        batch = broadcast(front, right.shape[:shared])
    left, right = (b.expand(v, (*batch, *v.shape[-2:])) for v in (left, right))
    return b.reshape(b.emit(Matmul(), left, right), rows)


def _rows_times(b: Builder, left: Value, right: Value) -> Value:
    """[.., m, k] times [k, n]."""
    shape = (*left.shape[:-1], right.shape[-1])
    if right.data is not None:
        weight = Value(right.dtype, right.shape[::-1], right.name, data=right.data.T.copy())
        return b.emit(Linear(), left, weight, shape=shape)
    if right.is_constant:
        return b.emit(Linear(), left, b.permute(right, (1, 0)), shape=shape)
    rows = b.reshape(left, (symbolic.product(left.shape[:-1]), left.shape[-1]))
    return b.reshape(b.emit(Matmul(), rows, right), shape)


def _by_terms(b: Builder, left: Value, right: Value) -> Value:
    """A product of types without a kernel, if it is small."""
    axes = range(right.rank)
    columns = b.permute(right, (*axes[:-2], right.rank - 1, right.rank - 2))
    left = b.reshape(left, (*left.shape[:-1], 1, left.shape[-1]))
    columns = b.reshape(columns, (*columns.shape[:-2], 1, *columns.shape[-2:]))
    terms = broadcast(left.shape, columns.shape)
    count = symbolic.product(terms)
    if not isinstance(count, int) or count > _MOST_TERMS:
        raise Unsupported(f"matmul on {left.dtype.value}, {right.dtype.value}")
    made = b.apply(lambda v, w: v * w, left, columns)
    return b.reshape(b.emit(Reduce("sum", (len(terms) - 1,)), made), terms[:-1])


def reshaped(b: Builder, value: Value, shape: Shape) -> Value:
    """The elements in another shape; see `Builder.reshape`. A constant stays one."""
    if value.data is None or value.shape == shape:
        return b.reshape(value, shape)
    return Value(value.dtype, shape, value.name, data=value.data.reshape(shape))


def permuted(b: Builder, value: Value, axes: Sequence[int]) -> Value:
    """The axes in another order; see `Builder.permute`. A constant stays one."""
    if value.data is None or list(axes) == list(range(value.rank)):
        return b.permute(value, axes)
    data = value.data.transpose(axes).copy()
    return Value(value.dtype, data.shape, value.name, data=data)


# Linear and products with something added.


def _linear(b: Builder) -> Value:
    x, weight, bias, out = b.tensor("input"), b.tensor("weight"), b.arg("bias"), b.node.output
    if weight.rank == 2 and weight.is_constant and x.rank and x.dtype is DType.F32:
        require_f32("linear", x, weight, bias)
        if bias is None or bias.shape == weight.shape[:1]:
            rows = x if x.rank > 1 else b.reshape(x, (1, *x.shape))
            shape = (*rows.shape[:-1], weight.shape[0])
            return b.reshape(b.emit(Linear(), rows, weight, bias=bias, shape=shape), out.shape)
    y = product(b, x, permuted(b, weight, (1, 0)) if weight.rank == 2 else weight)
    return y if bias is None else b.apply(lambda v, w: v + w, y, bias)


def _scaled(b: Builder, name: str, dtype: DType) -> Scalar | None:
    """A factor of an operand; None for 1."""
    value = b.arg(name, 1)
    if not isinstance(value, int | float):
        raise Unsupported(f"{name} = {value} of {b.node.op}")
    return None if value == 1 else scalar.const(value, dtype)


def _added(b: Builder, y: Value) -> Value:
    """The product times alpha, plus beta times self, which does not count where beta is 0."""
    beta, alpha = (_scaled(b, name, y.dtype) for name in ("beta", "alpha"))
    if alpha is not None:
        y = b.apply(lambda v: v * alpha, y)
    base = b.tensor()
    if beta is None:
        return b.apply(lambda v, w: w + v, y, base)
    return y if beta.value == 0 else b.apply(lambda v, w: w * beta + v, y, base)


def _addmm(b: Builder) -> Value:
    bias, x, mat = b.tensor(), b.tensor("mat1"), b.tensor("mat2")
    plain = b.arg("beta", 1) == 1 and b.arg("alpha", 1) == 1 and bias.shape == mat.shape[1:]
    if plain and mat.data is not None:
        require_f32("addmm", bias, x, mat)
        weight = Value(mat.dtype, mat.shape[::-1], mat.name, data=mat.data.T.copy())
        return b.emit(Linear(), x, weight, bias=bias, shape=b.node.output.shape)
    return _added(b, product(b, x, mat))


def _product_added(left: str, right: str, over_batches: bool = False) -> Lowering:
    def rule(b: Builder) -> Value:
        y = product(b, b.tensor(left), b.tensor(right))
        if over_batches:
            y = b.reshape(b.emit(Reduce("sum", (0,)), y), y.shape[1:])
        return _added(b, y)

    return rule


def _addr(b: Builder) -> Value:
    column, row = b.tensor("vec1"), b.tensor("vec2")
    return _added(b, b.apply(lambda v, w: v * w, b.reshape(column, (*column.shape, 1)), row))


def _matmul(left: str, right: str) -> Lowering:
    def rule(b: Builder) -> Value:
        return b.reshape(product(b, b.tensor(left), b.tensor(right)), b.node.output.shape)

    return rule


def _chain(name: str) -> Lowering:
    """Products from the left."""

    def rule(b: Builder) -> Value:
        y, *others = b.arg(name)
        for other in others:
            y = product(b, y, other)
        return b.reshape(y, b.node.output.shape)

    return rule


# Sums over named axes.


def _contract(
    b: Builder, left: Value, right: Value, names: tuple[str, str], kept: Iterable[str]
) -> tuple[Value, str]:
    """The sum of the products of two operands over the names that both have and nobody keeps.

    Args:
        b: gets the nodes.
        left: first operand.
        right: second operand.
        names: of the axes of each.
        kept: names that something behind reads.

    Returns:
        The result, and the names of its axes.
    """
    of_left, of_right = names
    keep = set(kept)
    left, of_left = _without(
        b, left, of_left, {n for n in of_left if n not in keep | set(of_right)}
    )
    right, of_right = _without(
        b, right, of_right, {n for n in of_right if n not in keep | set(of_left)}
    )
    for name in sorted(set(of_left) & set(of_right)):  # an extent of 1 broadcasts
        extents = left.shape[of_left.index(name)], right.shape[of_right.index(name)]
        if extents[0] != extents[1] and 1 in extents:
            if extents[0] == 1:
                left, of_left = _without(b, left, of_left, {name})
            else:
                right, of_right = _without(b, right, of_right, {name})
    both = [n for n in of_left if n in of_right]
    batch, summed = [n for n in both if n in keep], [n for n in both if n not in keep]
    rows = [n for n in of_left if n not in of_right]
    columns = [n for n in of_right if n not in of_left]
    extent = dict(zip(of_left + of_right, left.shape + right.shape, strict=True))

    def shape(*groups: list[str]) -> tuple[Dim, ...]:
        return tuple(symbolic.product(extent[n] for n in group) for group in groups)

    def ordered(value: Value, order: str, wanted: list[str]) -> Value:
        return permuted(b, value, [order.index(n) for n in wanted])

    left = ordered(left, of_left, [*batch, *rows, *summed])
    right = ordered(right, of_right, [*batch, *summed, *columns])
    front: Shape = shape(batch) if batch else ()
    if summed:
        left = reshaped(b, left, (*front, *shape(rows, summed)))
        right = reshaped(b, right, (*front, *shape(summed, columns)))
        y = product(b, left, right)
    else:
        left = reshaped(b, left, (*front, *shape(rows), 1))
        right = reshaped(b, right, (*front, 1, *shape(columns)))
        y = b.apply(lambda v, w: v * w, left, right)
    result = [*batch, *rows, *columns]
    return b.reshape(y, tuple(extent[n] for n in result)), "".join(result)


def _without(b: Builder, value: Value, names: str, gone: set[str]) -> tuple[Value, str]:
    """The sum over some axes."""
    if not gone:
        return value, names
    axes = tuple(a for a, n in enumerate(names) if n in gone)
    rest = tuple(e for a, e in enumerate(value.shape) if a not in axes)
    if any(value.shape[a] != 1 for a in axes):
        value = b.emit(Reduce("sum", axes), value)
    return reshaped(b, value, rest), "".join(n for n in names if n not in gone)


def _einsum(b: Builder) -> Value:
    """From the left, two operands at a time."""
    operands: list[Value] = b.arg("tensors")
    b.arg("path")  # another order, the same sum
    inputs, result = _named(b.arg("equation"), [v.rank for v in operands])
    if any(v.dtype is not DType.F32 for v in operands):
        require_f32("einsum", *operands)
    value, names = operands[0], inputs[0]
    for i, (other, its) in enumerate(zip(operands[1:], inputs[1:], strict=True), start=2):
        later = "".join(inputs[i:]) + result
        value, names = _contract(b, value, other, (names, its), later)
    value, names = _without(b, value, names, set(names) - set(result))
    return b.reshape(permuted(b, value, [names.index(n) for n in result]), b.node.output.shape)


def _named(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Names of the axes of each operand and of the result, each a letter; dots are named too."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    free = [c for c in string.ascii_letters if c not in equation]
    dots = max((r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True)
                if "..." in t), default=0)  # fmt: skip
    if dots > len(free):
        raise Unsupported(f"so many axes in {equation}")
    broadcasting = "".join(free[:dots])
    inputs = []
    for term, rank in zip(terms, ranks, strict=True):
        own = rank - len(term.replace("...", ""))
        inputs.append(term.replace("...", broadcasting[dots - own :]))
    if not arrow:
        letters = "".join(inputs)
        once = sorted(n for n in set(letters) - set(broadcasting) if letters.count(n) == 1)
        result = "..." + "".join(once) if dots else "".join(once)
    result = result.replace("...", broadcasting)
    if any(len(set(names)) != len(names) for names in (*inputs, result)):
        raise Unsupported(f"a diagonal in {equation}")
    return inputs, result


def _tensordot(b: Builder) -> Value:
    """Over pairs of axes; beside an axis of one element the other is summed, as torch has it."""
    left, right = b.tensor(), b.tensor("other")
    pairs = list(zip(b.arg("dims_self"), b.arg("dims_other"), strict=True))
    of_left, of_right = list(string.ascii_lowercase[: left.rank]), list(string.ascii_uppercase)
    of_right = of_right[: right.rank]
    kept = {*of_left, *of_right}
    for mine, its in pairs:
        sizes = left.shape[mine], right.shape[its]
        kept -= {of_left[mine], of_right[its]}
        if 1 not in sizes or sizes[0] == sizes[1]:
            of_right[its] = of_left[mine]
    names = "".join(of_left), "".join(of_right)
    return b.reshape(_contract(b, left, right, names, kept)[0], b.node.output.shape)


def _inner(b: Builder) -> Value:
    """Over the last axes of both."""
    left, right = b.tensor(), b.tensor("other")
    if left.rank == 0 or right.rank == 0:
        return b.apply(lambda v, w: v * w, left, right)
    of_left = string.ascii_lowercase[: left.rank - 1]
    of_right = string.ascii_uppercase[: right.rank - 1]
    y, _ = _contract(b, left, right, (f"{of_left}z", f"{of_right}z"), of_left + of_right)
    return b.reshape(y, b.node.output.shape)


def _bilinear(b: Builder) -> Value:
    one, other, weight, bias = (b.arg(n) for n in ("input1", "input2", "weight", "bias"))
    front = string.ascii_lowercase[: one.rank - 1]
    y, names = _contract(b, one, weight, (f"{front}I", "OIJ"), f"{front}OJ")
    y, names = _contract(b, y, other, (names, f"{front}J"), f"{front}O")
    y = permuted(b, y, [names.index(n) for n in f"{front}O"])
    return y if bias is None else b.apply(lambda v, w: v + w, y, bias)


_BETA: Any = "*, Scalar beta=1, Scalar alpha=1) -> Tensor"
RULES: dict[str, Rule] = {
    **rules(_linear, "aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"),
    **rules(_addmm, f"aten::addmm(Tensor self, Tensor mat1, Tensor mat2, {_BETA}"),
    **rules(
        _product_added("batch1", "batch2"),
        f"aten::baddbmm(Tensor self, Tensor batch1, Tensor batch2, {_BETA}",
    ),
    **rules(
        _product_added("batch1", "batch2", over_batches=True),
        f"aten::addbmm(Tensor self, Tensor batch1, Tensor batch2, {_BETA}",
    ),
    **rules(
        _product_added("mat", "vec"), f"aten::addmv(Tensor self, Tensor mat, Tensor vec, {_BETA}"
    ),
    **rules(_addr, f"aten::addr(Tensor self, Tensor vec1, Tensor vec2, {_BETA}"),
    **rules(_matmul("self", "other"), "aten::matmul(Tensor self, Tensor other) -> Tensor"),
    **rules(
        _matmul("self", "mat2"),
        "aten::bmm(Tensor self, Tensor mat2) -> Tensor",
        "aten::mm(Tensor self, Tensor mat2) -> Tensor",
    ),
    **rules(_matmul("self", "vec"), "aten::mv(Tensor self, Tensor vec) -> Tensor"),
    **rules(_matmul("self", "tensor"), "aten::dot(Tensor self, Tensor tensor) -> Tensor"),
    **rules(_matmul("self", "other"), "aten::vdot(Tensor self, Tensor other) -> Tensor"),
    **rules(_inner, "aten::inner(Tensor self, Tensor other) -> Tensor"),
    **rules(_chain("matrices"), "aten::chain_matmul(Tensor[] matrices) -> Tensor"),
    **rules(_chain("tensors"), "aten::linalg_multi_dot(Tensor[] tensors) -> Tensor"),
    **rules(
        _einsum,
        "aten::einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor",
    ),
    **rules(
        _tensordot,
        "aten::tensordot(Tensor self, Tensor other, int[] dims_self, int[] dims_other) -> Tensor",
    ),
    **rules(
        _bilinear,
        "aten::bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor",
    ),
}
