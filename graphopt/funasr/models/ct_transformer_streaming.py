"""CTTransformerStreaming: punctuation of texts that go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphopt.funasr.models import ct_transformer
from graphopt.funasr.models.ct_transformer import PunctuationPart, WordClassifier, open_classifier
from graphopt.funasr.models.model_class import Captured, Compile, ModelDirectory, Understood
from graphopt.funasr.text.punctuation import PunctuationStream
from graphopt.runtime.sealed import SealedFolder

_WORDS = ct_transformer.WORDS


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.ct_transformer import StreamingMarks

    text = torch.zeros(1, _WORDS, dtype=torch.int64)
    lengths, before = torch.tensor([_WORDS], dtype=torch.int32), torch.tensor([_WORDS // 2])
    return {"punc": (StreamingMarks(model), (text, lengths, before))}


class StreamingPunctuator(WordClassifier):
    """Punctuation of texts that go on."""

    def punctuate(self, text: str) -> str:
        """A text with punctuation marks, but for one at its end."""
        return self.stream().punctuate(text)

    def stream(self) -> PunctuationStream:
        """What punctuates the pieces of one text."""
        return PunctuationStream(self._classify, self.config)


def _open(package: SealedFolder, part: PunctuationPart, threads: int | None) -> StreamingPunctuator:
    return StreamingPunctuator(*open_classifier(package, part, threads))


def _compile_parts(model: Any, compile_part: Compile) -> None:
    import torch

    from graphopt.funasr.layers.ct_transformer import StreamingPunctuation

    text = torch.zeros(1, _WORDS, dtype=torch.int64)
    lengths, before = torch.tensor([_WORDS], dtype=torch.int32), torch.tensor([_WORDS // 2])
    compiled = compile_part(StreamingPunctuation(model), (text, lengths, before))
    model.punc_forward = lambda text, text_lengths, vad_indexes: (
        compiled(text.long(), text_lengths.to(torch.int32), vad_indexes.long()),
        None,
    )


MODEL = replace(
    ct_transformer.MODEL,
    name="CTTransformerStreaming",
    understood=Understood(
        (
            "funasr.models.ct_transformer_streaming.model",
            "funasr.models.ct_transformer_streaming.encoder",
        ),
        {"encoder": ("SANMVadEncoder",), "tokenizer": ("CharTokenizer",)},
        passed=("jieba_usr_dict",),
    ),
    capture=_capture,
    open=_open,
    compile_parts=_compile_parts,
)
