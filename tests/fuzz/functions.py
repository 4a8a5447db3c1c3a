"""Kinds of steps for element-wise functions: a text for each overload, by names of operands."""

from __future__ import annotations

import torch
from lines import KINDS, enter
from scene import Scene, Unfit

__all__ = ["KINDS", "enter_texts"]


def _operands(s: Scene, text: str) -> dict[str, str]:
    """Values for the names in a text.

    x and y are floats (y broadcasts to x), n and d whole numbers of one type (d beside n), m and o
    masks, c a number of x's size, h bf16.
    """
    made: dict[str, str] = {}
    if "{x}" in text:
        made["x"] = s.floats()
        made["y"] = s.beside(made["x"]) if "{y}" in text else ""
        if "{y}" in text and not s[made["y"]].is_floating_point():
            raise Unfit
        made["c"] = s.number(-2, 2)
    if "{n}" in text:
        made["n"] = s.pick(lambda t: t.dtype in (torch.int64, torch.int32, torch.int8))
        made["d"] = s.beside(made["n"]) if "{d}" in text else ""
        if "{d}" in text and s[made["d"]].dtype is not s[made["n"]].dtype:
            raise Unfit
    if "{m}" in text:
        made["m"] = s.pick(lambda t: t.dtype is torch.bool)
        made["o"] = s.beside(made["m"]) if "{o}" in text else ""
    return made


def enter_texts(texts: dict[str, str]) -> None:
    """Enters kinds by the name of an overload, without `aten.`; each text is one step."""
    for name, text in texts.items():
        enter(f"aten.{name}", lambda s, text=text: text.format(**_operands(s, text)))


_A = "torch.ops.aten."
for _names, _argument in (
    (
        "exp2 expm1 atan asinh sinh cosh erfc tan sinc special_sinc special_expm1 special_exp2",
        "{x}",
    ),
    (
        "special_erfc special_expit arctan arcsinh mish selu log_sigmoid softplus elu celu",
        "{x}",
    ),
    ("hardshrink softshrink positive negative absolute sign sgn trunc fix round frac rrelu", "{x}"),
    ("deg2rad rad2deg logit nan_to_num isnan isfinite isposinf isneginf signbit", "{x}"),
    ("asin acos atanh arcsin arccos arctanh", "{x}.sigmoid() * 0.9"),
    ("log2 log10 log1p special_log1p special_entr reciprocal", "{x}.abs() + 0.3"),
    ("acosh arccosh", "{x}.abs() + 1.2"),
    ("special_logit", "{x}.sigmoid() * 0.9 + 0.05"),
):
    enter_texts({name: f"{_A}{name}({_argument})" for name in _names.split()})

for _names in ("floor_divide.{} remainder.{} fmod.{} div.{}_mode divide.{}_mode",):
    for _name in _names.split():
        _mode = ', rounding_mode="floor"' if "mode" in _name else ""
        _op = _name.partition(".")[0]
        _tensor = _name.format("Tensor").replace("floor_divide.Tensor", "floor_divide")
        enter_texts(
            {
                _tensor: f"torch.{_op}({{n}}, {{d}}.abs().clamp(1){_mode})",
                _name.format("Scalar"): f"torch.ops.aten.{_name.format('Scalar')}({{n}}, 3{_mode})",
            }
        )

for _op in ("bitwise_{}", "__{}__"):
    for _bits in ("and", "or", "xor"):
        _name = _op.format(_bits)
        enter_texts(
            {
                f"{_name}.Tensor": f"{_A}{_name}({{n}}, {{d}})",
                f"{_name}.Scalar": f"{_A}{_name}({{n}}, 6)",
                f"{_name}.Scalar_Tensor": f"{_A}{_name}.Scalar_Tensor(5, {{n}})",
            }
        )
for _op in ("bitwise_left_shift", "bitwise_right_shift"):
    enter_texts(
        {
            f"{_op}.Tensor": f"torch.{_op}({{n}}, {{d}}.clamp(-1, 9))",
            f"{_op}.Tensor_Scalar": f"{_A}{_op}.Tensor_Scalar({{n}}, 2)",
            f"{_op}.Scalar_Tensor": f"{_A}{_op}.Scalar_Tensor(5, {{n}})",
        }
    )
for _op in ("__lshift__", "__rshift__"):
    enter_texts(
        {
            f"{_op}.Tensor": f"{_A}{_op}({{n}}, {{d}}.clamp(0, 3))",
            f"{_op}.Scalar": f"{_A}{_op}({{n}}, 1)",
        }
    )
for _op in ("not_equal", "less_equal", "greater_equal", "multiply", "divide", "copysign"):
    enter_texts(
        {
            f"{_op}.Tensor": f"{_A}{_op}.Tensor({{x}}, {{y}}.abs() + 1)",
            f"{_op}.Scalar": f"{_A}{_op}.Scalar({{x}}, 1.5)",
        }
    )

enter_texts(
    {
        "round.decimals": "torch.round({x}, decimals=1)",
        "threshold": "F.threshold({x}, 0.1, {c})",
        "prelu": "F.prelu({x}, torch.tensor([0.25]))",
        "_prelu_kernel": f"{_A}_prelu_kernel({{x}}, {{y}})",
        "remainder.Scalar_Tensor": f"{_A}remainder.Scalar_Tensor(7, {{n}}.abs().clamp(1))",
        "pow.Tensor_Scalar": "{x}.abs().add(0.5) ** {c}",
        "pow.Tensor_Tensor": "{x}.abs().add(0.5).pow({y}.tanh())",
        "pow.Scalar": "torch.pow(2, {x}.tanh())",
        "float_power.Tensor_Scalar": "torch.float_power({x}.abs() + 0.5, {c})",
        "float_power.Tensor_Tensor": "torch.float_power({x}.abs() + 0.5, {y}.tanh())",
        "float_power.Scalar": "torch.float_power(1.5, {x}.tanh())",
        "atan2": "torch.atan2({x}, {y}.abs() + 0.5)",
        "arctan2": "torch.arctan2({x}, {y}.abs() + 0.5)",
        "hypot": "torch.hypot({x}, {y})",
        "xlogy.Tensor": "torch.xlogy({x}, {y}.abs() + 0.5)",
        "xlogy.Scalar_Other": "torch.xlogy({x}, 2.5)",
        "xlogy.Scalar_Self": "torch.xlogy(2.5, {x}.abs() + 0.5)",
        "special_xlogy": "torch.special.xlogy({x}, {y}.abs() + 0.5)",
        "special_xlogy.other_scalar": "torch.special.xlogy({x}, 2.5)",
        "special_xlogy.self_scalar": "torch.special.xlogy(2.5, {x}.abs() + 0.5)",
        "logaddexp": "torch.logaddexp({x}, {y})",
        "logaddexp2": "torch.logaddexp2({x}, {y})",
        "heaviside": "torch.heaviside({x}, {y})",
        "fmax": "torch.fmax({x}, {y})",
        "fmin": "torch.fmin({x}, {y})",
        "lerp.Scalar": f"{_A}lerp.Scalar({{x}}, {{y}}, 0.3)",
        "lerp.Tensor": "torch.lerp({x}, {y}, {y}.sigmoid())",
        "addcmul": "torch.addcmul({x}, {y}, {y}, value=0.5)",
        "addcdiv": "torch.addcdiv({x}, {y}, {y}.abs() + 1, value=0.5)",
        "clip": "torch.clip({x}, {c})",
        "clip.Tensor": "torch.clip({x}, {y}, {y} + 1)",
        "logical_xor": "torch.logical_xor({m}, {o})",
        "subtract.Tensor": f"{_A}subtract.Tensor({{x}}, {{y}}, alpha=2)",
        "subtract.Scalar": f"{_A}subtract.Scalar({{x}}, 1.5)",
        "divide.Tensor": "torch.divide({n}, {d}.abs().clamp(1))",
    }
)
