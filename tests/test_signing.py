"""Signed packages: only as they were signed, only by a key that is trusted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from graphopt.cli import app
from graphopt.errors import (
    MissingDependencyError,
    PackageCorruptError,
    PackageError,
    SigningKeyError,
    UntrustedPackageError,
)
from graphopt.runtime import sealed
from graphopt.runtime.sealed import open_sealed, seal, sign_folder
from graphopt.runtime.signing import SIGNATURE, check_signature, make_keys

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        make_keys(folder / name)
    return folder


@pytest.fixture
def package(tmp_path: Path, keys: Path) -> Path:
    path = tmp_path / "a.gopt"
    (path / "lib").mkdir(parents=True)
    (path / "about.json").write_text("{}")
    (path / "lib" / "x.so").write_text("library")
    seal(path)
    assert sign_folder(path, keys / "mine") == 2
    return path


def opened(path: Path, *keys: object) -> sealed.SealedFolder:
    return open_sealed(path, "about.json", "package", keys)  # type: ignore[arg-type]


def test_a_signed_package_is_loaded(package: Path, keys: Path, tmp_path: Path) -> None:
    mine, other = keys / "mine.pub", keys / "other.pub"
    assert opened(package, mine).data("lib/x.so") == b"library"
    assert opened(package, str(other), mine.read_bytes()).names == ["about.json", "lib/x.so"]
    shutil.move(package, tmp_path / "renamed")
    assert opened(tmp_path / "renamed", mine)
    with pytest.raises(UntrustedPackageError, match="signed by other keys"):
        opened(tmp_path / "renamed", other)
    sign_folder(tmp_path / "renamed", keys / "other")
    sign_folder(tmp_path / "renamed", keys / "mine")  # again, in place of the first
    assert len((tmp_path / "renamed" / SIGNATURE).read_text().splitlines()) == 2
    assert opened(tmp_path / "renamed", other) and opened(tmp_path / "renamed", mine)


def test_openssl_makes_and_verifies_the_same(package: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    key = tmp_path / "key"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)]
    subprocess.run(make, check=True, capture_output=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-pubout"], check=True, capture_output=True
    ).stdout
    sign_folder(package, key)
    assert opened(package, public)


def resealed(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: (change(path), seal(path))


def signature(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda p: (p / SIGNATURE).write_text(change((p / SIGNATURE).read_text()))


def flipped(text: str) -> str:
    return text[:-3] + ("0" if text[-3] != "0" else "1") + text[-2:]


TAMPERED = {
    "altered": (lambda p: (p / "lib" / "x.so").write_text("Library"), "x.so is truncated or alt"),
    "resealed": (
        resealed(lambda p: (p / "lib" / "x.so").write_text("Library")),
        "does not fit SHA256SUMS",
    ),
    "one more": (resealed(lambda p: (p / "y.so").write_text("")), "does not fit SHA256SUMS"),
    "one less": (resealed(lambda p: (p / "lib" / "x.so").unlink()), "does not fit SHA256SUMS"),
    "unsigned": (lambda p: (p / SIGNATURE).unlink(), "it is not signed"),
    "empty": (signature(lambda text: ""), "it is not signed"),
    "flipped": (signature(flipped), "does not fit SHA256SUMS"),
    "of another key": (signature(lambda text: "0" * 64 + text[64:]), "signed by other keys"),
    "cut": (signature(lambda text: text[:100]), "SHA256SUMS.sig has the line"),
    "noise": (lambda p: (p / SIGNATURE).write_bytes(b"\xff\n"), "SHA256SUMS.sig has the line"),
    "a pipe": (
        lambda p: ((p / SIGNATURE).unlink(), os.mkfifo(p / SIGNATURE)),
        "SHA256SUMS.sig is not a plain file",
    ),
}


@pytest.mark.parametrize(("change", "message"), TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_package_is_refused(
    package: Path, keys: Path, change: Callable[[Path], object], message: str
) -> None:
    change(package)
    with pytest.raises((UntrustedPackageError, PackageCorruptError), match=message):
        opened(package, keys / "mine.pub")


def test_what_was_verified_is_what_is_used(
    package: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files too: neither a note nor a later change comes between."""
    monkeypatch.setattr(sealed, "COPIED_BYTES", 0)
    monkeypatch.setattr(sealed, "has_sha256", lambda *_: True)  # a forged note
    file = opened(package, keys / "mine.pub").file("lib/x.so")
    (package / "lib" / "x.so").write_text("Library")
    assert Path(file).read_text() == "library" and file.is_unchanged()
    with pytest.raises(PackageCorruptError, match=r"x\.so is truncated or altered"):
        opened(package, keys / "mine.pub")


def test_keys_that_are_none(package: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("key")
    for wrong in (keys / "mine", tmp_path / "text", tmp_path / "no", b"key", "a\0b", tmp_path, 7):
        with pytest.raises(SigningKeyError, match=r"cannot use the key .*graphopt keygen"):
            opened(package, wrong)
    with pytest.raises(SigningKeyError, match="trusted_keys: it is empty"):
        opened(package)
    with pytest.raises(SigningKeyError, match="7 is no list of keys"):
        check_signature(package, b"", b"", 7)
    for wrong in (keys / "mine.pub", tmp_path / "no"):
        with pytest.raises(SigningKeyError):
            sign_folder(package, wrong)
    with pytest.raises(SigningKeyError, match="File exists"):
        make_keys(keys / "mine")
    with pytest.raises(PackageError, match="no such folder"):
        sign_folder(tmp_path / "no", keys / "mine")


def test_without_cryptography(package: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingDependencyError, match=r"graphopt\[sign\]"):
        opened(package, keys / "mine.pub")
    assert open_sealed(package, "about.json", "package").names


def test_at_the_command_line(package: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(map(str, arguments)))
        return done.exit_code, done.output

    key = tmp_path / "key"
    assert run("keygen", key) == (0, f"{key}.pub\n") and key.stat().st_mode & 0o77 == 0
    assert run("sign", package, "--key", key) == (0, f"signed {package}: 2 files\n")
    assert run("verify", package, "--key", f"{key}.pub")[0] == 0
    (package / SIGNATURE).unlink()
    done = CliRunner().invoke(app, ["verify", str(package), "--key", f"{key}.pub"])
    assert done.exit_code == 1 and isinstance(done.exception, UntrustedPackageError)


@pytest.mark.parametrize(
    ("description", "command"),
    [
        ("manifest.json", "run PACKAGE --input x.npy"),
        ("recognizer.json", "transcribe PACKAGE x.wav"),
        ("recognizer.json", "align PACKAGE x.wav text"),
        ("recognizer.json", "transcribe PACKAGE x.wav --stream"),
        ("llm.json", "chat PACKAGE --prompt x"),
    ],
)
def test_commands_trust_only_the_keys_that_are_given(
    description: str, command: str, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros(3, np.float32))
    (tmp_path / "PACKAGE").mkdir()
    (tmp_path / "PACKAGE" / description).write_text("{}")
    seal(tmp_path / "PACKAGE")
    sign_folder("PACKAGE", keys / "mine")
    trusted = [f"--trusted-key={keys / name}.pub" for name in ("other", "mine")]
    refused = CliRunner().invoke(app, [*command.split(), trusted[0]])
    assert isinstance(refused.exception, UntrustedPackageError), refused.output
    opened = CliRunner().invoke(app, [*command.split(), *trusted])
    assert isinstance(opened.exception, PackageError), opened.output
    assert not isinstance(opened.exception, UntrustedPackageError)
