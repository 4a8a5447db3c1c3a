"""All classes of models; a new one is a line here."""

from graphopt.llm.architectures.architecture import Architecture
from graphopt.llm.architectures.cuts import Cut
from graphopt.llm.architectures.granite import GRANITE
from graphopt.llm.architectures.helium import HELIUM
from graphopt.llm.architectures.llama import LLAMA
from graphopt.llm.architectures.mistral import MISTRAL
from graphopt.llm.architectures.phi3 import PHI3
from graphopt.llm.architectures.qwen2 import QWEN2
from graphopt.llm.architectures.qwen3 import QWEN3

ARCHITECTURES = (
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    PHI3,
    HELIUM,
    GRANITE,
)

#: By `model_type` of configurations of transformers.
IN_TRANSFORMERS: dict[str, Architecture] = {
    one.transformers.model_type: one for one in ARCHITECTURES if one.transformers
}
#: By `general.architecture` of GGUF files.
IN_GGUF: dict[str, Architecture] = {one.gguf.architecture: one for one in ARCHITECTURES if one.gguf}
#: By `tokenizer.ggml.pre` of GGUF files.
CUTS: dict[str, Cut] = {
    "default": Cut(),
    "gpt-2": Cut(),
    **{name: cut for one in ARCHITECTURES for name, cut in one.cuts.items()},
}
