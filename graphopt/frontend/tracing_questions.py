"""Whether it is traced: a model asks, to do the same in another way, and may do something else.

    if not torch.compiler.is_exporting() and mask.all():
        mask = None             # then a faster kernel; a model that is not causal sees all of it

What it does when it is not is what counts. So where a model asks, it is run both ways before its
graph is believed; if that shows, it is captured once more with the answer that it is not traced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphopt.frontend import nesting
from graphopt.frontend.arguments import Arguments
from graphopt.frontend.held import Held
from graphopt.frontend.replaced_functions import replaced
from graphopt.frontend.user_lines import asking_line
from graphopt.testing import relative_error

_LARGEST = 1e-3
"""How far results may differ that are the same up to rounding, of other kernels, say."""


class TracingQuestions(ExitStack):
    """While it is entered, answers the lines of the user that ask; those of torch get the truth.

    Args:
        answer: what they are told.

    Attributes:
        lines: those that asked.
    """

    def __init__(self, answer: bool) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._answer = answer
        self._thread = threading.get_ident()

    def __enter__(self) -> TracingQuestions:
        answers: dict[str, Any] = {}
        for name in ("is_compiling", "is_exporting"):
            own = getattr(torch.compiler, name)
            answers[name] = self._function(own)
            self.enter_context(replaced(name, own, answers[name]))
        kind = _kind_of(self._is_fake)
        self.enter_context(replaced("FakeTensor", FakeTensor, kind))
        # torch knows its own class and functions by identity, and so gets them.
        for module, names in ((torch.compiler, answers), (torch._subclasses, {"FakeTensor": kind})):
            self.callback(setattr, module, "__class__", module.__class__)
            module.__class__ = _answering(module, names)
        return self

    def _function(self, own: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: self._answer if self._asks() else own()

    def _is_fake(self, thing: Any) -> bool:
        if isinstance(thing, torch.Tensor) and self._asks():
            return self._answer
        return isinstance(thing, FakeTensor)

    def _asks(self) -> bool:
        """Whether a line of the user that runs in this thread is asking."""
        line = asking_line() if threading.get_ident() == self._thread else ""
        self.lines += [line] if line else []
        return bool(line)


def _kind_of(is_instance: Callable[[Any], bool]) -> type:
    """A class by which lines of the user ask what torch's own for tensors in a trace is asked."""

    class Kind(type):
        def __instancecheck__(cls, thing: object) -> bool:
            return is_instance(thing)

        def __subclasscheck__(cls, kind: type) -> bool:
            return issubclass(kind, FakeTensor)

    return Kind("FakeTensor", (), {})


def _answering(module: ModuleType, names: dict[str, Any]) -> type[ModuleType]:
    """The class of a module that has something else under some names for lines of the user."""

    def chosen(own: Any, other: Any) -> property:
        return property(lambda _: other if asking_line() else own)

    members = {name: chosen(getattr(module, name), other) for name, other in names.items()}
    return type("Module", (ModuleType,), members)


def computes_otherwise(model: torch.nn.Module, call: Arguments) -> bool:
    """Whether a model that is told that it is traced gives another result; it is left as it was.

    Args:
        model: the module.
        call: arguments that it takes; where it fails there is nothing to compare.
    """
    results = []
    for answer in (False, True):
        args, kwargs = call.copied()
        try:
            with (
                Held(model),
                torch.no_grad(),
                torch.random.fork_rng(devices=()),
                TracingQuestions(answer),
            ):
                torch.manual_seed(0)
                results.append(nesting.flatten((model(*args, **kwargs), args, kwargs)))
        except Exception:  # the model's own; see the check of the example
            return False
    (plain, spec), (traced, other) = results
    return spec != other or not all(map(_is_close, traced, plain))


def _is_close(got: Any, wanted: Any) -> bool:
    if not isinstance(got, torch.Tensor) or not isinstance(wanted, torch.Tensor):
        return type(got) is type(wanted) and repr(got) == repr(wanted)
    if got.dtype is not wanted.dtype or got.shape != wanted.shape:
        return False
    if not wanted.is_floating_point():
        return torch.equal(got, wanted)
    return relative_error(*(t.detach().double().numpy() for t in (got, wanted))) <= _LARGEST
