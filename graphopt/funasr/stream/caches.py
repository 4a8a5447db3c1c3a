"""How long the caches of chunks are."""

#: Frames of a cache, filled or not: an axis of one frame would be another graph.
LEAST_CACHED = 2
