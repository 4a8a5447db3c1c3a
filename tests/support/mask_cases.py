"""Calls of what masks pick and change, many to a capture: names of ops, a function, its tensors."""

from __future__ import annotations

import math

import torch
from function_cases import Call, named

aten = torch.ops.aten
_random = torch.Generator().manual_seed(2)

X = torch.randn(3, 4, 5, generator=_random)
#: Of which a NaN holds, and no zero does, whatever its sign.
ODD = torch.tensor([[0.0, math.nan, -0.0], [2.0, -1.0, math.inf]])
WHOLE = torch.tensor([[0, 3], [-1, 0], [0, 0]])
HELD = X[..., 0] > 0

MASKS: dict[str, Call] = {
    **named(
        "nonzero nonzero_numpy where",
        lambda x, odd, whole: (
            (odd.nonzero(), whole.nonzero(), odd.bfloat16().nonzero(), (x > 9).nonzero()),
            torch.nonzero(x > 0, as_tuple=True),
            torch.where(odd != 1),
            aten.argwhere(whole[0] > -5),
        ),
        X,
        ODD,
        WHOLE,
    ),
    **named(
        "nonzero_static",
        lambda odd, whole: (
            torch.nonzero_static(odd, size=2),
            torch.nonzero_static(odd, size=9, fill_value=7),
            torch.nonzero_static(whole[1], size=2),
        ),
        ODD,
        WHOLE,
    ),
    **named(
        "masked_select",
        lambda x, odd, held: (
            x.masked_select(held[..., None]),
            odd.masked_select(odd != 2),
            (x > 0).masked_select(held[0, 0]),
            x.bfloat16().masked_select(x > 0),
        ),
        X,
        ODD,
        HELD,
    ),
    **named(
        "index",
        lambda x, odd, held, whole, one: (
            (x[held], x[x > 0], x[:, held[0]], x[held[:, 0]], odd[odd < 0], whole[whole != 0]),
            (x[:, :, held[0, :1].expand(5)], x.bfloat16()[held], (x > 0)[held]),
            (x[held[:, 0], 1], x[held[:, 0], one], x[held[:, 0], :, one]),
        ),
        X,
        ODD,
        HELD,
        WHOLE,
        torch.tensor([1]),
    ),
    **named(
        "index_put",
        lambda x, held: (
            (x.index_put((held,), x[held] * 2), x.index_put((held,), x[0, 0])),
            x.index_put((x > 0,), x[x > 0].exp()),
            x.index_put((held,), x[held], accumulate=True),
            aten.index_put(x, [None, held[0]], x[:, held[0]] + 1),
            aten.index_put(x, [None, held[0]], x[0, held[0]]),
            (x > 0).index_put((held,), held[0, 0]),
        ),
        X,
        HELD,
    ),
}
