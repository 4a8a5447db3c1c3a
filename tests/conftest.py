"""Fixtures and import paths that all tests share."""

import sys
from pathlib import Path

# Test support modules (harness.py, structs.py) are imported by bare name.
sys.path.insert(0, str(Path(__file__).parent / "kernels"))
