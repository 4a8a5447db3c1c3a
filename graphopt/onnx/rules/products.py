"""Matrix products."""

from __future__ import annotations

from graphopt.ir import Dim, DType, Value
from graphopt.ir.scalar import Scalar
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.meanings import Weights
from graphopt.onnx.rules.linears import multiplied
from graphopt.onnx.rules.table import Table, merged, since
from graphopt.passes.lowering.products import permuted


def matmul(c: Call, x: Value, y: Value) -> Value:
    """The product of matrices, over batches that broadcast.

    Args:
        c: the node.
        x: [.., m, k] or [k].
        y: [.., k, n] or [k].
    """
    if x.rank == 0 or y.rank == 0:
        raise Malformed("a product with a number")
    inner = y.shape[-2] if y.rank > 1 else y.shape[0]
    c.require_equal(x.shape[-1], inner, "rows and columns of a product")
    batch = c.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    rows: tuple[Dim, ...] = x.shape[-2:-1] if x.rank > 1 else ()
    columns: tuple[Dim, ...] = y.shape[-1:] if y.rank > 1 else ()
    out = x.dtype, (*batch, *rows, *columns)
    return c.aten("matmul", out, self=x, other=y)[0]


def _matmul(c: Call) -> Value:
    weights = c.tensor(1).meaning
    if isinstance(weights, Weights) and c.tensor(0).rank:
        x = c.x(0)
        c.require_equal(x.shape[-1], weights.numbers.shape[0], "rows and columns of a product")
        return multiplied(c, x, weights)
    x, y = c.x(0), c.x(1)
    if x.dtype is not y.dtype:
        raise Malformed(f"its operands are of {x.dtype.value} and {y.dtype.value}")
    return matmul(c, x, y)


def _gemm(c: Call) -> Value:
    """Alpha * x @ y + beta * z."""
    alpha, beta = c.attr("alpha", 1.0), c.attr("beta", 1.0)
    weights = c.tensor(1).meaning
    if (
        isinstance(weights, Weights)
        and alpha == 1
        and not c.attr("transA", 0)
        and c.tensor().rank == 2
    ):
        return _gemm_of(c, weights, beta)
    x, y, z = c.x(0), c.x(1), c.optional(2)
    if x.rank != 2 or y.rank != 2:
        raise Malformed(f"matrices of {x.rank} and {y.rank} axes")
    if c.attr("transA", 0):
        x = permuted(c.b, x, (1, 0))
    if not c.attr("transB", 0):
        y = permuted(c.b, y, (1, 0))
    c.require_equal(x.shape[1], y.shape[1], "rows and columns of a product")
    out = x.shape[0], y.shape[0]
    plain = alpha == 1 and beta == 1 and x.dtype is DType.F32
    bias = z
    if bias is not None and bias.data is not None and bias.shape == (1, out[1]):
        bias = c.b.reshape(bias, (out[1],))
    if plain and y.is_constant and (bias is None or bias.shape == (out[1],)):
        given = {"input": x, "weight": y, "bias": bias}
        return c.aten("linear", (x.dtype, out), **given)[0]
    product = matmul(c, x, permuted(c.b, y, (1, 0)))
    if alpha != 1:
        product = c.formula(lambda v: _times(v, alpha), product)
    return _plus(c, product, z, beta)


def _gemm_of(c: Call, weights: Weights, beta: float) -> Value:
    """The product with weights that came quantized."""
    held = weights.transposed() if c.attr("transB", 0) else weights
    x, z = c.x(0), c.optional(2)
    c.require_equal(x.shape[1], held.numbers.shape[0], "rows and columns of a product")
    return _plus(c, multiplied(c, x, held), z, beta)


def _plus(c: Call, product: Value, z: Value | None, beta: float) -> Value:
    if z is None or beta == 0:
        return product
    if beta != 1:
        z = c.formula(lambda v: _times(v, beta), z)
    c.broadcast_shapes(z.shape, product.shape)
    return c.binary("add.Tensor", product, z)


def _times(x: Scalar, factor: float) -> Scalar:
    return x * (factor if x.dtype.is_float else int(factor))


def _einsum(c: Call) -> Value:
    """By the rule of torch's, with the shape of the result from the names of axes."""
    operands = c.all()
    equation = str(c.required("equation")).replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    if len(terms) != len(operands):
        raise Malformed(f"{len(operands)} operands of {equation}")
    extents: dict[str, Dim] = {}
    dots: tuple[Dim, ...] = ()
    for term, value in zip(terms, operands, strict=True):
        front, ellipsis, back = term.partition("...")
        free = value.rank - len(front) - len(back)
        if free < 0 or (not ellipsis and free):
            raise Malformed(f"an operand of {value.rank} axes as {term}")
        if ellipsis:
            dots = c.broadcast_shapes(dots, value.shape[len(front) : len(front) + free])
        shape = (*value.shape[: len(front)], *value.shape[len(front) + free :])
        for letter, extent in zip(front + back, shape, strict=True):
            known = extents.setdefault(letter, extent)
            if known == 1:
                extents[letter] = extent
            elif extent != 1:
                c.require_equal(known, extent, f"axes {letter}")
    if not arrow:
        letters = given.replace(",", "").replace(".", "")
        once = sorted(n for n in set(letters) if letters.count(n) == 1)
        result = ("..." if "..." in given else "") + "".join(once)
    front, ellipsis, back = result.partition("...")
    shape = tuple(extents[n] for n in front) + (dots if ellipsis else ())
    shape += tuple(extents[n] for n in back)
    arguments = {"equation": equation, "tensors": operands}
    return c.aten("einsum", (operands[0].dtype, shape), **arguments)[0]


RULES: Table = merged(
    since(1, MatMul=_matmul),
    since(7, Gemm=_gemm),
    since(12, Einsum=_einsum),
)
