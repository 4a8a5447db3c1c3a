"""Packages with altered files and right checksums."""

import hashlib
from pathlib import Path


def seal(package: Path) -> None:
    """Writes the checksums of the files as they are."""
    names = sorted(str(p.relative_to(package)) for p in package.rglob("*") if p.is_file())
    lines = [
        f"{hashlib.sha256((package / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
        if name != "SHA256SUMS"
    ]
    (package / "SHA256SUMS").write_text("".join(lines))
