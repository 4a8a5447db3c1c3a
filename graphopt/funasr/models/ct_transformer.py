"""CTTransformer: punctuation of whole texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphopt.errors import PackageCorruptError
from graphopt.funasr.models.model_class import (
    Captured,
    Compile,
    ModelClass,
    ModelDirectory,
    Tokens,
    Understood,
)
from graphopt.funasr.text.punctuation import PunctuationConfig, mark_words
from graphopt.runtime.fields import Name
from graphopt.runtime.loaded import LoadedModule, open_module
from graphopt.runtime.sealed import SealedFolder

WORDS = 12  # of the example inputs


@dataclass(frozen=True)
class PunctuationPart:
    """What a package says of it.

    Attributes:
        tokens: the vocabulary.
        unknown: the word that stands for others.
        punctuation: the classes.
    """

    tokens: Tokens
    unknown: Name
    punctuation: PunctuationConfig

    def __post_init__(self) -> None:
        """Refuses an unknown word that is not there.

        Raises:
            ValueError: naming it.
        """
        if self.unknown not in self.tokens:
            raise ValueError(f"unk_symbol: {self.unknown!a:.60}, which is no token")


def _describe(directory: ModelDirectory, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokens": directory.tokens,
        "unknown": directory.unknown,
        "punctuation": asdict(PunctuationConfig.read(settings)),
    }


def _capture(model: Any, directory: ModelDirectory) -> Captured:
    import torch

    from graphopt.funasr.layers.ct_transformer import Marks

    text = torch.zeros(1, WORDS, dtype=torch.int64)
    return {"punc": (Marks(model), (text, torch.tensor([WORDS], dtype=torch.int32)))}


@dataclass(frozen=True)
class WordClassifier:
    """What stands behind words, by a CT-Transformer.

    Attributes:
        module: from token ids to classes of marks; of streams also from how many came before.
        ids: token ids of words.
        unknown: the id of other words.
        config: the classes.
    """

    module: LoadedModule
    ids: dict[str, int]
    unknown: int
    config: PunctuationConfig

    def _classify(self, words: list[str], *before: int) -> list[int]:
        ids = np.array([[self.ids.get(word, self.unknown) for word in words]])
        counts = (np.array([count]) for count in before)
        classes = self.module(ids, np.array([len(words)], np.int32), *counts)
        if int(classes.max(initial=0)) >= len(self.config.marks):
            raise PackageCorruptError(self.module.path, f"class {classes.max()} has no mark")
        return [int(c) for c in classes[0]]


class Punctuator(WordClassifier):
    """Punctuation of whole texts."""

    def punctuate(self, text: str) -> str:
        """The text with punctuation marks and capitals; without any if it has no word."""
        return self.mark(text)[0]

    def mark(self, text: str) -> tuple[str, list[int]]:
        """The same, and the class of what follows each of the words that `split_words` finds."""
        marked, classes = mark_words(text, self._classify, self.config)
        return marked.strip(), classes

    def stream(self) -> Punctuator:
        """What punctuates one text after the other: each by itself."""
        return self


def open_classifier(
    package: SealedFolder, part: PunctuationPart, threads: int | None
) -> tuple[LoadedModule, dict[str, int], int, PunctuationConfig]:
    """The attributes of a `WordClassifier`.

    Args:
        package: of the model.
        part: what it says besides its graph.
        threads: of a run; all CPUs if None.
    """
    ids = {token: i for i, token in enumerate(part.tokens)}
    return open_module(package.folder("punc"), threads), ids, ids[part.unknown], part.punctuation


def _open(package: SealedFolder, part: PunctuationPart, threads: int | None) -> Punctuator:
    return Punctuator(*open_classifier(package, part, threads))


def _compile_parts(model: Any, compile_part: Compile) -> None:
    import torch

    from graphopt.funasr.layers.ct_transformer import Punctuation

    text = torch.zeros(1, WORDS, dtype=torch.int64)
    lengths = torch.tensor([WORDS], dtype=torch.int32)
    compiled = compile_part(Punctuation(model), (text, lengths))
    model.punc_forward = lambda text, text_lengths: (
        compiled(text.long(), text_lengths.to(torch.int32)),
        None,
    )


MODEL = ModelClass(
    name="CTTransformer",
    task="punc",
    understood=Understood(
        ("funasr.models.ct_transformer.model", "funasr.models.sanm.encoder"),
        {"encoder": ("SANMEncoder",), "tokenizer": ("CharTokenizer",)},
        passed=("jieba_usr_dict",),
    ),
    part=PunctuationPart,
    describe=_describe,
    capture=_capture,
    open=_open,
    compile_parts=_compile_parts,
)
