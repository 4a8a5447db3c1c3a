"""Compile Paraformer's encoder in int8 and see what it costs in accuracy and gains in time.

python examples/paraformer_int8.py [--small]
"""

import argparse
import time

import torch

import graphopt
from graphopt.bench.engines import relative_error
from graphopt.zoo import paraformer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="2 encoder blocks instead of 50")
    blocks = 2 if parser.parse_args().small else 50
    encoder, _ = paraformer.paraformer_large(blocks=blocks, decoder_blocks=1)
    speech, lengths = paraformer.example_inputs(frames=167)
    fast = graphopt.optimize(encoder, precision="int8", example_inputs=(speech, lengths))
    with torch.inference_mode():
        for name, call in (("torch fp32", encoder), ("graphopt int8", fast)):
            call(speech, lengths)
            start = time.perf_counter()
            hidden, _ = call(speech, lengths)
            print(f"{name}: {1000 * (time.perf_counter() - start):.1f} ms")
        expected, _ = encoder(speech, lengths)
    print(f"relative error: {relative_error(hidden.numpy(), expected.numpy()):.1e}")


if __name__ == "__main__":
    main()
