"""Decoders as graphs: their weights, what they may be, and the nodes of a layer."""
