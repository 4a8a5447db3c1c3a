"""Benchmarks of whole models against other engines, alternating in one run.

``paraformer`` defines the work, ``engines`` and its neighbours run it, ``measure`` takes the
times and ``table`` prints them. Peers are optional packages; a missing one is listed as missing.
"""
