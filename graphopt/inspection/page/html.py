"""The HTML around the data of a report: one file that opens from a disk and loads nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from graphopt.output_files import write_text

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="graphopt {version}">
<title>{title}: graphopt</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<div id="page"><noscript>This page needs JavaScript; it loads nothing.</noscript></div>
<script type="application/octet-stream" id="report">{data}</script>
<script>{script}</script>
</body>
</html>
"""

#: What few pages have.
_UNKNOWN = {"format": 1, "roofs": None, "timeline": None, "accuracy": None}


def bundle(name: str) -> str:
    """A file that `make page` made of the folder `page`: `page.js` or `page.css`."""
    return resources.files("graphopt.inspection.page").joinpath(name).read_text("utf-8")


def write_html(path: Path, data: Mapping[str, Any]) -> Path:
    """Writes the page of a report, and gives its path.

    Args:
        path: of the file, which is replaced.
        data: as for `render_page`.

    Raises:
        StorageError: if the file cannot be written.
    """
    write_text(path, render_page(data))
    return path


def render_page(data: Mapping[str, Any]) -> str:
    """The page of a report.

    The page may run its own script and use its own style, and nothing else: no request is allowed.

    Args:
        data: what `page/src/data.ts` describes; what is left out of `_UNKNOWN` is not known.
    """
    script, style = bundle("page.js"), bundle("page.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    text = json.dumps(
        {**_UNKNOWN, **data}, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    packed = gzip.compress(text.encode(), 9, mtime=0)
    return _PAGE.format(
        policy=html.escape(policy),
        version=data["model"]["version"],
        title=html.escape(data["model"]["name"]),
        style=style,
        script=script,
        data=base64.b64encode(packed).decode(),
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
