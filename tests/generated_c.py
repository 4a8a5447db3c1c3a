"""The generated C of two commits, side by side: what a refactoring must not change.

    python tests/generated_c.py --base HEAD~5
    python tests/generated_c.py --base main --only llama,qwen3

Every model is planned for neoverse-n2 in each precision, by the working tree and by the other
commit, in processes of their own. Their `module.c` are compared as text, without the comments that
quote dumps, and the packed weights by digest. No library is built, so that this is for an x86
machine, which needs none of that target.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("passes", "codegen", "kernels")
TARGET = "neoverse-n2"

#: Keyword arguments of `optimize` beside the target and the example inputs.
PLAIN = [{"precision": p} for p in ("fp32", "bf16", "int8", "int8+bf16")]
BLOCKS = [{"precision": "int4", "group_size": 32}, {"precision": "int4", "activation_bits": 16}]
CHOICES = [{"kv_cache": "int8", "head": "int4"}, {"activation_bits": "16", "group_size": "0"}]
#: Those that compile what no name below stands for.
EXAMPLES = ("arm_from_x86.py", "paraformer_int8.py", "vad_segments.py")


def _zoo(name: str) -> Callable[..., None]:
    def plan(**options: Any) -> None:
        from graphopt.zoo.catalog import build_model

        _optimize(*build_model(name), options)

    return plan


def _recognizer(**options: str) -> None:
    from graphopt.zoo import recognizer

    _compile("funasr", recognizer.MODEL, options)


def _smollm2(**options: str) -> None:
    from graphopt.bench.llm.models import smollm2_file

    _compile("llm", smollm2_file(), options)


def _compile(kind: str, source: Path, options: dict[str, str]) -> None:
    from graphopt import cli

    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory() as temporary, contextlib.suppress(SystemExit):
        out = f"--out={temporary}/package"
        sys.argv = ["graphopt", "compile", kind, str(source), out, f"--target={TARGET}", *flags]
        cli.main()


def _example(name: str) -> Callable[[], None]:
    """What an example compiles before it runs what here is not built."""

    def plan() -> None:
        import graphopt
        from graphopt.errors import GraphoptError

        sys.argv = [name, "--small"]
        tree = Path(graphopt.__file__).resolve().parents[1]
        with contextlib.suppress(GraphoptError):
            runpy.run_path(str(tree / "examples" / name), run_name="__main__")

    return plan


def _language_model(name: str) -> Callable[..., None]:
    def plan(**options: Any) -> None:
        sys.path.insert(0, str(ROOT / "tests/llm"))
        import tiny

        _optimize(tiny.model(name), None, options)

    return plan


def _random(seed: int) -> Callable[..., None]:
    def plan(**options: Any) -> None:
        sys.path.insert(0, str(ROOT / "tests/fuzz"))
        import generate

        from graphopt.errors import CaptureError

        program = generate.generate(seed, precision="fp32")
        loaded = program.load()
        with contextlib.suppress(CaptureError):
            _optimize(loaded.model, loaded.inputs(*program.sizes[0]), options)

    return plan


def _optimize(model: Any, inputs: Any, options: dict[str, Any]) -> None:
    import graphopt

    graphopt.optimize(model, TARGET, inputs, check=False, **options)


MODELS: dict[str, tuple[Callable[..., None], list[dict[str, Any]]]] = {
    "fsmn-vad": (_zoo("fsmn-vad"), [*PLAIN, {"precision": "int4", "group_size": None}]),
    "recognizer": (_recognizer, PLAIN),
    "smollm2": (_smollm2, [{"kv_cache": "f32"}, *PLAIN[1:3], *CHOICES]),
    **{name: (_example(name), [{}]) for name in EXAMPLES},
    "llama": (_language_model("Llama"), PLAIN + BLOCKS + [{"precision": "int4", "head": "int4"}]),
    "qwen3": (_language_model("Qwen3"), PLAIN[:1] + BLOCKS),
    "paraformer": (_zoo("paraformer"), PLAIN[:1] + PLAIN[3:]),
    **{f"random{seed}": (_random(seed), PLAIN[:1] + PLAIN[3:]) for seed in range(40)},
}


def write(folder: Path, only: str) -> None:
    """Writes the C of every model and the digest of its weights."""
    import torch

    from graphopt.compiler.program import Builder, Program

    planned: list[Any] = []
    plan = Program.plan

    def recorded(self: Program) -> None:
        plan(self)
        planned.append(self)

    def library(self: Any, source: str, level: Any) -> Path:
        empty = folder / "empty.so"
        empty.touch()
        return empty

    Program.plan, Builder.library = recorded, library  # type: ignore[method-assign]
    for name, (make, ways) in MODELS.items():
        for options in ways if name.startswith(tuple(only.split(","))) else ():
            torch.manual_seed(0)
            make(**options)
            stem = "-".join([name, *(str(v) for v in options.values())])
            for number, program in enumerate(planned):
                source = re.sub(r"/\*.*?\*/", "", program.module.source, flags=re.DOTALL)
                weights = hashlib.sha256(program.module.weights(1).tobytes()).hexdigest()
                (folder / f"{stem}-{number}").write_text(f"{source}\n// weights {weights}\n")
            planned.clear()
            print(stem, flush=True)


def _run(tree: Path, folder: Path, only: str) -> None:
    """Lets a tree write into a folder, with the four folders as the one package that they are."""
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "graphopt"
        package.mkdir()
        for entry in [*(tree / "graphopt").iterdir(), *(tree / f for f in FOLDERS)]:
            (package / entry.name).symlink_to(entry)
        env = {**os.environ, "PYTHONPATH": temporary}
        command = [sys.executable, "-W", "ignore", __file__, "--write", str(folder), "--only", only]
        subprocess.run(command, env=env, check=True)


def _differences(base: Path, here: Path) -> Iterator[str]:
    names = sorted({f.name for folder in (base, here) for f in folder.iterdir()} - {"empty.so"})
    for name in names:
        texts = [(f / name).read_text() if (f / name).exists() else "" for f in (base, here)]
        if texts[0] != texts[1]:
            lines = [t.splitlines() for t in texts]
            yield "\n".join(difflib.unified_diff(*lines, f"base/{name}", name, lineterm="", n=2))
    print(f"{len(names)} files compared")
    if not names:
        yield "nothing was written"


def main() -> None:
    """Compares, or writes for one of the two sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="HEAD", help="commit to compare the working tree with")
    parser.add_argument("--only", default="", help="models whose names begin so, by commas")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write is not None:
        write(given.write, given.only)
        return
    with tempfile.TemporaryDirectory() as temporary:
        tree, base, here = (Path(temporary) / n for n in ("tree", "base", "here"))
        base.mkdir()
        here.mkdir()
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(tree), given.base], check=True)
        try:
            _run(tree, base, given.only)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
        _run(ROOT, here, given.only)
        found = list(_differences(base, here))
    print("\n".join(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
