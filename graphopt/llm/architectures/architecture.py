"""A class of models: what it is called in each format, and what its layers compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphopt.errors import UnsupportedDecoderError
from graphopt.llm.architectures.cuts import Cut
from graphopt.llm.architectures.unsupported import unsupported
from graphopt.llm.decoder.graph import DecoderGraph, DecoderShape
from graphopt.llm.decoder.traits import Traits

#: Parts of a layer (`DecoderGraph.extents`), and the tensors whose rows they are, one after the
#: other, without the place of the layer in front and `.weight` behind.
Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class InTransformers:
    """A class in the `transformers` library; its modules outside of layers are those of Llama.

    Attributes:
        model_type: of its configuration.
        layer: names of tensors below `model.layers.<n>`.
        traits: names of settings, by the trait that each says.
        settings: names of others that are read, beside those of all classes.
        interleaved: as of `InGguf`.
    """

    model_type: str
    layer: Names
    traits: Mapping[str, str] = field(default_factory=lambda: {"activation": "hidden_act"})
    settings: tuple[str, ...] = ()
    interleaved: bool = False


@dataclass(frozen=True)
class InGguf:
    """A class in GGUF files; keys and tensors outside of layers have the names of all classes.

    Attributes:
        architecture: `general.architecture`.
        layer: names of tensors below `blk.<n>`.
        interleaved: whether values that are rotated together are neighbours, and not half of the
            rotated width apart.
    """

    architecture: str
    layer: Names
    interleaved: bool = False


@dataclass(frozen=True)
class Architecture:
    """A class of models.

    Attributes:
        name: for people.
        transformers: its names there; None if it is not read from there. So for the others.
        gguf: its names in GGUF files.
        meta: names of tensors below `layers.<n>` in Meta's own checkpoints.
        cuts: what `tokenizer.ggml.pre` calls the cuts of text that came with this class.
        graph_class: writes the decoder graph.
        honours: traits of any value that the graph, or how weights are read, computes; others must
            be the defaults of `Traits`.
    """

    name: str
    transformers: InTransformers | None = None
    gguf: InGguf | None = None
    meta: Names | None = None
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    graph_class: type[DecoderGraph] = DecoderGraph
    honours: frozenset[str] = frozenset()

    def check(self, model: str, traits: Traits, shape: DecoderShape) -> None:
        """Refuses what the graph does not compute.

        Args:
            model: a name for errors.
            traits: of the model.
            shape: its sizes.

        Raises:
            UnsupportedDecoderError: naming the first such thing.
        """
        for trait, part, supported in unsupported(traits, shape):
            if trait not in self.honours:
                raise UnsupportedDecoderError(model, part, supported)
        for name in traits.unread:
            raise UnsupportedDecoderError(
                model, f"{name}, which no reader knows", (f"{self.name} as graphopt knows it",)
            )
