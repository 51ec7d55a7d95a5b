"""The server's keys on disk, `keys/` of the data directory (0700, each file 0600).

    root.key     secret of the root, a 32-byte Ed25519 seed; may be moved offline once there is a certificate
    root.pub     its public key as 64 hex digits: what clients pin
    static.key   secret of the Noise static key, 32 bytes
    certificate  the static key signed by the root, 113 bytes (docs/protocol.md, 1.1)

The first start makes all of them.  A later start renews a certificate that ends soon; for that root.key must be there.
Without root.key the server serves while the certificate is valid.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pysodium

from wa import limits
from wa.errors import LocalError, RemoteError
from wa.log import Log
from wa.noise import certificate

DAY_S = 86_400
CLOCK_SKEW_S = DAY_S  # so that a client whose clock is behind accepts a new certificate
SECRET_BYTES = 32


@dataclass(frozen=True, repr=False)
class ServerKeys:
    static_private: bytes
    certificate: bytes
    root_public: bytes

    @property
    def pepper(self) -> bytes:
        """32 secret bytes for what the registry stores hashed."""
        return hashlib.blake2b(b"", key=self.static_private, person=b"wa pepper", digest_size=32).digest()


def load(directory: Path, now_s: int, log: Log) -> ServerKeys:
    """Reads the keys, making or renewing what is due.

    Raises LocalError: a file is damaged, readable by others, or root.key is needed and not there.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    root_secret, root_public = _root(directory)
    static_private = _read_secret(directory / "static.key")
    if static_private is None:
        _need_root(root_secret, directory, "there is no static key yet")
        static_private = pysodium.randombytes(SECRET_BYTES)
        _write(directory / "static.key", static_private)
    static_public: bytes = pysodium.crypto_scalarmult_curve25519_base(static_private)
    current = _read(directory / "certificate")
    left_s = _valid_for_s(current, root_public, static_public, now_s)
    if left_s <= limits.CERTIFICATE_RENEW_DAYS * DAY_S:
        if root_secret is not None:
            not_after = now_s + limits.CERTIFICATE_DAYS * DAY_S
            current = certificate.make(root_secret, static_public, now_s - CLOCK_SKEW_S, not_after)
            _write(directory / "certificate", current)
            log.info("certificate_made", days=limits.CERTIFICATE_DAYS)
        elif left_s > 0:
            log.warning("certificate_ends_soon", days=left_s // DAY_S, need=str(directory / "root.key"))
        else:
            _need_root(root_secret, directory, "the certificate is missing, expired or for another key")
    assert current is not None
    return ServerKeys(static_private, current, root_public)


def _root(directory: Path) -> tuple[bytes | None, bytes]:
    """(secret or None when it is offline, the public key that clients pin); made on the first start."""
    root_secret = _read_secret(directory / "root.key")
    text = _read(directory / "root.pub")
    if text is None and root_secret is None:
        if (directory / "static.key").exists() or (directory / "certificate").exists():
            raise LocalError(f"{directory / 'root.pub'} is missing: clients have it pinned, so put it back")
        root_secret, _ = certificate.make_root()
        _write(directory / "root.key", root_secret)
    expected = certificate.root_public(root_secret) if root_secret is not None else None
    if text is None:
        assert expected is not None
        _write(directory / "root.pub", expected.hex().encode() + b"\n")
        return root_secret, expected
    try:
        public = bytes.fromhex(text.decode())
    except ValueError:
        public = b""
    if len(public) != SECRET_BYTES:
        raise LocalError(f"{directory / 'root.pub'} is not 64 hex digits: put the right file back")
    if expected not in (None, public):
        raise LocalError(
            f"{directory / 'root.key'} is not the secret of root.pub, which clients have pinned: put the right one back"
        )
    return root_secret, public


def _valid_for_s(found: bytes | None, root_public: bytes, static_public: bytes, now_s: int) -> int:
    """Seconds until the certificate ends; 0 when it is of no use now."""
    if found is None:
        return 0
    try:
        return certificate.verify(found, root_public, static_public, now_s).not_after - now_s
    except RemoteError:
        return 0


def _need_root(root_secret: bytes | None, directory: Path, why: str) -> None:
    if root_secret is None:
        raise LocalError(f"{why}: put {directory / 'root.key'} back for one start; then it may go offline again")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read_secret(path: Path) -> bytes | None:
    secret = _read(path)
    if secret is None:
        return None
    if path.stat().st_mode & 0o077:
        raise LocalError(f"{path} can be read by other users: chmod 600 it, and treat the key as leaked")
    if len(secret) != SECRET_BYTES:
        raise LocalError(f"{path} has {len(secret)} bytes, not {SECRET_BYTES}: put the right file back")
    return secret


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and on disk when this returns."""
    partial = path.with_name(path.name + ".new")
    file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, data)
        os.fsync(file)
    finally:
        os.close(file)
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
