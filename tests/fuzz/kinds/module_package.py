"""Packages of a module, loaded, run and profiled."""

from pathlib import Path

import numpy as np
from fuzz.files import Kind
from mutations import (
    Mutation,
    garbage,
    json_values,
    of,
    package_accidents,
    resealed,
    text,
    text_bytes,
)

import graphopt

MANIFEST = "manifest.json"


def make(path: Path) -> None:
    import models
    import torch

    example = (torch.ones(1, 3, 48),)
    graphopt.optimize(models.network(), precision="int8", example_inputs=example).save(path)


def use(path: Path) -> None:
    module, x = graphopt.load(path), np.ones((1, 3, 48), np.float32)
    module(x)
    module.profile(x, repeats=1)


KIND = Kind(
    make,
    [
        *package_accidents(),
        *[Mutation("values", resealed(json_values(MANIFEST)))] * 6,
        Mutation("text", resealed(text(MANIFEST)), is_refused=True),
        Mutation("bytes", resealed(text_bytes(MANIFEST))),
        Mutation("weights", resealed(of("weights.bin", garbage)), is_refused=True),
        Mutation("libraries", resealed(of("lib", garbage))),
    ],
    use,
)
