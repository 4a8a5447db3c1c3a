"""Whatever happens to a file, graphopt refuses it with a `GraphoptError` or works; never worse."""

from pathlib import Path

import pytest

from tests.fuzz.files import find, kinds, run

pytest.importorskip("torch")


@pytest.mark.parametrize("name", kinds())
def test_damage_is_survived(name: str, tmp_path: Path) -> None:
    kind = find(name)
    count = len(kind.mutations)
    result = run(name, tmp_path, seed=0, first=0, count=count)
    assert not result.failures, result.failures[0]
    assert result.tried == count and result.refused > count / 2
    assert result.seen == {mutation.name for mutation in kind.mutations}
