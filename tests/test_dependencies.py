"""Imports of optional packages from several threads."""

import logging
import sys
import threading
from pathlib import Path

import pytest

from graphopt.dependencies import require

TALKATIVE = "import logging, time\nprint('hello')\nlogging.root.setLevel(7)\ntime.sleep(0.05)\n"


def test_threads_that_import_leave_the_settings_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"talkative_{i}" for i in range(4)]
    for name in names:
        (tmp_path / f"{name}.py").write_text(TALKATIVE)
    monkeypatch.syspath_prepend(tmp_path)
    output, level, found = sys.stdout, logging.root.level, []
    threads = [
        threading.Thread(target=lambda name=name: found.append(require(name, "the test").__name__))
        for name in [*names, names[0]]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([*names, names[0]])
    assert sys.stdout is output and logging.root.level == level
    assert capsys.readouterr().out == ""
    for name in names:
        del sys.modules[name]
