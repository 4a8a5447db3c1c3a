"""Real models to optimize: FunASR's Paraformer-large and FSMN-VAD.

The modules here import torch and FunASR only when a builder is called, and raise
:class:`graphopt.errors.MissingDependencyError` with the install command where one is missing.
"""
