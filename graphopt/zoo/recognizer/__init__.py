"""A small Paraformer for spoken digits and commands, trained by examples/train_paraformer.py."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"  # a model directory as FunASR lays it out
RECORDINGS = Path(__file__).parent / "recordings"
