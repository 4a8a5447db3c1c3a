"""Arguments of a causal language model of transformers: read, or refused by name.

The decoder graph (graphopt/llm/decoder/graph.py) knows causal attention behind padding on the left,
and positions that count from the first token that is no padding. Rotary embeddings are relative, so
that positions may begin anywhere, as long as all calls with a cache agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graphopt.errors import (
    InputDtypeError,
    InputRankError,
    InputShapeError,
    InputValueError,
    PaddingError,
    PositionError,
    UnsupportedArgumentError,
)

Array = np.ndarray[Any, Any]

#: What a compiled decoder does not keep for its caller.
_OUTPUTS = ("output_attentions", "output_hidden_states", "output_router_logits")
_IN_TORCH = "leave it out, or call the model that was compiled"


def read_tokens(input_ids: Any) -> Array:
    """Tokens [batch, new tokens].

    Raises:
        InputError: for anything but a matrix of integers.
    """
    if input_ids is None:
        reason = "are missing, and a compiled decoder begins with them"
        raise UnsupportedArgumentError("input_ids", reason, "give the tokens of the prompt")
    return _integers("input_ids", input_ids, ("batch", "new tokens"))


def read_padding(mask: Any, batch: int, past: int, count: int) -> Array:
    """Number of hidden tokens before each sequence, i64 [batch].

    Args:
        mask: [batch, all tokens], 0 for padding; or [batch, 1 or heads, new tokens, all tokens],
            bool, or floats to add to scores; None for none.
        batch: number of sequences.
        past: tokens that the cache holds.
        count: new tokens.

    Raises:
        PaddingError: for a mask of another kind of attention.
        InputError: for something else than a mask.
    """
    if mask is None:
        return np.zeros(batch, np.int64)
    if not isinstance(mask, torch.Tensor):
        reason = f"is a {type(mask).__name__}, not a tensor"
        raise UnsupportedArgumentError("attention_mask", reason, "give it as [batch, all tokens]")
    total = past + count
    if mask.dim() == 4:
        _check_extents("attention_mask", mask.shape, (batch, mask.shape[1], count, total))
        return _causal_padding(_visible(mask), past)
    if mask.dim() != 2:
        raise InputRankError("attention_mask", ("batch", "all tokens"), mask.shape)
    _check_extents("attention_mask", mask.shape, (batch, total))
    shown = mask.numpy() != 0
    start: Array = shown.argmax(1).astype(np.int64)
    for sequence, first in enumerate(start):
        if not shown[sequence, first:].all():
            raise PaddingError(sequence)
    return start


def _visible(mask: torch.Tensor) -> Array:
    """A 4-D mask as bool [batch, heads, new tokens, all tokens]."""
    if mask.dtype is torch.bool:
        visible: Array = mask.numpy()
        return visible
    if not mask.is_floating_point():
        raise InputDtypeError("attention_mask", "bool or float32", str(mask.dtype))
    hidden = mask <= torch.finfo(mask.dtype).min / 2
    if not ((mask == 0) | hidden).all():
        reason = "adds other numbers to scores than 0 and minus infinity"
        raise UnsupportedArgumentError("attention_mask", reason, _IN_TORCH)
    return np.asarray(~hidden.numpy())


def _causal_padding(visible: Array, past: int) -> Array:
    """Padding of a 4-D mask; rows of padding itself may see anything."""
    _, _, count, total = visible.shape
    start: Array = visible[:, 0, -1].argmax(1).astype(np.int64)
    columns, rows = np.arange(total), past + np.arange(count)
    for sequence, first in enumerate(start):
        causal = (columns >= first) & (columns <= rows[:, None])
        if not (visible[sequence] == causal)[:, rows >= first].all():
            raise PaddingError(sequence)
    return start


def read_shift(positions: Any, start: Array, past: int, count: int) -> Array:
    """How far positions are ahead of those that the graph counts, i64 [batch].

    Args:
        positions: [1 or batch, new tokens]; None for those of the columns, padding included.
        start: padding of each sequence.
        past: tokens that the cache holds.
        count: new tokens.

    Raises:
        PositionError: for positions that do not go up by one.
        InputError: for something else than positions.
    """
    if positions is None:
        return start.copy()
    given = _integers("position_ids", positions, ("batch", "new tokens"))
    batch = 1 if len(given) == 1 else len(start)
    _check_extents("position_ids", given.shape, (batch, count))
    columns = past + np.arange(count)
    ahead = given - (columns - start[:, None])
    for sequence, first in enumerate(start):
        of_tokens = ahead[sequence, columns >= first]
        if (of_tokens != of_tokens[-1]).any():
            raise PositionError(sequence)
    shift: Array = ahead[:, -1]
    return shift


def check_reach(reach: int | None, ends: Array) -> None:
    """Refuses positions for which a model has other frequencies than those that were compiled.

    Args:
        reach: how many positions have these; None for all.
        ends: the position behind the last token of each sequence.

    Raises:
        UnsupportedArgumentError: if one is behind the reach.
    """
    if reach is not None and ends.max() > reach:
        reason = f"goes to {ends.max()}, and the rotary embedding changes behind {reach}"
        raise UnsupportedArgumentError("position_ids", reason, "leave it out")


def check_cache_position(position: Any, past: int, count: int) -> None:
    """Refuses rows of the cache other than the next ones.

    Args:
        position: rows for the new tokens, [new tokens]; None for the next ones.
        past: tokens that the cache holds.
        count: new tokens.

    Raises:
        UnsupportedArgumentError: for other rows.
        InputError: for something else than a tensor of integers [new tokens].
    """
    if position is None:
        return
    wanted = np.arange(past, past + count)
    if not np.array_equal(_integers("cache_position", position, ("new tokens",)), wanted):
        reason = f"is not {past} to {past + count - 1}, the rows behind those of the cache"
        raise UnsupportedArgumentError("cache_position", reason, "leave it out")


def read_kept(logits_to_keep: Any, count: int) -> Array:
    """Indices of the tokens that get logits: the last so many (0 for all), or those given."""
    every: Array = np.arange(count, dtype=np.int64)
    if isinstance(logits_to_keep, int):
        return np.asarray(every[-logits_to_keep:])
    if not isinstance(logits_to_keep, torch.Tensor) or logits_to_keep.dim() != 1:
        reason = "is neither a number nor a list of indices [tokens]"
        raise UnsupportedArgumentError("logits_to_keep", reason, "give one of these")
    if logits_to_keep.dtype is torch.bool:
        _check_extents("logits_to_keep", logits_to_keep.shape, (count,))
        return np.asarray(every[logits_to_keep.numpy()])
    indices = _integers("logits_to_keep", logits_to_keep, ("tokens",))
    wrong = indices[(indices < -count) | (indices >= count)]
    if wrong.size:
        raise InputValueError("logits_to_keep names a token that is not there", count, wrong[0])
    return np.asarray(every[indices])


def read_labels(labels: Any, batch: int, kept: int, count: int) -> torch.Tensor:
    """Labels of a call whose every token gets logits.

    Args:
        labels: integers [batch, new tokens]: the tokens to tell, -100 for none.
        batch: number of sequences.
        kept: new tokens that get logits.
        count: new tokens.

    Returns:
        i64 [batch, new tokens].

    Raises:
        UnsupportedArgumentError: if tokens have no logits.
        InputError: for something else than labels.
    """
    if kept != count:
        reason = f"needs the logits of all {count} tokens, and logits_to_keep leaves {kept}"
        raise UnsupportedArgumentError("labels", reason, "leave out logits_to_keep")
    given = _integers("labels", labels, ("batch", "new tokens"))
    _check_extents("labels", given.shape, (batch, count))
    return torch.from_numpy(given)


def refuse_outputs(config: Any, given: Mapping[str, Any]) -> None:
    """Refuses what a compiled decoder does not keep, asked for in a call or a configuration."""
    for name in _OUTPUTS:
        value = given.get(name)
        if value is None:
            value = getattr(config, name, False)
        if value:
            reason = "asks for what a compiled decoder does not keep"
            raise UnsupportedArgumentError(f"{name}={value}", reason, _IN_TORCH)


def refuse_others(given: Mapping[str, Any]) -> None:
    """Refuses what is left of the arguments of a call, but for what says nothing.

    Those are None, and the token types of one text, which no decoder here has an embedding for.
    """
    for name, value in given.items():
        if name in _OUTPUTS or value is None:
            continue
        if name == "token_type_ids" and isinstance(value, torch.Tensor) and not value.any():
            continue
        reason = "is no argument of a compiled decoder"
        raise UnsupportedArgumentError(name, reason, _IN_TORCH)


def _integers(name: str, value: Any, axes: tuple[str, ...]) -> Array:
    if not isinstance(value, torch.Tensor):
        raise InputDtypeError(name, "a tensor of int64", type(value).__name__)
    kind = value.dtype
    if kind.is_floating_point or kind.is_complex or kind is torch.bool:
        raise InputDtypeError(name, "int64", str(kind))
    if value.dim() != len(axes):
        raise InputRankError(name, axes, value.shape)
    return np.asarray(value.cpu().numpy(), np.int64)


def _check_extents(name: str, got: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    for axis, (have, want) in enumerate(zip(got, wanted, strict=True)):
        if have != want:
            raise InputShapeError(name, axis, want, have)
