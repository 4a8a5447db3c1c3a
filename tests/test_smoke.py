"""The whole way in a few seconds: capture, passes, C, compiler, call. Runs in the commit hook."""

import pytest

import graphopt

torch = pytest.importorskip("torch")


def test_small_model_end_to_end() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.LayerNorm(48), torch.nn.Linear(48, 40), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(40, 24)).eval()
    x = torch.randn(3, 5, 48)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(x,))
    for shape in ((3, 5, 48), (1, 1, 48), (2, 17, 48)):  # one build serves every batch and length
        y = torch.randn(shape)
        with torch.inference_mode():
            torch.testing.assert_close(fast(y), model(y), rtol=1e-4, atol=1e-5)
