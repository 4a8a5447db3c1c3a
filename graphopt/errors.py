"""Errors that graphopt raises on purpose: each names the thing and the remedy.

Everything derives from :class:`GraphoptError`, so ``except GraphoptError`` catches what graphopt
refuses and nothing else. Classes that report a bad value also derive from the built-in error that a
Python programmer expects (``ValueError``, ``ImportError``, ``FileNotFoundError``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class GraphoptError(Exception):
    """Base class of every error that graphopt raises on purpose."""


class InputError(GraphoptError, ValueError):
    """A value given to a compiled module does not fit what it was compiled for."""


class InputCountError(InputError):
    """A call with too few or too many arguments, or of another structure."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(
            f"the compiled module takes {expected}, but was called with {got}; "
            "call it as the original model is called"
        )


class InputDtypeError(InputError):
    """An input of another dtype than the compiled one."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(
            f"input {name!r} has dtype {got}, compiled for {expected}; "
            f"convert it to {expected} or optimize the model again with such an example input"
        )


class InputLayoutError(InputError):
    """A tensor that is not dense memory of the CPU."""

    def __init__(self, where: str, kind: str, device: str) -> None:
        super().__init__(
            f"{where} is a {kind} tensor on {device}; graphopt computes with dense tensors on the "
            "CPU: give .to_dense() or .cpu() of it"
        )


class InputStridesError(InputError):
    """A tensor with gaps, or axes in another order, for a model that asks about that."""

    def __init__(self, strides: Sequence[int], where: str) -> None:
        super().__init__(
            f"an input has the strides {list(strides)}; at {where} the model asks how a tensor "
            "lies in memory, and was captured with contiguous ones: give .contiguous() of it"
        )


class InputOverlapError(InputError):
    """A tensor that the model writes to in place, and that shares memory with another one."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(
            f"the model writes in place to a tensor of shape {list(shape)}, which shares memory "
            "with another one of this call; give .clone() of it"
        )


class InputRankError(InputError):
    """An input with another number of dimensions than the compiled one."""

    def __init__(self, name: str, expected: Sequence[object], got: Sequence[int]) -> None:
        super().__init__(
            f"input {name!r} has {len(got)} dimensions {_shape(got)}, compiled for "
            f"{len(expected)}: {_shape(expected)}; reshape it"
        )


class InputShapeError(InputError):
    """A fixed or shared dimension of another size than the compiled one."""

    def __init__(self, name: str, axis: int, expected: object, got: int) -> None:
        super().__init__(
            f"input {name!r} has size {got} along axis {axis}, compiled for {expected}; "
            "give that size, or make the dimension dynamic with dynamic_shapes="
        )


class InputConditionError(InputError):
    """Sizes that break a condition under which the model was captured.

    Args:
        text: the condition, over named dims.
        names: of the inputs.
        shapes: their extents, in which the dims have their names.
    """

    def __init__(
        self, text: str, names: Sequence[str] = (), shapes: Sequence[Sequence[object]] = ()
    ) -> None:
        places: dict[str, str] = {}
        for name, shape in zip(names, shapes, strict=False):
            for axis, extent in enumerate(shape):
                places.setdefault(str(extent), f"axis {axis} of {name!r}")
        dims = [dim for dim in dict.fromkeys(re.findall(r"[A-Za-z_]\w*", text)) if dim in places]
        where = ", ".join(f"{dim} is {places[dim]}" for dim in dims)
        super().__init__(
            f"{text}{f' ({where})' if where else ''}, as the model was captured; pad or cut the "
            "inputs to sizes that do, or capture it with an example of these sizes"
        )


class EmptyInputError(InputError):
    """A dynamic dimension of size zero."""

    def __init__(self, name: str, axis: int) -> None:
        super().__init__(
            f"input {name!r} is empty: size 0 along axis {axis}; "
            "skip the call for an empty batch or recording"
        )


class InputFileError(InputError):
    """A file of input arrays that cannot be read."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"cannot read arrays from {path}: {reason}; give an .npy file, or an .npz file as "
            "graphopt optimize --save-inputs writes it"
        )


class TokenRangeError(InputError):
    """A token that is not in the vocabulary of a decoder."""

    def __init__(self, token: int, vocabulary: int) -> None:
        super().__init__(
            f"token {token} is not in the vocabulary, which has the tokens 0 to {vocabulary - 1}; "
            "use the tokenizer that belongs to the model"
        )


class ContextLengthError(InputError):
    """More tokens than the context of a decoder holds."""

    def __init__(self, wanted: int, context: int) -> None:
        super().__init__(
            f"{wanted} tokens do not fit the context of {context}; shorten the prompt, ask for "
            "fewer new tokens, or crop the cache"
        )


class EmptyPromptError(InputError):
    """A prompt without tokens."""

    def __init__(self) -> None:
        super().__init__("the prompt is empty; give at least one token of text")


class SamplingError(InputError):
    """A setting of sampling that makes no sense."""

    def __init__(self, setting: str, value: float, allowed: str) -> None:
        super().__init__(f"{setting}={value} is no way to choose tokens; give {allowed}")


class ChatTemplateError(InputError):
    """A conversation that the chat template of a model does not take."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the model's chat template does not take these messages: {reason}; start with the "
            "system or the user, and let user and assistant take turns"
        )


class TextError(InputError):
    """A text that cannot be encoded."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the text cannot be written as UTF-8: {reason}; remove lone surrogates")


class PaddingError(InputError):
    """An attention mask that hides more than padding before the prompt."""

    def __init__(self, sequence: int) -> None:
        super().__init__(
            f"the attention mask of sequence {sequence} is not that of causal attention behind "
            "padding on the left; pad prompts there (tokenizer.padding_side = 'left'), and let the "
            "mask of a later call begin with that of the first"
        )


class PositionError(InputError):
    """Positions that a rotary embedding of a decoder does not count."""

    def __init__(self, sequence: int) -> None:
        super().__init__(
            f"the position_ids of sequence {sequence} do not go up by one from token to token, "
            "cached ones included; leave them out of every call, or count tokens behind padding"
        )


class UnsupportedArgumentError(InputError):
    """An argument of transformers that a compiled language model cannot honour."""

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"{name} {reason}; {remedy}")


class InputValueError(InputError):
    """Input values that contradict the shapes of the inputs, or an index out of range."""

    def __init__(self, text: str, expected: int, got: int) -> None:
        super().__init__(
            f"{text} (expected {expected}, got {got}); check the lengths and indices passed in"
        )


class ModelDirectoryError(GraphoptError, ValueError):
    """A FunASR model directory that lacks something, or says what is not understood."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(
            f"model directory {path}: {problem}; graphopt reads what FunASR's own export takes, "
            "see the list of models in the README"
        )


class SamplesError(InputError):
    """What is given as the samples of a signal, and is something else."""

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        super().__init__(f"{name}: it {problem}; {remedy}")


class StreamEndedError(InputError):
    """A stream that is fed or finished again after its end."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"this {stream} has been finished; make another for the next signal")


class AudioFileError(InputError):
    """A recording that is not there, or cannot be read as it is."""

    def __init__(
        self,
        path: object,
        problem: str,
        remedy: str = "convert it with ffmpeg -i IN -ac 1 -ar 16000 OUT.wav",
    ) -> None:
        super().__init__(f"recording {path}: {problem}; {remedy}")


class RecognizerOptionError(InputError):
    """What a recognizer is told to do and cannot."""

    def __init__(self, option: str, value: object, allowed: Iterable[object]) -> None:
        super().__init__(
            f"this recognizer takes no {option}={value}; it takes {', '.join(map(str, allowed))}"
        )


class UnsupportedFunasrModelError(GraphoptError, ValueError):
    """An AutoModel that holds a model without compiled parts."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"FunASR's {name} cannot be optimized as part of an AutoModel; known are "
            f"{', '.join(known)}; optimize its encoder as a module instead"
        )


class RunError(GraphoptError, RuntimeError):
    """The runtime could not get memory or threads for a run."""

    def __init__(self, text: str) -> None:
        super().__init__(f"the run failed: {text}; free memory or ask for fewer threads")


class OutOfMemoryError(RunError, MemoryError):
    """Memory that weights, a context or a run needs and the system does not give."""

    def __init__(self, text: str) -> None:
        GraphoptError.__init__(
            self,
            f"out of memory: {text}; free memory, raise the process's limit (ulimit -v), or give "
            "smaller inputs",
        )


class ThreadStartError(RunError):
    """Threads that the system does not let the process start."""

    def __init__(self, threads: int) -> None:
        wanted = f"{threads} threads" if threads else "a thread for each CPU"
        GraphoptError.__init__(
            self,
            f"the system does not let this process start {wanted}; ask for fewer with "
            "num_threads=, or raise its limit (ulimit -u, pids.max of the container)",
        )


class TorchNodeError(GraphoptError, RuntimeError):
    """An op that runs in torch, and that torch refuses to run."""

    def __init__(self, op: str, place: str, error: Exception) -> None:
        super().__init__(
            f"{op}{f' at {place}' if place else ''} runs in torch, which says: {error}; check the "
            "values, sizes and indices passed in"
        )


class LevelStartError(GraphoptError, RuntimeError):
    """An ISA level that the CPU has and the system does not let this process use."""

    def __init__(self, level: str, reason: str) -> None:
        super().__init__(
            f"the level {level} cannot start in this process: {reason}; have the system allow it, "
            f"or compile for a graphopt.Target whose levels leave {level} out"
        )


class ModelError(GraphoptError, TypeError):
    """Something that is not a module that can be compiled."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")


class TrainingModeError(GraphoptError, ValueError):
    """A model in training mode, whose dropout and batch norm would be frozen wrongly."""

    def __init__(self, module: str, path: str = "") -> None:
        where = f"{module}, the submodule {path!r}," if path else module
        super().__init__(f"{where} is in training mode; call model.eval() before graphopt.optimize")


class UnknownTargetError(GraphoptError, ValueError):
    """A target name that graphopt does not know; lists all names and suggests the nearest."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(f"unknown target {name!r}{hint} Known targets: {', '.join(names)}")


class UnknownPrecisionError(GraphoptError, ValueError):
    """A precision name that graphopt does not know, or that the target cannot run."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown precision {name!r}; choose one of {', '.join(known)}")


class OptionError(GraphoptError, ValueError):
    """An option that the model does not use, or with a value that it cannot have."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        text = " ".join(repr(value).split())
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        super().__init__(f"option {name}={shown}: {remedy}")


class PlanError(GraphoptError, ValueError):
    """An entry of a plan of precisions that names nothing, or a precision that cannot be."""

    def __init__(self, name: str, given: object, problem: str) -> None:
        entry = f"{name!r} = {given!r:.80}" if name else f"{given!r:.200}"
        super().__init__(f"plan: {entry}: {problem}")


class SwitchError(GraphoptError, ValueError):
    """An environment variable of graphopt with a value that it cannot have."""

    def __init__(self, name: str, value: str, problem: str) -> None:
        super().__init__(f"{name}={value!r}: {problem}; change or unset the variable")


class UnknownStageError(GraphoptError, KeyError):
    """A pass by a name that none of those that ran has."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"; near it are {', '.join(near)}" if near else ""
        super().__init__(f"no pass {name!r} ran{hint}; give one of {', '.join(known)}")

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError shows it in quotes


class StagesError(GraphoptError):
    """The graphs between passes of something that was compiled without keeping them."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the graphs of {what} after each pass were not kept, and cannot be made again without "
            "example_inputs= and the same weights; compile it inside `with graphopt.keep_stages():`"
        )


class InspectionError(GraphoptError, ValueError):
    """A model of which a tool that looks into it cannot tell what it is asked."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"{model}: {reason}")


class ConstantsFileError(GraphoptError, ValueError):
    """A file of a machine's constants that says what is not understood."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"constants {path}: {reason}; graphopt calibrate writes such files")


class ThreadCountError(GraphoptError, ValueError):
    """A number of threads that no run can have."""

    def __init__(self, given: object, name: str, most: int) -> None:
        super().__init__(f"{name} is {given!r:.50}; give 1 to {most}, or None for all CPUs")


class UnknownModelError(GraphoptError, ValueError):
    """A model name at the command line that is neither known nor ``module:function``."""

    def __init__(self, name: str, known: Iterable[str], reason: str) -> None:
        super().__init__(
            f"no model {name!r}: {reason}; give one of {', '.join(known)}, or module:function, "
            "where the function returns (model, example_inputs)"
        )


class MissingDependencyError(GraphoptError, ImportError):
    """A Python package that an optional part of graphopt needs is not installed."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs the Python package {package!r}; install it: {install}")
        self.package = package


class MissingCompilerError(GraphoptError, FileNotFoundError):
    """No C compiler that can build for the target was found."""

    def __init__(self, tried: Iterable[str], target: str) -> None:
        super().__init__(
            f"no C compiler for {target} (tried: {', '.join(tried)}); "
            "install the ziglang wheel (pip install 'graphopt[compile]') or name a compiler in CC"
        )


class CompilerError(GraphoptError):
    """The C compiler ran and failed; carries its command line and output.

    Attributes:
        command: The command line that failed.
        output: What the compiler printed.
    """

    def __init__(self, command: Sequence[str], output: str, source: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-20:])
        super().__init__(
            f"the C compiler failed on {source}; the command was\n  {' '.join(command)}\n"
            f"and it said\n{tail}\n"
            "a compiler named in CC must know the target's instructions; without CC ziglang is used"
        )
        self.command = list(command)
        self.output = output


class StorageError(GraphoptError, OSError):
    """A file of graphopt's own that the system did not let it write."""

    def __init__(self, folder: object, reason: object, variable: str) -> None:
        super().__init__(
            f"cannot write to {folder}: {reason}; make room there, or name another folder in "
            f"{variable}"
        )


class MissingEmulatorError(GraphoptError, FileNotFoundError):
    """The user-mode emulator of another architecture is not installed."""

    def __init__(self, emulator: str) -> None:
        super().__init__(
            f"{emulator} is not installed; on Debian and Ubuntu: apt-get install qemu-user"
        )


class MissingToolError(GraphoptError, FileNotFoundError):
    """A program that is no Python package and that this machine lacks."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(
            f"{tool} is not installed; on Debian and Ubuntu: apt-get install {package}"
        )


class PricingError(GraphoptError, ValueError):
    """A program, function or core whose cycles cannot be estimated."""

    def __init__(self, text: str) -> None:
        super().__init__(f"cannot price: {text}")


class BenchmarkError(GraphoptError, ValueError):
    """A benchmark that was asked for something it does not have."""

    def __init__(self, text: str) -> None:
        super().__init__(f"cannot measure: {text}")


class ProgramError(GraphoptError):
    """A graph of torch that calls what was compiled in another process, or is gone."""

    def __init__(self) -> None:
        super().__init__(
            "this graph calls an optimized module of another process, or one that is gone; export "
            "the module where it is called and keep it, or write a package with .save(path)"
        )


class PackageError(GraphoptError):
    """A .gopt package that cannot be used."""


class PackageCorruptError(PackageError):
    """A package with a missing, truncated or altered file, or a manifest that makes no sense."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"package {path} is damaged: {reason}; copy it again or save it again with .save()"
        )


class PackageChangedError(PackageError):
    """A package that was written to while it is in use."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"package {path} was changed in place while it is open; load it again, and replace a "
            "package as a whole, as .save() does"
        )


class PackageVersionError(PackageError):
    """A package that another version of graphopt wrote, and this one does not read."""

    def __init__(self, path: object, found: str, known: str) -> None:
        super().__init__(
            f"package {path} has {found}, this graphopt has {known}; save the package again with "
            "this graphopt, or load it with the one that wrote it"
        )


class UntrustedPackageError(PackageError):
    """A package that no trusted key signed as it is."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"package {path} is not trusted: {reason}; let the owner of a trusted key sign it "
            "(graphopt sign), or load it without trusted_keys"
        )


class SigningKeyError(GraphoptError, ValueError):
    """A key that cannot be used for signatures."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(
            f"cannot use the key {key}: {reason}; give PEM files of ed25519 without a passphrase, "
            "as graphopt keygen makes them"
        )


class PackageTargetError(PackageError):
    """A package built for a CPU whose instructions this machine does not have."""

    def __init__(self, path: object, needs: str, has: str) -> None:
        super().__init__(
            f"package {path} is built for {needs}, this machine is {has}; "
            "optimize the model for this machine, or run it with graphopt run --emulate"
        )


class CacheBusyError(GraphoptError, RuntimeError):
    """Two threads that decode with one cache."""

    def __init__(self) -> None:
        super().__init__(
            "another thread decodes with this cache; wait for it, or give each thread its own"
        )


class GroupSizeError(GraphoptError, ValueError):
    """A block length for int4 weights that no kernel has, or that does not divide a depth."""

    def __init__(self, group: int, weight: str, depth: int) -> None:
        super().__init__(
            f"group_size {group} does not fit {weight}, whose depth is {depth}; give a multiple of "
            "32 that divides it, or None for one scale per channel"
        )


class CalibrationError(GraphoptError, ValueError):
    """Calibration that is missing or no text of the model."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"cannot calibrate: {reason}; give calibration= lists or arrays of token numbers, as "
            "the model's tokenizer makes them of a few thousand words"
        )


class UnsupportedDecoderError(GraphoptError, ValueError):
    """A language model with a part that the decoder graph cannot express."""

    def __init__(self, model: str, part: str, supported: Iterable[str]) -> None:
        super().__init__(
            f"{model} has {part}, which graphopt does not compile (it does "
            f"{', '.join(supported)}); "
            "run it as it is, or compile its forward, a torch module, with example_inputs="
        )


class ModelFileError(GraphoptError, ValueError):
    """A file of a language model that is damaged, or of a kind that is not read."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(
            f"cannot read the model {path}: {reason}; download it again, or convert it from its "
            "original to a kind that is read"
        )


class SizeError(GraphoptError, ValueError):
    """A size, or a condition on sizes, that generated code cannot compute."""

    def __init__(self, size: object, reason: str) -> None:
        super().__init__(
            f"the size {size} cannot be computed: {reason}; compute sizes with whole numbers and "
            "+, -, *, //, %, max and min, or fix that axis with dynamic_shapes"
        )


class WeightError(GraphoptError, ValueError):
    """A weight with NaN or infinity, which cannot be quantized."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"weight {name!r} contains NaN or infinity; repair the checkpoint, "
            "or optimize with precision='fp32' to compute with it as it is"
        )


class CaptureError(GraphoptError):
    """A model that neither torch.export nor torch.fx can capture."""

    def __init__(self, what: str, location: str | None, remedy: str) -> None:
        where = f" at {location}" if location else ""
        super().__init__(f"cannot capture {what}{where}; {remedy}")
        self.location = location


class LoweringError(GraphoptError):
    """A fault of graphopt's own: a rule that turns an operator into kernels failed."""

    def __init__(self, op: str, location: str, cause: str) -> None:
        where = f" at {location}" if location else ""
        super().__init__(
            f"the rule for {op}{where} failed: {cause}; this is a fault of graphopt, please report "
            "it; until then move that operator out of the module that you optimize"
        )


class OnnxExportError(GraphoptError):
    """A model that has no form in plain ONNX."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(
            f"{model} has no plain form in ONNX: {reason}; write it with .to_onnx(path, "
            "plain=False), or save a package with .save(path)"
        )


class OnnxPartsError(GraphoptError):
    """A model of which torch runs something that it does not write as ONNX."""

    def __init__(self, model: str, ops: Sequence[str], reason: str) -> None:
        super().__init__(
            f"{model} cannot be written as ONNX: torch runs {', '.join(ops)} of it, and does not "
            f"export that ({reason}); change the model there, or call it in torch"
        )


class UnsupportedNodesError(GraphoptError):
    """``strict=True`` and some nodes would run in torch; lists each with place and reason.

    Attributes:
        nodes: One (node, place in the model, reason) for each node left in torch.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[str, str, str]],
        remedy: str = "drop strict=True to run them in torch",
    ) -> None:
        lines = "\n".join(f"  {node} ({place}): {reason}" for node, place, reason in nodes)
        super().__init__(
            f"{len(nodes)} nodes cannot be compiled:\n{lines}\nchange the model there, or {remedy}"
        )
        self.nodes = list(nodes)


class OnnxModelError(GraphoptError, ValueError):
    """An ONNX model that is damaged, contradicts itself, or needs what is not there."""

    def __init__(self, model: object, problem: str) -> None:
        super().__init__(
            f"ONNX model {model}: {problem}; export it again, or check the file with "
            "onnx.checker.check_model"
        )


class OnnxNodesError(GraphoptError):
    """Nodes of an ONNX model that cannot be compiled; lists all of them.

    Attributes:
        nodes: One (node, op with its opset, reason, nearest form that is compiled) for each.
    """

    def __init__(self, model: object, nodes: Sequence[tuple[str, str, str, str]]) -> None:
        lines = "\n".join(
            f"  {node} ({op}): {reason}" + (f"; {nearest}" if nearest else "")
            for node, op, reason, nearest in nodes
        )
        super().__init__(
            f"{len(nodes)} nodes of the ONNX model {model} cannot be compiled:\n{lines}\n"
            "export the model without them, or run those parts of it in onnxruntime"
        )
        self.nodes = list(nodes)


class ExampleMismatchError(GraphoptError):
    """A compiled module whose results on the inputs of a check are not the model's."""

    def __init__(self, model: str, difference: str, bound: float, culprit: str) -> None:
        super().__init__(
            f"the compiled {model} does not agree with the model: "
            f"{difference} (bound {bound:g}); {culprit}; report this as a defect of graphopt, "
            "choose a more exact precision=, or pass check=False to get the module as it is"
        )


class NondeterministicModelError(GraphoptError):
    """A model of which two runs on the same example inputs differ."""

    def __init__(self, model: str, difference: str) -> None:
        super().__init__(
            f"{model} does not agree with itself: {difference} in a second run on the same inputs; "
            "remove what is random from its forward, or pass check=False"
        )


def _shape(dims: Sequence[object]) -> str:
    return "[" + ", ".join(str(d) for d in dims) + "]"
