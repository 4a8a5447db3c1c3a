"""The interface of transformers with the oldest version that pyproject.toml allows.

`make venv` puts it beside the other packages: .venv/oldest.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLDEST = Path(sys.prefix) / "oldest"


@pytest.mark.skipif(not OLDEST.is_dir(), reason=f"{OLDEST} is not there: make venv")
def test_the_oldest_transformers():
    lowest = re.search(r"transformers>=([\d.]+)", (ROOT / "pyproject.toml").read_text())[1]
    code = (
        "import sys, pytest, transformers; print(transformers.__version__, flush=True); "
        "sys.exit(pytest.main(['-q', '-x', '-n0', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
    )
    tests = [
        str(Path(__file__).with_name(f"test_{name}.py")) for name in ("interface", "phi3", "caches")
    ]
    tests += ["-k", "not gguf and not precisions"]  # which no version changes
    environment = {**os.environ, "PYTHONPATH": str(OLDEST)}
    command = [sys.executable, "-c", code, *tests]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.splitlines()[:1] == [lowest], ran.stdout + ran.stderr
    assert ran.returncode == 0, ran.stdout + ran.stderr
