"""What rounding the weights of a product lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Loss:
    """What rounding left over, as shares of squares.

    Attributes:
        weights: sum of squared errors of the weights over the sum of their squares.
        outputs: the same of the products with calibration inputs; None without calibration.
    """

    weights: float
    outputs: float | None = None

    def __str__(self) -> str:
        text = f"{self.weights:.2e} of the weights"
        return text if self.outputs is None else f"{text}, {self.outputs:.2e} of the results"


def mean_loss(losses: Sequence[Loss]) -> Loss | None:
    """The mean over several weights; None of none."""
    if not losses:
        return None
    outputs = [loss.outputs for loss in losses if loss.outputs is not None]
    mean = float(np.mean(outputs)) if outputs else None
    return Loss(float(np.mean([loss.weights for loss in losses])), mean)
