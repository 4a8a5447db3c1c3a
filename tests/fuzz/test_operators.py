"""A part of torch's database of operators: nothing is wrong, nothing ends with a raw error."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")

from tests.fuzz.operators import BAD, COMPILED, LEFT, run


def test_some_of_torchs_operators() -> None:
    counts, bad = run(part=0, parts=20, most=2, brief=True)
    assert not bad, "\n".join(bad)
    assert not set(BAD) & set(counts)
    assert counts[COMPILED] > 200 and counts[LEFT] > 20 and counts["built"] > 100, counts
