"""Find the speech in real recordings with FSMN-VAD, its encoder compiled by graphopt.

python examples/vad_segments.py [--small]
"""

import argparse

import graphopt
from graphopt.zoo import fsmn_vad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="3 recordings instead of 27")
    recordings = fsmn_vad.recordings()[: 3 if parser.parse_args().small else None]
    vad = fsmn_vad.load_vad()
    inputs = fsmn_vad.encoder_inputs(vad, fsmn_vad.recorded_features(vad, recordings[0]))
    encoder = graphopt.optimize(vad.model.encoder, precision="int8", example_inputs=inputs)
    for wav in recordings:
        before = fsmn_vad.vad_segments(vad, wav)
        with fsmn_vad.replace_encoder(vad, encoder):
            after = fsmn_vad.vad_segments(vad, wav)
        print(wav.parent.name, wav.name, after, "same" if after == before else f"torch: {before}")


if __name__ == "__main__":
    main()
