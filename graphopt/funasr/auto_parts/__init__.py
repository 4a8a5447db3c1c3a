"""Compiled parts in the places where the loops of a `funasr.AutoModel` call FunASR's."""
