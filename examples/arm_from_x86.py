"""Build a model for Neoverse N2 on any machine, look at its C, and run it under the emulator.

python examples/arm_from_x86.py [--small]
"""

import argparse
import tempfile
from pathlib import Path

import torch

import graphopt
from graphopt.errors import MissingEmulatorError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a narrow model")
    width = 32 if parser.parse_args().small else 512
    torch.manual_seed(0)
    layers = [torch.nn.Linear(width, 4 * width), torch.nn.ReLU(), torch.nn.Linear(4 * width, width)]
    model = torch.nn.Sequential(*layers).eval()
    x = torch.randn(5, width)
    arm = graphopt.optimize(model, target="neoverse-n2", precision="int8", example_inputs=(x,))
    print(arm.report())
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "mlp.gopt"
        arm.save(package)
        for path in sorted(package.rglob("*")):
            print(f"{path.relative_to(package)}: {path.stat().st_size} bytes")
    try:
        emulated = arm.emulate(x)
    except MissingEmulatorError as error:
        print(error)
        return
    print("emulated against this machine:", (emulated - arm(x)).abs().max().item())


if __name__ == "__main__":
    main()
