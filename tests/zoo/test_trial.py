"""What the zoo says of models that end in every way."""

import copy
import os
import signal
import time

import pytest

pytest.importorskip("transformers")

import torch
import trial
from entry import Entry
from run import rows
from torch import nn

SIZES = ((2, 5), (3, 7))


def frames(batch: int, length: int) -> tuple[torch.Tensor]:
    return (torch.randn(batch, length, 8),)


class Tanh(nn.Module):
    """A model whose calls can be made to end otherwise."""

    def __init__(self, first: object = None) -> None:
        super().__init__()
        self.first, self.linear = first, nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.first:
            self.first()
        return torch.tanh(self.linear(x))


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs() -> None:
    time.sleep(600)


@pytest.mark.parametrize(
    ("first", "seconds", "kind", "why"),
    [
        (dies, 100.0, trial.WRONG, "the process ends with -9"),
        (hangs, 0.5, trial.REFUSED, "takes more than 0 s"),
    ],
)
def test_a_model_that_ends_its_process_or_hangs_is_a_row(first, seconds, kind, why) -> None:
    entry = Entry(lambda: Tanh(first), frames, SIZES)
    (row,) = rows("ended", entry, ["fp32", "int8"], True, seconds)
    assert row.kind == kind and why in row.why


def test_other_results_than_the_models_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    optimized = trial._optimized

    def other(model: nn.Module, *how: object) -> nn.Module:
        model = copy.deepcopy(model)
        model.linear.bias += 0.01
        return optimized(model, *how)

    monkeypatch.setattr(trial, "_optimized", other)
    (row,) = trial.attempts("changed", Entry(Tanh, frames, SIZES), ["fp32"], True)
    assert row.kind == trial.WRONG and "allowed 0.0001" in row.why
