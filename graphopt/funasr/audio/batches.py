"""Utterances of unequal lengths in batches with little padding.

A graph computes all frames of a batch, padding included; masks keep padding from changing results,
they do not skip work. So what is sorted and grouped here decides how much work is wasted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FRAMES = 1000  # of a batch: one minute, enough rows for full tiles on many cores
WASTE = 0.05  # largest part of a batch that may be padding


def plan_batches(
    lengths: Sequence[int], frames: int = FRAMES, waste: float = WASTE, most: int | None = None
) -> list[list[int]]:
    """Groups utterances, the longest first.

    Args:
        lengths: frames of each.
        frames: most frames of a batch, padding included; one longer utterance is a batch alone.
        waste: largest part of a batch that may be padding, 0 to 1.
        most: utterances of a batch; any number if None.

    Returns:
        Batches of positions in `lengths`; utterances without frames are in none.
    """
    order = sorted((i for i in range(len(lengths)) if lengths[i] > 0), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    useful = 0
    for i in order:
        if batches and len(batches[-1]) != most:
            padded = lengths[batches[-1][0]] * (len(batches[-1]) + 1)
            if padded <= frames and useful + lengths[i] >= (1 - waste) * padded:
                batches[-1].append(i)
                useful += lengths[i]
                continue
        batches.append([i])
        useful = lengths[i]
    return batches


def wasted_frames(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The part of all frames of the batches that is padding, 0 to 1."""
    computed = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    useful = sum(lengths[i] for batch in batches for i in batch)
    return 1 - useful / computed if computed else 0.0


def recognize_in_batches(
    recognize: Callable[[Array, Array], Sequence[Array]],
    features: Callable[[int], Array],
    lengths: Sequence[int],
    frames: int = FRAMES,
    waste: float = WASTE,
) -> Iterator[tuple[int, tuple[Array, ...]]]:
    """Recognizes utterances in batches; each gets the ids that it gets alone.

    One batch after the other, so that memory does not grow with their number.

    Args:
        recognize: Paraformer, from features f32[B, T, F] and lengths i32[B] to ids i64[B, N],
            counts i32[B], and whatever else it says of each item.
        features: of the utterance of this number, normalized, f32[T, F].
        lengths: frames of each utterance, T.
        frames: as for `plan_batches`.
        waste: as for `plan_batches`.

    Yields:
        The number of each utterance that has frames, and i64[n] with its rows of what else is said.

    Raises:
        InputError: if the features are not those of the model.
    """
    for batch in plan_batches(lengths, frames, waste):
        first = features(batch[0])
        padded = np.zeros((len(batch), *first.shape), np.float32)
        padded[0] = first
        for row, i in enumerate(batch[1:], 1):
            padded[row, : lengths[i]] = features(i)
        ids, counts, *others = recognize(padded, np.array([lengths[i] for i in batch], np.int32))
        for row, i in enumerate(batch):
            yield i, (ids[row, : int(counts[row])], *(other[row] for other in others))
