"""`optimize`, and the drop-in module that it returns."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree

from graphopt.compiler.example_check import check_example
from graphopt.compiler.form import Form, Options
from graphopt.compiler.options import (
    check_values,
    refuse_unused,
    used_by_auto_model,
    used_by_decoder,
    used_by_module,
)
from graphopt.compiler.pipeline import check_activation_bits
from graphopt.compiler.report import Report
from graphopt.compiler.schedule import StepBalance
from graphopt.errors import (
    CalibrationError,
    CaptureError,
    EmptyInputError,
    InputCountError,
    InputError,
    PackageError,
)
from graphopt.frontend.capture import call_key
from graphopt.frontend.model_check import Compiled, check_model
from graphopt.funasr.auto_model.optimize import is_auto_model, optimize_auto_model
from graphopt.llm.options import LlmOptions
from graphopt.llm.readers.transformers_model import (
    is_causal_model,
    is_decoder,
    refuse_other_decoder,
)
from graphopt.passes.support.rounding import Rounding, check_rounding
from graphopt.runtime import process
from graphopt.runtime.library import check_threads
from graphopt.target import Target, find_target

MOST_FORMS = 8
"""How often a module captures its model for calls that differ in sizes alone."""


def optimize(
    model: torch.nn.Module,
    target: str | Target = "native",
    example_inputs: tuple[Any, ...] | dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    precision: str = "auto",
    num_threads: int | None = None,
    strict: bool = False,
    group_size: int | None = 32,
    activation_bits: int = 8,
    kv_cache: str | None = None,
    head: str = "auto",
    rounding: str = "nearest",
    calibration: Sequence[Any] | None = None,
    check: bool = True,
) -> Any:
    """Compiles a model for a target and returns a module that is called like it.

    A causal language model of transformers without example inputs gives an `OptimizedDecoder`
    (graphopt/llm/interface/generation.py), whose `generate` is that of transformers; a
    `funasr.AutoModel` gives an AutoModel with compiled parts inside; any other module an
    `OptimizedModule`.

    Args:
        model: any module in eval mode. It keeps its weights; the result does not follow changes.
        target: `native`, `neoverse-n2`, ... (`graphopt targets` lists them).
        example_inputs: positional arguments (tuple) or keyword arguments (dict); the model is
            captured at once. Without them it is captured at the first call, and again for a call of
            another structure, or with more where an axis behind the first had size 1.
        dynamic_shapes: sizes that vary, in the format of torch.export. By default the first axis of
            every tensor and every other one that the model leaves open.
        precision: `fp32`, `bf16`, `int8`, `int8+bf16`, `int4`, or `auto`: the fastest without int4
            that the target has matrix instructions for.
        num_threads: threads of a run; all CPUs that this process may use if None.
        strict: refuse a model of which a node would stay in torch.
        group_size: int4 weights that share a scale, a multiple of 32 up to 1024; None for one
            scale per channel.
        activation_bits: of activations where weights are int8 or int4: 8, or 16 for two int8 rows
            each, at twice the multiplications but reading the weights once.
        kv_cache: how a language model keeps keys and values: `f32`, `bf16`, or `int8` with a scale
            per token and head; by default f32 for `fp32` and bf16 otherwise.
        head: how a language model in int4 keeps its head and the embedding: `int8`, `int4`, `exact`
            (`graphopt.llm.options.LlmOptions`), or `auto`, int8 or with 16-bit activations
            exactly. One that serves as both is stored once.
        rounding: how weights become int4: `nearest`; `scale-search`, which chooses the scale of
            each block among many; or `gptq`, which makes up for errors in later weights. `report()`
            says what it cost.
        calibration: arrays of tokens for a language model, a few thousand in all: `gptq` needs
            them, `scale-search` weighs errors by what they excite.
        check: run the inputs of every capture through the model once and through what was compiled,
            and compare (`graphopt/compiler/example_check.py`). A plan for another architecture runs
            in numpy for that. A language model without example inputs is compared on a dozen tokens
            (`graphopt/llm/interface/logits_check.py`). `report()` says what was found.

    Raises:
        ModelError: if it is no module that can be captured, such as a file name.
        TrainingModeError, UnknownTargetError, UnknownPrecisionError, ThreadCountError: naming
            what is wrong.
        OptionError: for an option that the model does not use, or a value that it cannot have.
        CalibrationError: if calibration is missing, or makes no sense.
        CaptureError: if the model cannot be captured; names the line.
        UnsupportedNodesError: with `strict`, listing the nodes and the reasons.
        ExampleMismatchError: if `check` finds other results; names the first node that departs.
        NondeterministicModelError: if it finds that the model does not agree with itself.
    """
    options = {
        "target": target,
        "precision": precision,
        "example_inputs": example_inputs,
        "dynamic_shapes": dynamic_shapes,
        "strict": strict,
        "group_size": group_size,
        "activation_bits": activation_bits,
        "kv_cache": kv_cache,
        "head": head,
        "rounding": rounding,
        "calibration": calibration,
        "check": check,
    }
    check_values(options)
    found, threads = find_target(target), check_threads(num_threads)
    planned = found.precision(precision)
    check_activation_bits(activation_bits)
    check_rounding(rounding)
    if is_auto_model(model):
        refuse_unused(options, used_by_auto_model(planned), f"a FunASR AutoModel in {planned}")
        return optimize_auto_model(
            model,
            lambda part, inputs: optimize(
                part,
                found,
                inputs,
                precision=precision,
                num_threads=num_threads,
                strict=strict,
                group_size=group_size,
                activation_bits=activation_bits,
                rounding=rounding,
                check=check,
            ),
        )
    check_model(model)
    group = group_size or 0
    if example_inputs is None and is_decoder(model):
        from graphopt.llm.interface.generation import OptimizedDecoder

        refuse_unused(options, used_by_decoder(planned), f"a language model in {planned}")
        chosen = LlmOptions(
            found,
            precision,
            group,
            activation_bits,
            kv_cache=kv_cache,
            head=head,
            rounding=rounding,
            calibration=calibration,
        )
        return OptimizedDecoder(model, chosen, threads, check)
    asked = ("int4" in precision, kv_cache is not None, head != "auto", calibration is not None)
    if example_inputs is None and any(asked) and is_causal_model(model):
        refuse_other_decoder(model)
    if calibration is not None:
        raise CalibrationError("only language models of transformers are calibrated, by tokens")
    refuse_unused(options, used_by_module(planned), f"{type(model).__name__} in {planned}")
    chosen_options = Options(
        found,
        planned,
        threads,
        strict,
        dynamic_shapes,
        group,
        activation_bits,
        Rounding(rounding),
        check,
    )
    module = OptimizedModule(model, chosen_options)
    if isinstance(example_inputs, dict):
        module.prepare(**example_inputs)
    elif example_inputs is not None:
        module.prepare(*example_inputs)
    return module


class OptimizedModule(Compiled, torch.nn.Module):
    """A compiled model: the signature, structure and dtypes of the original.

    Attributes:
        options: what it was compiled with.
    """

    # As it is now: while a thread traces, torch.fx replaces that of the base class for all threads.
    __call__ = torch.nn.Module.__call__

    def __init__(self, model: torch.nn.Module, options: Options) -> None:
        super().__init__()
        # In a tuple, so that the model's parameters are not parameters of this module too.
        self._model = (model,)
        self.options = options
        self._forms: dict[tuple[Any, ...], list[Form]] = {}
        self._signature = inspect.signature(model.forward)
        self._capturing = threading.RLock()
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the compiled model.

        Raises:
            InputError: if an argument does not fit what was compiled.
        """
        form, args, kwargs = self._form(args, kwargs)
        return form.run(args, kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Captures and builds for calls of the form of these arguments."""
        self._form(args, kwargs)[0].build()

    def report(self) -> Report:
        """Every node: compiled or not, kernel, reasons."""
        rows = [row for form in self._captured() for row in form.reports()]
        options = self.options
        name = type(self._model[0]).__name__
        return Report(
            name,
            options.target.name,
            options.precision,
            options.target.levels,
            tuple(rows),
            tuple(form.checked or "example: not compared" for form in self._captured()),
        )

    def profile(self, *args: Any, repeats: int = 5, **kwargs: Any) -> list[dict[str, Any]]:
        """Median milliseconds, multiply-adds and bytes of every compiled step on this machine.

        Returns:
            One dict a step: `node`, `op`, `kernel`, `module`, `ms`, `macs`, `bytes`.
        """
        form, args, kwargs = self._form(args, kwargs)
        return form.profile(args, kwargs, repeats)

    def balance(self, *args: Any, cores: int, repeats: int = 5, **kwargs: Any) -> list[StepBalance]:
        """How evenly the tasks of every step fall on `cores` cores; see `schedule.py`.

        Raises:
            ThreadCountError: for less than one core.
        """
        check_threads(cores)
        form, args, kwargs = self._form(args, kwargs)
        return form.balance(args, kwargs, cores, repeats)

    def emulate(self, *args: Any, sve_bits: int = 128, level: str = "", **kwargs: Any) -> Any:
        """Runs the code built for the target, under qemu where this machine differs.

        Args:
            *args: arguments of the model.
            sve_bits: length of an SVE vector.
            level: ISA level; the most capable of the target if empty.
            **kwargs: arguments of the model.

        Raises:
            MissingEmulatorError: if qemu is not installed.
        """
        form, args, kwargs = self._form(args, kwargs)
        return form.emulate(args, kwargs, level, sve_bits)

    def interpret(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the planned graphs in numpy, op by op: slow, and without generated code.

        Weights and activations are quantized as in the compiled model, so that what differs from it
        is the fault of generated code or kernels, up to the order of float sums.

        Raises:
            InputError: as a call does.
        """
        form, args, kwargs = self._form(args, kwargs)
        return form.interpret(args, kwargs)

    def save(self, path: str | Path) -> None:
        """Writes a package that `graphopt.load` runs without torch and compiler.

        Args:
            path: the folder to make; an older package there is replaced, in one step.

        Raises:
            PackageError: if nothing, or more than one call form, was captured, if something that is
                no package is in the way, or if the system does not let the folder be written.
            UnsupportedNodesError: if a node needs torch.
        """
        forms = self._captured()
        if len(forms) != 1:
            raise PackageError(
                f"{len(forms)} call forms were captured and a package holds one; optimize with "
                "example_inputs= and save before other calls"
            )
        with process.changes:
            forms[0].save(path)

    def dump(self) -> str:
        """The planned graphs as text, with reasons."""
        return "\n".join(text for form in self._captured() for text in form.dumps())

    def _captured(self) -> list[Form]:
        return [form for forms in self._forms.values() for form in forms]

    def __copy__(self) -> OptimizedModule:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizedModule:
        """A module that shares the compiled code, which never changes."""
        copied = OptimizedModule(self._model[0], self.options)
        copied._forms.update({key: list(forms) for key, forms in self._forms.items()})
        return copied

    def __reduce__(self) -> Any:
        raise PackageError(
            "an optimized module cannot be pickled, because it holds machine code; write it with "
            ".save(path) and open it with graphopt.load(path), or pickle the original"
        )

    def _form(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Form, tuple[Any, ...], dict[str, Any]]:
        """The form of a call, and its arguments in the one order that the form knows."""
        args, kwargs = self._bind(args, kwargs)
        key = call_key(args, kwargs)
        form = self._find(key, args, kwargs)
        if form is None:
            form = self._capture(key, args, kwargs)
        return form, args, kwargs

    def _find(
        self, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Form | None:
        forms = self._forms.get(key, ())
        fitting = (form for form in forms if form.misfit(args, kwargs) is None)
        return next(fitting, None)

    def _bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keyword arguments become positional where the signature lets them."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            given = f"{len(args)} positional and {len(kwargs)} keyword arguments ({error})"
            raise InputCountError(str(self._signature), given) from None
        return bound.args, bound.kwargs

    @torch.compiler.disable(reason="graphopt captures with torch.export")  # type: ignore[no-untyped-call, untyped-decorator]
    def _capture(self, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Form:
        with process.calls, process.changes, self._capturing:
            form = self._find(key, args, kwargs)
            if form is not None:
                return form
            forms = self._forms.get(key, [])
            if not forms:
                self._refuse_near_miss(args, kwargs)
            misfit = forms[0].misfit(args, kwargs) if forms else None
            if misfit is not None and not self._may_differ(forms, misfit):
                raise misfit
            try:
                form = Form(self._model[0], args, kwargs, self.options)
            except CaptureError:
                if misfit is None:
                    raise
                raise misfit from None  # no model takes such sizes
            if (misfit := form.misfit(args, kwargs)) is not None:
                raise misfit
            if self.options.check:
                form.checked = check_example(self._model[0], form, args, kwargs)
            self._forms[key] = [*forms, form]
            return form

    def _may_differ(self, forms: list[Form], misfit: InputError) -> bool:
        """Whether sizes that no form was captured for may have a form of their own."""
        is_open = self.options.dynamic_shapes is None and not isinstance(misfit, EmptyInputError)
        return is_open and len(forms) < MOST_FORMS

    def _refuse_near_miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A mistake is no new form: another dtype or rank, or numbers where a tensor was."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
            kinds = ", ".join(type(a).__name__ for a in (*args, *kwargs.values())) or "nothing"
            raise InputCountError("at least one tensor", kinds)
        for form in self._captured():
            if form.call.in_spec == spec:
                form.check(leaves)
