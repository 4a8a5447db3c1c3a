"""Builds page.js and page.css in `graphopt/inspection/page` of the folder `page`: `make page`.

The bundle is kept in the repository, so that whoever uses graphopt needs neither. The first line of
each file has the digest of the sources that it was made of.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
BUNDLE = FOLDER.parent / "graphopt" / "inspection" / "page"
ESBUILD = FOLDER / "node_modules" / ".bin" / "esbuild"
OPTIONS = (
    "--bundle",
    "--minify",
    "--format=iife",
    "--target=es2022",
    "--jsx=automatic",
    "--jsx-import-source=preact",
    "--charset=utf8",
    "--legal-comments=none",
)


def digest() -> str:
    """Of everything that the bundle depends on: sources, versions of packages, options."""
    found = hashlib.sha256("\n".join(OPTIONS).encode())
    for path in (FOLDER / "package.json", *sorted((FOLDER / "src").iterdir())):
        found.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return found.hexdigest()


def build(folder: Path) -> None:
    """Writes `page.js` and `page.css` into a folder."""
    with tempfile.TemporaryDirectory() as made:
        entries = [f"page={FOLDER / 'src' / name}" for name in ("main.tsx", "style.css")]
        for entry in entries:
            command = [ESBUILD, entry, *OPTIONS, f"--outdir={made}", "--log-level=warning"]
            subprocess.run(command, check=True, cwd=FOLDER)
        for name in ("page.js", "page.css"):
            text = Path(made, name).read_text("utf-8").strip()
            (folder / name).write_text(f"/* sources {digest()} */\n{text}\n", "utf-8")


if __name__ == "__main__":
    BUNDLE.mkdir(exist_ok=True)
    if not ESBUILD.exists():
        sys.exit("npm install in the folder `page` first; `make page` does it")
    build(BUNDLE)
