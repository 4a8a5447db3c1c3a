"""What can be compiled: a module in eval mode with weights that are there. Others are named."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.export import ExportedProgram

from graphopt.errors import ModelError, TrainingModeError
from graphopt.frontend.compiled import Compiled

_ORIGINAL = "give the nn.Module that it was made of"


def check_model(model: Any) -> None:
    """Checks that something is a module that can be captured.

    Raises:
        ModelError: for anything else; says what it is and what to give.
        TrainingModeError: if it, or a module in it, is in training mode; names the first.
    """
    problem = _kind(model)
    if problem is not None:
        raise ModelError(*problem)
    for name, module in model.named_modules():
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
            raise ModelError(
                f"{type(module).__name__}, the module {name!r}, is quantized by torch.ao",
                "give the float model, which precision='int8' quantizes",
            )
    check_mode(model)


def check_mode(model: torch.nn.Module) -> None:
    """Raises TrainingModeError for the first module in training mode, the model itself included."""
    # A program of torch.export has its modes in its nodes; its flags say nothing.
    if isinstance(model, torch.fx.GraphModule) and "train" in vars(model):
        return
    for name, module in model.named_modules():
        if module.training:
            raise TrainingModeError(type(module).__name__, name)


def check_weights(model: torch.nn.Module) -> None:
    """Raises ModelError for the first weight that is not a dense tensor on the CPU."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        where = f"{name!r} of {type(model).__name__}"
        if torch.nn.parameter.is_lazy(tensor):
            raise ModelError(f"{where} has no values yet", "call the model once, then optimize it")
        if hasattr(type(tensor), "__tensor_flatten__"):
            kind = type(tensor).__name__
            raise ModelError(
                f"{where} is a {kind}", "give the model before its weights were packed"
            )
        if tensor.device.type == "meta":
            raise ModelError(f"{where} is on the meta device", "load its weights first")
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            kind = f"a {tensor.layout} tensor on {tensor.device}"
            raise ModelError(f"{where} is {kind}", "make it dense and move the model with .cpu()")


def _kind(model: Any) -> tuple[str, str] | None:
    """What something is that is no module, and what to give instead."""
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        return f"a {name} is compiled by torch.jit", _ORIGINAL
    if isinstance(model, ExportedProgram):
        return "an ExportedProgram is no module", "give its .module()"
    if isinstance(model, Compiled):
        return f"this {name} is compiled already", "give the model that it was made of"
    if isinstance(model, str | bytes | os.PathLike):
        return f"{model!r:.80} is a name", "load the model from its file and give the nn.Module"
    if isinstance(model, type):
        return f"{model.__name__} is a class", f"give an instance, such as {model.__name__}(...)"
    if isinstance(model, dict):
        return f"a {name} is no module", "give the nn.Module that load_state_dict fills with it"
    if not isinstance(model, torch.nn.Module):
        kind = "function" if callable(model) else name
        return f"a {kind} is no module", "call it in the forward of an nn.Module"
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return f"a {name} spreads a module over devices", "give its .module"
    if type(model).forward is torch.nn.Module.forward and "forward" not in vars(model):
        return f"{name} has no forward", "give a module that can be called"
    return None
