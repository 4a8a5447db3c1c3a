"""A compiled decoder behind the interface of transformers: `forward` and `generate`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from graphopt.errors import InputShapeError, PaddingError
from graphopt.llm.cache import KeyValueCache
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.from_transformers import read_decoder
from graphopt.llm.options import LlmOptions
from graphopt.report import Report, node_reports


class DecoderCache(Cache):
    """What `generate` hands from call to call: the sequences of an `OptimizedDecoder`.

    Attributes:
        rows: keys and values; None until the first call says how many sequences there are.
    """

    is_compileable = False

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.rows: KeyValueCache | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen, padding included."""
        return 0 if self.rows is None else self.rows.length

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """Tokens that fit; -1 while that is not known."""
        return -1 if self.rows is None else self.rows.context

    def crop(self, max_length: int) -> None:
        """Forgets the tokens from `max_length` on; a negative number forgets that many."""
        if self.rows is not None:
            self.rows.crop(max_length)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Sequence i becomes what sequence `indices[i]` was; there may be fewer or more of them."""
        if self.rows is not None:
            self.rows = self.rows.select(indices.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence becomes `repeats` ones that continue it."""
        if self.rows is not None:
            self.rows = self.rows.select(
                [i // repeats for i in range(self.rows.sequences * repeats)]
            )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Sequence i becomes what sequence `beam_idx[i]` was."""
        if self.rows is not None:
            self.rows.reorder(beam_idx.tolist())

    def reset(self) -> None:
        """Forgets everything."""
        self.rows = None


class OptimizedDecoder(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """A compiled causal language model: `generate` is that of transformers.

    Args:
        model: a causal language model of transformers (graphopt/llm/from_transformers.py).
        options: what to compile for.
        threads: of a run; all CPUs of the process if None.

    Attributes:
        engine: the decoder for numpy.
        program: the compiled graph.

    Raises:
        UnsupportedDecoderError: naming what the graph cannot express.
    """

    main_input_name = "input_ids"

    def __init__(self, model: Any, options: LlmOptions, threads: int | None = None) -> None:
        own = copy.deepcopy(model.config)
        own._attn_implementation = "eager"  # the one that transformers lets every class have
        super().__init__(own)
        self.generation_config = copy.deepcopy(model.generation_config)
        self.program, self.engine = compile_decoder(read_decoder(model), options, threads)
        self.eval()  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits."""
        return torch.float32

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: DecoderCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **unused: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of new tokens.

        Args:
            input_ids: i64 [batch, new tokens].
            attention_mask: [batch, all tokens], 0 for padding before a prompt; None for none.
            past_key_values: what earlier calls left; it grows. A new one if None.
            use_cache: whether to return the cache.
            logits_to_keep: how many of the last tokens get logits, or which; 0 for all.
            unused: arguments of transformers that say the same again, such as position_ids.

        Raises:
            InputError: for tokens, masks and lengths that do not fit.
        """
        cache = past_key_values if past_key_values is not None else DecoderCache()
        batch, count = input_ids.shape
        rows = cache.rows if cache.rows is not None else self.engine.new_cache(batch)
        if rows.sequences != batch:
            raise InputShapeError("input_ids", 0, rows.sequences, batch)
        if attention_mask is not None:
            rows.start = _padding(attention_mask)
        kept = _kept(logits_to_keep, count)
        wanted = (np.arange(batch, dtype=np.int64)[:, None] * count + kept).reshape(-1)
        logits = self.engine.forward(input_ids.numpy(), rows, wanted)
        cache.rows = rows
        return CausalLMOutputWithPast(
            logits=torch.from_numpy(logits.reshape(batch, len(kept), -1)),
            past_key_values=cache if use_cache is not False else None,
        )

    def report(self) -> Report:
        """Every node: kernel and reasons."""
        graph, target = self.program.graph, self.program.target
        rows = tuple(node_reports(graph))
        return Report(graph.name, target.name, self.program.precision, target.levels, rows)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """No: `forward` makes the cache, because only it knows the number of sequences."""
        return False


def _kept(logits_to_keep: int | torch.Tensor, count: int) -> np.ndarray[Any, Any]:
    """Indices of the tokens that get logits."""
    every: np.ndarray[Any, Any] = np.arange(count, dtype=np.int64)
    if isinstance(logits_to_keep, torch.Tensor):
        every = every[logits_to_keep.numpy()]
        return every
    return every[-logits_to_keep:]


def _padding(mask: torch.Tensor) -> np.ndarray[Any, Any]:
    """Number of hidden tokens before each sequence."""
    shown = mask.numpy() != 0
    start = shown.argmax(1)
    for sequence, first in enumerate(start):
        if not shown[sequence, first:].all():
            raise PaddingError(sequence)
    padding: np.ndarray[Any, Any] = start.astype(np.int64)
    return padding
