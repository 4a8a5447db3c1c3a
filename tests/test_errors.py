"""Each error names the thing and the remedy."""

import inspect

import pytest

from graphopt import errors

EXAMPLES = [
    (errors.InputCountError("(x, lengths)", "1 argument"), ["(x, lengths)", "1 argument"]),
    (errors.InputDtypeError("x", "float32", "float64"), ["'x'", "float64", "convert it"]),
    (errors.InputRankError("x", ["B", "T", 560], [3, 560]), ["[B, T, 560]", "[3, 560]", "reshape"]),
    (errors.InputShapeError("x", 2, 560, 80), ["'x'", "axis 2", "560", "80", "dynamic_shapes"]),
    (errors.SizeError("T/2", "it is 5/2"), ["T/2", "5/2", "whole numbers"]),
    (errors.ModelError("'model.pt' is a name", "load the model"), ["model.pt", "load"]),
    (errors.InputLayoutError("argument[1]", "sparse_coo", "cpu"), ["argument[1]", ".to_dense()"]),
    (errors.InputOverlapError([2, 3]), ["[2, 3]", "shares memory", ".clone()"]),
    (errors.InputStridesError([1, 4], "m.py:3"), ["[1, 4]", "m.py:3", ".contiguous()"]),
    (errors.InputConditionError("not Eq(Mod(T, 2), 0)"), ["Eq(Mod(T, 2), 0)", "pad or cut"]),
    (errors.EmptyInputError("x", 1), ["'x'", "axis 1", "skip the call"]),
    (errors.InputValueError("speech_lengths", 167, 200), ["speech_lengths", "167", "200", "check"]),
    (errors.ModelDirectoryError("asr", "encoder: Zip"), ["asr", "encoder: Zip", "README"]),
    (errors.RecognizerOptionError("language", "fr", ["auto", "zh"]), ["language=fr", "auto, zh"]),
    (errors.UnsupportedFunasrModelError("Sond", ["Paraformer"]), ["Sond", "known are Paraformer"]),
    (errors.AudioFileError("a.wav", "8 bits"), ["a.wav", "8 bits", "ffmpeg"]),
    (errors.SamplesError("samples", "is a list", "make one"), ["samples", "a list", "make one"]),
    (errors.StreamEndedError("LiveStream"), ["LiveStream", "finished", "another"]),
    (errors.LoweringError("aten.exp", "m.py:3", "KeyError()"), ["aten.exp", "m.py:3", "report"]),
    (
        errors.TorchNodeError("aten.x", "m.py:3", ValueError("no")),
        ["aten.x at m.py:3", "no", "check"],
    ),
    (errors.RunError("no memory"), ["no memory", "fewer threads"]),
    (errors.InputFileError("a.npz", "not found"), ["a.npz", "not found", "--save-inputs"]),
    (errors.TrainingModeError("Sequential"), ["Sequential", "model.eval()"]),
    (errors.UnknownPrecisionError("int3", ["fp32", "int8"]), ["int3", "fp32, int8"]),
    (errors.SwitchError("GRAPHOPT_DEBUG", "x", "give 0"), ["GRAPHOPT_DEBUG='x'", "unset"]),
    (errors.OptionError("kv_cache", "f32", "leave it out"), ["kv_cache='f32'", "leave it out"]),
    (errors.UnknownStageError("fold", ["fold_scales"]), ["no pass 'fold'", "one of fold_scales"]),
    (errors.InspectionError("M", "no inputs; give some"), ["M: no inputs", "give some"]),
    (errors.ConstantsFileError("c.toml", "no clock"), ["c.toml: no clock", "calibrate"]),
    (errors.PlanError("ffn", "int9", "give one of fp32, int8"), ["'ffn' = 'int9'", "fp32, int8"]),
    (errors.StagesError("M"), ["graphs of M", "keep_stages()"]),
    (errors.ThreadCountError(-2, "num_threads", 9), ["num_threads is -2", "1 to 9, or None"]),
    (errors.OutOfMemoryError("9 bytes"), ["9 bytes", "smaller inputs"]),
    (errors.ThreadStartError(9), ["9 threads", "num_threads="]),
    (errors.LevelStartError("amx", "no tiles"), ["level amx", "no tiles", "leave amx out"]),
    (errors.PackageVersionError("x.gopt", "format 9", "1"), ["x.gopt", "format 9", "save"]),
    (errors.UnknownModelError("m", ["fsmn-vad"], "why"), ["'m'", "why", "fsmn-vad"]),
    (errors.MissingDependencyError("torch", "capture", "pip install t"), ["torch", "pip install"]),
    (errors.MissingCompilerError(["zig", "cc"], "neoverse-n2"), ["zig, cc", "neoverse-n2", "CC"]),
    (errors.CompilerError(["cc", "-O3"], "a.c:1: bad", "a.c"), ["cc -O3", "a.c:1: bad", "CC"]),
    (errors.MissingEmulatorError("qemu-aarch64"), ["qemu-aarch64", "apt-get install qemu-user"]),
    (errors.MissingToolError("llvm-mca-22", "llvm-22"), ["llvm-mca-22", "apt-get install llvm-22"]),
    (errors.PricingError("no function matches 'f'; is it stripped?"), ["'f'", "stripped"]),
    (errors.BenchmarkError("no kernel matches 'x'; there are a, b"), ["'x'", "there are a, b"]),
    (errors.PackageCorruptError("a.gopt", "short file"), ["a.gopt", "short file", ".save()"]),
    (errors.StorageError("/cache", "full", "GRAPHOPT_CACHE"), ["/cache", "full", "GRAPHOPT_CACHE"]),
    (errors.UntrustedPackageError("a.gopt", "unsigned"), ["a.gopt", "unsigned", "graphopt sign"]),
    (errors.SigningKeyError("k.pub", "short"), ["k.pub", "short", "graphopt keygen"]),
    (errors.PackageChangedError("a.gopt"), ["a.gopt", "load it again", ".save()"]),
    (errors.PackageTargetError("a.gopt", "sve2", "x86_64"), ["sve2", "x86_64", "--emulate"]),
    (errors.TokenRangeError(9, 8), ["token 9", "0 to 7", "tokenizer"]),
    (errors.ContextLengthError(9, 8), ["9 tokens", "context of 8", "shorten"]),
    (errors.EmptyPromptError(), ["empty", "one token"]),
    (errors.SamplingError("top_p", 2.0, "at most 1"), ["top_p=2.0", "at most 1"]),
    (errors.ChatTemplateError("no user"), ["no user", "take turns"]),
    (errors.PaddingError(1), ["sequence 1", "on the left"]),
    (errors.TextError("bad at 3"), ["UTF-8", "bad at 3", "surrogates"]),
    (errors.PositionError(1), ["sequence 1", "leave them out"]),
    (errors.UnsupportedArgumentError("labels", "is odd", "omit it"), ["labels is odd; omit it"]),
    (errors.CacheBusyError(), ["another thread", "its own"]),
    (errors.GroupSizeError(48, "down", 64), ["48", "down", "64", "multiple of 32"]),
    (errors.CalibrationError("it has no tokens"), ["no tokens", "calibration=", "tokenizer"]),
    (errors.UnsupportedDecoderError("M", "a bias", ["silu"]), ["M has a bias", "silu", "torch"]),
    (errors.ModelFileError("m.gguf", "cut off"), ["m.gguf", "cut off", "download"]),
    (errors.WeightError("w_1.weight"), ["w_1.weight", "NaN", "checkpoint"]),
    (errors.CaptureError("data-dependent if", "m.py:3", "use where"), ["m.py:3", "use where"]),
    (errors.ExampleMismatchError("M", "off", 1e-4, "%3"), ["M", "off", "%3", "check=False"]),
    (errors.NondeterministicModelError("M", "off"), ["M", "off", "random", "check=False"]),
    (errors.OnnxExportError("M", "no rule"), ["M", "no rule", "plain=False", ".save(path)"]),
    (errors.UnsupportedNodesError([("%3", "m.py:7", "no kernel")]), ["%3", "m.py:7", "no kernel"]),
    (errors.ProgramError(), ["another process", "keep it", ".save(path)"]),
    (errors.OnnxPartsError("M", ["aten.odd"], "no rule"), ["M", "aten.odd", "no rule", "change"]),
    (errors.OnnxModelError("m", "node 'a': no"), ["m", "node 'a': no", "export it again"]),
    (errors.OnnxNodesError("m", [("a", "If, opset 9", "no", "b")]), ["a (If, opset 9): no; b"]),
]


@pytest.mark.parametrize(("error", "parts"), EXAMPLES, ids=lambda v: type(v).__name__)
def test_message_names_thing_and_remedy(error: errors.GraphoptError, parts: list[str]) -> None:
    assert isinstance(error, errors.GraphoptError)
    assert [part for part in parts if part not in str(error)] == []
    assert "\n" not in str(error).strip().splitlines()[0]


def test_every_leaf_has_an_example() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    leaves = {c for c in classes if issubclass(c, errors.GraphoptError) and not c.__subclasses__()}
    assert leaves - {errors.UnknownTargetError} <= {type(error) for error, _ in EXAMPLES}


@pytest.mark.parametrize(
    ("name", "near"), [("neoverse_n2", "neoverse-n2"), ("Nativ", "native"), ("zzz", None)]
)
def test_unknown_target_suggests_the_nearest(name: str, near: str | None) -> None:
    text = str(errors.UnknownTargetError(name, ["native", "neoverse-n2", "neoverse-v1"]))
    assert text.endswith("Known targets: native, neoverse-n2, neoverse-v1")
    assert (f"did you mean {near!r}?" in text) if near else ("did you mean" not in text)


def test_built_in_bases() -> None:
    assert issubclass(errors.InputShapeError, ValueError)
    assert issubclass(errors.MissingDependencyError, ImportError)
    assert issubclass(errors.MissingEmulatorError, FileNotFoundError)
