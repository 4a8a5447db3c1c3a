"""Signatures of packages: ed25519 over SHA256SUMS, which covers every other file.

`SHA256SUMS.sig` has a line per signature: the public key and the signature, in hex. Keys are PEM
files, as `graphopt keygen` or `openssl genpkey -algorithm ed25519` makes them. What is signed
begins with a text of its own, so that no signature of anything else fits a package. A signature
does not age: an older package of the same signer is as valid as a newer one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.errors import MissingDependencyError, SigningKeyError, UntrustedPackageError
from graphopt.extras import install_command
from graphopt.plain_files import read_plain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE = "SHA256SUMS.sig"
#: A public key: PEM text, or the file that holds it.
PublicKey = bytes | str | os.PathLike[str]

_KEY_BYTES = 1 << 16
_DOMAIN = b"graphopt package 1\n"
_LINE = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{128})")


def make_keys(path: Path) -> Path:
    """Writes a new private key to a file and the public one beside it.

    Returns:
        The file of the public key: the same name with `.pub`.

    Raises:
        SigningKeyError: if a file is in the way or cannot be written.
        MissingDependencyError: without the package `cryptography`.
    """
    _, serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_name(f"{path.name}.pub")
    for file, content, mode in ((path, private, 0o600), (beside, public, 0o644)):
        try:
            opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(opened, "wb") as stream:
                stream.write(content)
        except (OSError, ValueError) as error:
            raise SigningKeyError(file, getattr(error, "strerror", None) or str(error)) from error
    return beside


def signed(sums: bytes, signatures: bytes, key: Path) -> bytes:
    """The signatures of a package with one more, or with a new one of the same key.

    Args:
        sums: content of SHA256SUMS.
        signatures: content of SHA256SUMS.sig so far.
        key: file of a private key.

    Raises:
        SigningKeyError: if it is none.
        MissingDependencyError: without the package `cryptography`.
    """
    private = _private_key(key)
    signer = private.public_key().public_bytes_raw().hex()
    lines = [line for line in _lines(signatures) if line.partition(" ")[0] != signer]
    lines.append(f"{signer} {private.sign(_DOMAIN + sums).hex()}")
    return "".join(f"{line}\n" for line in lines).encode()


def check_signature(
    path: object, sums: bytes, signatures: bytes, trusted_keys: Sequence[PublicKey]
) -> None:
    """Returns if one of the keys signed a package.

    Args:
        path: of the package, for errors.
        sums: content of SHA256SUMS.
        signatures: content of SHA256SUMS.sig; empty if there is none.
        trusted_keys: public keys, at least one.

    Raises:
        UntrustedPackageError: if none of them did.
        SigningKeyError: if one is no public key, or there is none.
        MissingDependencyError: without the package `cryptography`.
    """
    if isinstance(trusted_keys, bytes | str | os.PathLike):
        trusted_keys = [trusted_keys]
    if not isinstance(trusted_keys, Iterable):
        raise SigningKeyError("trusted_keys", f"{trusted_keys!r} is no list of keys")
    keys = [_public_key(key) for key in trusted_keys]
    if not keys:
        raise SigningKeyError("trusted_keys", "it is empty")
    known = {key.public_bytes_raw().hex(): key for key in keys}
    lines = _lines(signatures)
    if not lines:
        raise UntrustedPackageError(path, "it is not signed")
    invalid = _cryptography()[0]
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise UntrustedPackageError(path, f"{SIGNATURE} has the line {line!a:.80}")
        if match[1] in known:
            try:
                known[match[1]].verify(bytes.fromhex(match[2]), _DOMAIN + sums)
            except invalid:
                raise UntrustedPackageError(
                    path, f"the signature of key {match[1][:16]} does not fit SHA256SUMS"
                ) from None
            return
    others = ", ".join(line[:16] for line in lines[:5])
    raise UntrustedPackageError(path, f"it is signed by other keys ({others})")


def _lines(signatures: bytes) -> list[str]:
    return signatures.decode(errors="replace").splitlines()


def _cryptography() -> tuple[Any, Any, Any]:
    """Its InvalidSignature, serialization and ed25519."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingDependencyError(
            "cryptography", "signing packages", install_command("cryptography")
        ) from error
    return InvalidSignature, serialization, ed25519


def _private_key(path: Path) -> Ed25519PrivateKey:
    _, serialization, ed25519 = _cryptography()
    try:
        key: Ed25519PrivateKey = serialization.load_pem_private_key(
            read_plain(path, _KEY_BYTES), None
        )
    except (OSError, ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise SigningKeyError(path, getattr(error, "strerror", None) or str(error)) from error
    fits = isinstance(key, ed25519.Ed25519PrivateKey)
    if not fits:
        raise SigningKeyError(path, "it is no private key of ed25519")
    return key


def _public_key(given: PublicKey) -> Ed25519PublicKey:
    _, serialization, ed25519 = _cryptography()
    shown = "among trusted_keys" if isinstance(given, bytes) else given
    try:
        content = given if isinstance(given, bytes) else read_plain(given, _KEY_BYTES)
        key: Ed25519PublicKey = serialization.load_pem_public_key(content)
    except (OSError, ValueError, TypeError) as error:
        raise SigningKeyError(shown, getattr(error, "strerror", None) or str(error)) from error
    fits = isinstance(key, ed25519.Ed25519PublicKey)
    if not fits:
        raise SigningKeyError(shown, "it is no public key of ed25519")
    return key
