"""Kinds of steps of a random model that are layers: convolutions of every form, recurrent ones."""

from __future__ import annotations

from collections.abc import Callable

from lines import chosen, enter, kind
from scene import Scene


def _image(s: Scene, axes: int) -> tuple[str, int]:
    """A signal [batch, channels, ...] with so many axes, and its channels."""
    name = s.floats(3)
    channels = s.static(name, 2)
    if axes == 1:
        return f"{name}.transpose(1, 2)", channels
    return f"{name}[{', '.join([':', *['None'] * (axes - 1)])}]", 1


def _made(s: Scene, axes: int, transposed: bool = False) -> str:
    """A layer on a signal with so many axes."""
    text, channels = _image(s, axes)
    taps, stride = s.random.choice((1, 2, 3, 4)), s.random.choice((1, 1, 2, 3))
    dilation, bias = s.random.choice((1, 1, 2)), s.random.choice(("True", "False"))
    groups, out = s.random.choice(((1, 6), (1, channels), (channels, channels)))
    options = f"dilation={dilation}, groups={groups}, bias={bias}"
    if transposed:
        extra, cropped = s.random.randrange(max(stride, dilation)), s.random.choice((0, 0, 1))
        options += f", output_padding={extra}, padding={cropped if taps > 2 else 0}"
        made = f"nn.ConvTranspose{axes}d({channels}, {out}, {taps}, {stride}, {options})"
    else:
        padding = (taps - 1) * dilation + s.random.randrange(2)
        made = f"nn.Conv{axes}d({channels}, {out}, {taps}, {stride}, {padding}, {options})"
    text = text if s.random.random() < 0.8 else f"{text}[0]"
    return f"{s.member(made)}({text})"


enter("aten.conv3d", lambda s: _made(s, 3))
for _axes in (1, 2, 3):
    enter(f"aten.conv_transpose{_axes}d", lambda s, axes=_axes: _made(s, axes, transposed=True))


@kind("aten.conv3d.padding")
def _conv3d(s: Scene) -> str:
    text, channels = _image(s, 3)
    padding = s.random.choice(("same", "valid"))
    return f"{s.member(f'nn.Conv3d({channels}, 4, (1, 1, 2), padding={padding!r})')}({text})"


@kind("aten._convolution")
def _convolution(s: Scene) -> str:
    text, channels = _image(s, 1)
    weight = s.parameter(channels, 4, 3)
    rest = "None, [2], [1], [1], True, [1], 1, False, False, False, False"
    return f"torch._convolution({text}, {weight}, {rest})"


@kind("computed filters")
def _computed(s: Scene) -> str:
    text, channels = _image(s, 1)
    weight = f"({s.parameter(channels, channels, 3)} * {s.floats(3)}.mean())"
    padding = chosen(s, '"same"', "2")
    return f"F.conv1d({text}, {weight}, padding={padding}).transpose(1, 2)"


@kind("graphopt.recurrent")
def _recurrent(s: Scene) -> str:
    name = s.floats(3)
    kind_, width = s.random.choice(("LSTM", "LSTM", "GRU", "RNN")), s.random.choice((6, 20, 32))
    options = f"num_layers={s.random.choice((1, 1, 2))}, bias={chosen(s, 'True', 'False')}"
    options += f", bidirectional={chosen(s, 'True', 'False')}"
    options += f", batch_first={chosen(s, 'True', 'False')}"
    if kind_ == "LSTM" and s.random.random() < 0.3:
        options += ", proj_size=5"
    if kind_ == "RNN":
        options += f', nonlinearity="{chosen(s, "tanh", "relu")}"'
    text = name if s.random.random() < 0.8 else f"{name}[0]"
    member = s.member(f"nn.{kind_}({s.static(name, 2)}, {width}, {options})")
    return f"{member}({text})[{chosen(s, '0', '0', '1[0]')}]"


def _cell(kind_: str, states: str, part: str = "") -> Callable[[Scene], str]:
    def make(s: Scene) -> str:
        name, bias = s.floats(2), chosen(s, "True", "False")
        member = s.member(f"nn.{kind_}({s.static(name, 1)}, {s.width}, bias={bias}{states})")
        return f"{member}({name}){part}"

    return make


enter("aten.lstm_cell", _cell("LSTMCell", "", "[1]"))
enter("aten.gru_cell", _cell("GRUCell", ""))
enter("aten.rnn_tanh_cell", _cell("RNNCell", ""))
enter("aten.rnn_relu_cell", _cell("RNNCell", ', nonlinearity="relu"'))
