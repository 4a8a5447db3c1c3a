"""Complex numbers inside a model: real and imaginary parts, and Fourier transforms as products."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from captured import Function, arrays, captured  # noqa: E402
from graphs import assert_close  # noqa: E402

from graphopt.compiler.pipeline import PassManager, lowering_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.errors import CaptureError  # noqa: E402
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.frontend.complex_numbers import ComplexNumbers  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.ir.ops import Conv  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

fft = torch.fft
WINDOW, SHORT = torch.hann_window(16), torch.hann_window(12)
TURNS = torch.polar(torch.ones(64, 4), torch.randn(64, 4))


def spectrum(x: Any, **options: Any) -> Any:
    return torch.stft(x.mean(-1), 16, 4, window=WINDOW, return_complex=True, **options)


def rotated(x: Any) -> Any:
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * TURNS[: x.shape[1]]
    return torch.view_as_real(z).flatten(2)


def algebra(x: Any) -> Any:
    z = (torch.complex(x, 2 * x) + 1 - 3j * torch.complex(x, -x).conj()) / 2
    z = torch.stack([torch.cat([z, -z], -1), (2 - torch.cat([z, z], -1)) * x.mean()], 1)
    z = z.transpose(-1, 2).flatten(1, 2)[:, 3:].unsqueeze(-1).permute(0, 2, 1, 3)
    return z.real, z.imag, z.squeeze(-1).abs()


KERNEL = torch.randn(8, 3, 4, 3, dtype=torch.complex64)


def spectral_convolution(x: Any) -> Any:
    """Of a Fourier neural operator: the first modes times a complex kernel."""
    z = fft.rfft2(x.transpose(1, 2).unsqueeze(-2).expand(-1, -1, 4, -1))
    y = torch.zeros(x.shape[0], 3, 4, z.shape[-1], dtype=torch.cfloat)
    y[..., :3] = torch.einsum("bixy,ioxy->boxy", z[..., :3], KERNEL)
    y *= 1 + 2j
    return fft.irfft2(y, s=(4, x.shape[1])).mean(2)


def rare(x: Any) -> Any:
    z, w = torch.complex(x, 2 * x - 1), torch.complex(x.cos(), x + 3)
    whole = fft.fftshift(fft.ifftn(fft.fftn(z), norm="forward"), (1,)).to("cpu") @ w.mT
    parts = torch.cat([z.roll(1, -1).flip(1), *w.exp().split(2, dim=-1)], -1)
    rows = torch.where(x > 0, z / w, w.sqrt() * z.sgn()).sum((0, -1), keepdim=True)
    return tuple(torch.view_as_real(y) for y in (whole, parts**3, rows, (2 / w) ** 0.5))


CASES = {
    "spectral convolution": spectral_convolution,
    "rare": rare,
    "fftn": lambda x: (fft.fftn(x, dim=(1, 2)).real, fft.irfftn(fft.rfftn(x, s=(9, 6)))),
    "rotary": rotated,
    "power": lambda x: spectrum(x).abs() ** 2,
    "not centered": lambda x: spectrum(x, center=False, normalized=True).real,
    "one signal": lambda x: torch.stft(
        x[0, :, 0], 16, 5, win_length=12, window=SHORT, return_complex=False
    ),
    "back": lambda x: torch.istft(spectrum(x) * 2, 16, 4, window=WINDOW),
    "back to a length": lambda x: torch.istft(
        spectrum(x, normalized=True), 16, 4, window=WINDOW, normalized=True, length=37
    ),
    "rfft": lambda x: (fft.rfft(x).imag, fft.rfft(x, 5, norm="ortho").real, fft.rfft(x, 11).abs()),
    "irfft": lambda x: (
        fft.irfft(fft.rfft(x)),
        fft.irfft(fft.rfft(x)[..., :3], 7, norm="forward"),
    ),
    "fft": lambda x: torch.view_as_real(fft.ifft(fft.fft(x, 10) * 2j, dim=-1, norm="ortho")),
    "algebra": algebra,
}


def numbers(result: Any) -> list[Any]:
    return arrays(result if isinstance(result, tuple) else (result,))


@pytest.mark.parametrize("name", CASES)
def test_parts_are_those_of_complex_numbers(name: str) -> None:
    x = torch.randn(2, 40, 8)
    with ComplexNumbers():
        got = CASES[name](x)
    assert_close(numbers(got), numbers(CASES[name](x)), FP32_RELATIVE)


WHOLE = ("rotary", "power", "rfft", "irfft", "algebra", "back", "fftn")


@pytest.mark.parametrize("name", WHOLE)
def test_models_of_complex_numbers_are_captured_whole(name: str) -> None:
    model, varies = Function(CASES[name]), {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    graph = capture(model, (torch.randn(2, 40, 8),), dynamic_shapes=(varies,)).graph
    PassManager(Config(verify=True)).run(graph, lowering_passes())
    assert [n.op.name for n in graph.nodes if not n.is_lowered] == []
    x = torch.randn(3, 33, 8)
    assert_close(run_graph(graph, arrays(x)), numbers(CASES[name](x)), FP32_RELATIVE)
    filters = [n for n in graph.nodes if isinstance(n.op, Conv)]
    assert (all(n.operands["weight"].is_constant for n in filters) and filters) or name != "power"


def test_what_has_no_form_in_real_numbers_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match="complex64"):
        captured(lambda x: torch.linalg.inv(torch.complex(x, x)).abs(), torch.randn(3, 3))
    with pytest.raises(CaptureError, match="complex64"):
        captured(lambda x: torch.complex(x, x), torch.randn(3))
