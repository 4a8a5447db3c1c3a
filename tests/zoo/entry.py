"""What a line of the zoo says of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Inputs = tuple[Any, ...] | dict[str, Any]
Sizes = tuple[tuple[int, ...], ...]

#: Batch and length: the example, then others.
TEXT: Sizes = ((2, 9), (3, 14))
#: Batch and samples of a signal.
SIGNAL: Sizes = ((2, 1600), (1, 2000))
#: Batch, height and width, of which a model leaves only the batch open.
IMAGE: Sizes = ((2, 32, 32), (3, 32, 32))
#: Batch, height and width, all of them open.
FREE_IMAGE: Sizes = ((2, 32, 32), (3, 48, 64))


@dataclass(frozen=True)
class Entry:
    """A model and the calls that it is tried with.

    Attributes:
        make: builds it, with whatever random weights; it is called with torch's seed set.
        inputs: arguments of a call, of sizes that it understands; called with the seed set.
        sizes: of the example, then of calls that the compiled example should serve too.
    """

    make: Callable[[], torch.nn.Module]
    inputs: Callable[..., Inputs]
    sizes: Sizes

    def model(self) -> torch.nn.Module:
        """The model in eval mode, the same in each process, none of its parameters constant."""
        torch.manual_seed(0)
        model = self.make().eval()
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                _vary(name, tensor)
        return model.requires_grad_(False)

    def calls(self) -> list[Inputs]:
        """The example, and the other calls."""
        made = []
        for sizes in self.sizes:
            torch.manual_seed(sum(sizes))
            made.append(self.inputs(*sizes))
        return made


def _vary(name: str, tensor: torch.Tensor) -> None:
    """Moves what is initialized as a constant, such as biases and the statistics of norms.

    A bias of zeros or a scale of ones would hide that nobody adds or multiplies it.
    """
    is_statistic = name.endswith(("running_mean", "running_var"))
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    if not tensor.is_floating_point() or not (is_parameter or is_statistic) or not tensor.dim():
        return
    if (tensor == tensor.flatten()[0]).all():
        tensor += 0.2 * torch.rand(tensor.shape)
