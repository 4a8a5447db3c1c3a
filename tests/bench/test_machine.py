"""What predictions assume of a machine, and the file that says what was measured."""

from pathlib import Path

import pytest

from graphopt.bench.machine import CONSTANTS, Machine, machine_text, read_machine
from graphopt.errors import ConstantsFileError


def test_a_file_says_what_was_known(tmp_path: Path) -> None:
    known = Machine(name='a "box"\n\x7f', target="neoverse-n2").known("clock", 2.8e9, "counted")
    known = known.known("step_seconds", 0.0, "none felt")
    (tmp_path / "c.toml").write_text(machine_text(known))
    read = read_machine(tmp_path / "c.toml")
    assert read == known
    assert read["clock"].origin == "counted" and read["core_bandwidth"].origin == "assumed"
    assert read.as_dict().keys() == CONSTANTS.keys()


def test_memory_gives_no_more_than_the_socket() -> None:
    machine = Machine().known("core_bandwidth", 3.0, "t").known("socket_bandwidth", 10.0, "t")
    assert [machine.bandwidth(cores) for cores in (1, 2.5, 4, 64)] == [3.0, 7.5, 10.0, 10.0]


CLOCK = 'format = 1\n[constants.clock]\nvalue = {}\nunit = "{}"\n'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("format = 1\n[constants", "TOML"),
        ("format = 2", "format is 2"),
        ("format = 1\nclocks = 3", "'clocks'"),
        ("format = 1\nconstants = 3", "table of constants"),
        ("format = 1\nmachine = 3", "texts"),
        ('format = 1\n[constants.clok]\nvalue = 1\nunit = "Hz"', "'clok'; known are clock"),
        ("format = 1\n[constants]\nclock = 1", "clock is no table"),
        (CLOCK.format(1, "GHz"), "in 'Hz', not 'GHz'"),
        (CLOCK.format(0, "Hz"), "clock is 0"),
        (CLOCK.format("nan", "Hz"), "no number"),
        (CLOCK.format("true", "Hz"), "no number"),
        (CLOCK.format(1, "Hz") + "origin = 1", "origin of clock"),
        (CLOCK.format(1, "Hz") + "sure = 1", "clock is no table"),
    ],
)
def test_what_a_file_may_not_say(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConstantsFileError, match=word):
        read_machine(tmp_path / "c.toml")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "bytes"):
        with pytest.raises(ConstantsFileError, match="calibrate"):
            read_machine(path)
