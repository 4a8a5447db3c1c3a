"""A compiled decoder behind the interface of transformers: `forward` and `generate`.

Whatever a call gives is honoured, or refused by name (graphopt/llm/interface/call_arguments.py).
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, NoReturn

import numpy as np
import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutputWithPast

from graphopt.compiler.options import Options
from graphopt.compiler.report import Report, node_reports
from graphopt.errors import (
    InputShapeError,
    PaddingError,
    PositionError,
    UnsupportedArgumentError,
)
from graphopt.frontend.compiled import Compiled
from graphopt.llm.compiled import check_kinds, compile_decoder
from graphopt.llm.generate.cache import KeyValueCache
from graphopt.llm.interface import call_arguments
from graphopt.llm.interface.logits_check import check_logits
from graphopt.llm.readers.transformers_model import read_decoder
from graphopt.runtime import process

Array = np.ndarray[Any, Any]

#: What transformers calls the cache among arguments and outputs; renamed during version 5.
CACHE = (
    "cache"
    if "cache" in inspect.signature(CausalLMOutputWithPast).parameters
    else ("past_key_values")
)
#: Whether a cache is cropped to a length, or by a number of tokens; changed during version 5.
_CROPS_TO_LENGTH = "max_length" in inspect.signature(Cache.crop).parameters

#: Ways of `generate` that need more of a model than its logits, or another cache.
_REFUSED_WAYS = (
    "assistant_early_exit",
    "cache_config",
    "compile_config",
    "dola_layers",
    "max_cache_len",
    "penalty_alpha",
    "speculation_type",
    "use_mtp",
)
_WITHOUT = "leave it out, or generate with the model that was compiled"
#: Caches that grow, and that are there as a whole: addresses for the whole context are both.
_CACHE_IMPLEMENTATIONS = (None, "dynamic", "dynamic_full", "static")


class DecoderCache(Cache):
    """What `generate` hands from call to call: the sequences of an `OptimizedDecoder`.

    Attributes:
        rows: keys and values; None until the first call says how many sequences there are.
        shift: how far the positions of each sequence are ahead of those that the graph counts.
    """

    is_compileable = False
    is_croppable = True

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.rows: KeyValueCache | None = None
        self.shift: Array = np.zeros(0, np.int64)

    @property
    def is_linear(self) -> list[bool]:
        """It is one of attention."""
        return [False]

    @property
    def batch_size(self) -> int:
        """Sequences; -1 while that is not known."""
        return -1 if self.rows is None else self.rows.sequences

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen, padding included."""
        return 0 if self.rows is None else self.rows.length

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """Tokens that fit; -1 while that is not known."""
        return -1 if self.rows is None else self.rows.context

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Tokens that fit; -1 while that is not known."""
        return self.get_max_cache_shape()

    def crop(self, count: int) -> None:
        """Forgets tokens, as caches of the transformers that is installed do.

        Args:
            count: a negative number forgets that many, another one those from there on; but for
                newer transformers, 0 forgets nothing.
        """
        if self.rows is not None and (count or _CROPS_TO_LENGTH):
            self.rows.crop(count)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Sequence i becomes what sequence `indices[i]` was; there may be fewer or more of them."""
        if self.rows is not None:
            self._select(indices.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence becomes `repeats` ones that continue it."""
        if self.rows is not None:
            self._select([i // repeats for i in range(self.rows.sequences * repeats)])

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Sequence i becomes what sequence `beam_idx[i]` was."""
        if self.rows is not None:
            self.rows.reorder(beam_idx.tolist())
            self.shift = self.shift[beam_idx.tolist()]

    def reset(self) -> None:
        """Forgets everything."""
        self.rows = None

    def _select(self, chosen: list[int]) -> None:
        if self.rows is not None:
            self.rows = self.rows.select(chosen)
            self.shift = self.shift[chosen]

    def check(self, rows: KeyValueCache, start: Array, shift: Array) -> None:
        """Refuses padding and positions that do not continue those of sequences with tokens.

        Args:
            rows: keys and values of the sequences.
            start: number of hidden tokens before each sequence, i64 [batch].
            shift: how far positions are ahead of those that the graph counts, i64 [batch].

        Raises:
            PaddingError: if the padding of a sequence is not that of earlier calls.
            PositionError: if the positions of a sequence do not go on where they were.
        """
        if self.rows is None:
            return
        for sequence in np.flatnonzero(rows.past):
            if start[sequence] != rows.start[sequence]:
                raise PaddingError(int(sequence))
            if shift[sequence] != self.shift[sequence]:
                raise PositionError(int(sequence))


class OptimizedDecoder(Compiled, PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """A compiled causal language model: `generate` is that of transformers.

    Args:
        model: a causal language model of transformers (graphopt/llm/readers/transformers_model.py).
        options: what to compile for.

    Attributes:
        checked: what was compared and found.
        engine: the decoder for numpy.
        program: the compiled graph.

    Raises:
        UnsupportedDecoderError: naming what the graph cannot express.
        ExampleMismatchError: if logits are not the model's.
    """

    # As it is now: while a thread traces, torch.fx replaces that of the base class for all threads.
    __call__ = torch.nn.Module.__call__
    main_input_name = "input_ids"

    def __init__(self, model: Any, options: Options) -> None:
        check_kinds(options)
        own = copy.deepcopy(model.config)
        own._attn_implementation = "eager"  # the one that transformers lets every class have
        super().__init__(own)
        self.generation_config = copy.deepcopy(model.generation_config)
        weights = read_decoder(model, options.context)
        self._reach = weights.traits.rotary_reach
        self.program, self.engine = compile_decoder(weights, options)
        self.checked = "example: not compared"
        if options.check:
            with process.calls:
                self.checked = check_logits(model, weights, self.program, self.engine)
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
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: DecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        *,
        cache: DecoderCache | None = None,
        cache_position: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits of new tokens.

        Args:
            input_ids: i64 [batch, new tokens].
            attention_mask: [batch, all tokens], 0 for padding before a prompt; or the same said in
                4 dimensions; None for no padding.
            position_ids: [1 or batch, new tokens], going up by one.
            past_key_values: what earlier calls left; it grows. A new one if None.
            inputs_embeds: refused; a decoder begins with tokens.
            labels: [batch, new tokens], for `loss`: the tokens to tell, -100 for none.
            use_cache: whether to return the cache; as the configuration says if None.
            logits_to_keep: how many of the last tokens get logits, or which; 0 for all.
            cache: another name of `past_key_values`.
            cache_position: rows of the cache for new tokens: the next ones.
            return_dict: False for a tuple; as the configuration says if None.
            kwargs: refused by name, unless they say nothing: None, `token_type_ids` of zeros,
                `output_attentions=False`.

        Raises:
            InputError: naming the argument that does not fit, or cannot be honoured.
        """
        call_arguments.refuse_outputs(self.config, kwargs)
        call_arguments.refuse_others({"inputs_embeds": inputs_embeds, **kwargs})
        tokens = call_arguments.read_tokens(input_ids)
        batch, count = tokens.shape
        given = _one_cache(past_key_values, cache)
        rows = given.rows if given.rows is not None else self.engine.new_cache(batch)
        if rows.sequences != batch:
            raise InputShapeError("input_ids", 0, rows.sequences, batch)
        past = rows.length
        start = call_arguments.read_padding(attention_mask, batch, past, count)
        shift = call_arguments.read_shift(position_ids, start, past, count)
        call_arguments.check_reach(self._reach, past + count - start + shift)
        call_arguments.check_cache_position(cache_position, past, count)
        kept = call_arguments.read_kept(logits_to_keep, count)
        told = None
        if labels is not None:
            told = call_arguments.read_labels(labels, batch, len(kept), count)
        given.check(rows, start, shift)
        rows.start = start
        wanted = (np.arange(batch, dtype=np.int64)[:, None] * count + kept).reshape(-1)
        logits = torch.from_numpy(self.engine.forward(tokens, rows, wanted))
        given.rows, given.shift = rows, shift
        logits = logits.reshape(batch, len(kept), -1)
        returned = self.config.use_cache if use_cache is None else use_cache
        loss = None if told is None else ForCausalLMLoss(logits, told, logits.shape[-1])
        kept_cache: dict[str, Any] = {CACHE: given if returned else None}
        outputs = CausalLMOutputWithPast(loss=loss, logits=logits, **kept_cache)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs if as_dict else outputs.to_tuple()

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """That of transformers."""
        with process.calls:
            return super().generate(*args, **kwargs)

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> bool:
        """Refuses the ways of `generate` that a compiled decoder does not go, and makes a cache."""
        for name in _REFUSED_WAYS:
            value = getattr(generation_config, name, None)
            if value is not None and value is not False:
                reason = "needs the layers of a model, or a cache of transformers"
                raise UnsupportedArgumentError(f"{name}={value!r:.80}", reason, _WITHOUT)
        kind = generation_config.cache_implementation
        if kind not in _CACHE_IMPLEMENTATIONS:
            remedy = "leave it out; kv_cache= of graphopt.optimize says how keys are kept"
            reason = "is no cache of a compiled decoder, which has its own"
            raise UnsupportedArgumentError(f"cache_implementation={kind!r}", reason, remedy)
        given = _one_cache(model_kwargs.get(CACHE), None)
        used = generation_config.use_cache is not False
        if used:
            model_kwargs[CACHE] = given
        return used

    def report(self) -> Report:
        """Every node: kernel and reasons."""
        graph, options = self.program.graph, self.program.options
        target, rows = options.target, tuple(node_reports(graph))
        return Report(
            graph.name,
            target.name,
            options.precision,
            target.levels,
            rows,
            (self.checked,),
        )


def _one_cache(one: Any, other: Any) -> DecoderCache:
    """The cache of a call under either name, or a new one."""
    given = other if one is None else one
    if None not in (one, other) and one is not other:
        reason = "and past_key_values are two caches"
        raise UnsupportedArgumentError("cache", reason, "give one of them")
    if given is None:
        return DecoderCache()
    if not isinstance(given, DecoderCache):
        reason = f"is a {type(given).__name__}, which a compiled decoder does not write to"
        remedy = "leave it out, or give what an earlier call of this model returned"
        raise UnsupportedArgumentError(CACHE, reason, remedy)
    return given


def _refuse(name: str) -> Any:
    def refused(self: OptimizedDecoder, *_: Any, **__: Any) -> NoReturn:
        reason = "needs the layers and weights of a model, and a compiled decoder has none"
        raise UnsupportedArgumentError(
            f"{name}()", reason, "call it on the model that was compiled"
        )

    return refused


for _name in (
    "add_adapter",
    "generate_batch",
    "get_input_embeddings",
    "get_output_embeddings",
    "init_continuous_batching",
    "push_to_hub",
    "resize_token_embeddings",
    "save_pretrained",
    "set_input_embeddings",
    "set_output_embeddings",
):
    setattr(OptimizedDecoder, _name, _refuse(_name))
