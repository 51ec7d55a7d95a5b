"""The server's keys: first start, renewal, an offline root, and what is refused."""

import io
import stat

import pysodium
import pytest

from wa import limits
from wa.errors import LocalError
from wa.log import Log
from wa.noise import certificate
from wa.runtime import keys

NOW = 1_800_000_000
DAY = 86_400


@pytest.fixture
def load(tmp_path):
    stream = io.StringIO()

    def call(now=NOW):
        loaded = keys.load(tmp_path / "keys", now, Log("supervisor", stream=stream))
        static_public = pysodium.crypto_scalarmult_curve25519_base(loaded.static_private)
        checked = certificate.verify(loaded.certificate, loaded.root_public, static_public, now)
        return loaded, checked

    call.directory = tmp_path / "keys"
    call.log = stream
    return call


def test_the_first_start_makes_everything(load):
    loaded, checked = load()
    assert checked.not_after == NOW + limits.CERTIFICATE_DAYS * DAY
    assert checked.not_before < NOW
    names = sorted(path.name for path in load.directory.iterdir())
    assert names == ["certificate", "root.key", "root.pub", "static.key"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in load.directory.iterdir())
    assert stat.S_IMODE(load.directory.stat().st_mode) == 0o700
    assert (load.directory / "root.pub").read_text() == loaded.root_public.hex() + "\n"
    assert loaded.static_private.hex() not in repr(loaded)


def test_a_later_start_keeps_them(load):
    first, _ = load()
    again, _ = load(NOW + 59 * DAY)
    assert again == first
    assert again.pepper == first.pepper
    assert len(again.pepper) == 32


def test_a_certificate_that_ends_soon_is_renewed(load):
    first, _ = load()
    later = NOW + 61 * DAY
    again, checked = load(later)
    assert checked.not_after == later + limits.CERTIFICATE_DAYS * DAY
    assert (again.static_private, again.root_public) == (first.static_private, first.root_public)


def test_the_root_may_be_offline_while_the_certificate_is_valid(load):
    first, _ = load()
    root = (load.directory / "root.key").read_bytes()
    (load.directory / "root.key").unlink()
    assert load(NOW + 89 * DAY)[0] == first
    assert "certificate_ends_soon" in load.log.getvalue()
    with pytest.raises(LocalError, match=r"expired.*root\.key back"):
        load(NOW + 91 * DAY)
    (load.directory / "root.key").touch(mode=0o600)
    (load.directory / "root.key").write_bytes(root)
    assert load(NOW + 91 * DAY)[0].root_public == first.root_public


def test_a_lost_static_key_is_made_anew_with_the_root(load):
    first, _ = load()
    (load.directory / "static.key").unlink()
    again, _ = load()
    assert again.static_private != first.static_private
    assert again.root_public == first.root_public


def test_a_lost_root_pub_comes_back_from_the_root(load):
    first, _ = load()
    (load.directory / "root.pub").unlink()
    assert load()[0] == first
    (load.directory / "root.pub").unlink()
    (load.directory / "root.key").unlink()
    with pytest.raises(LocalError, match=r"root\.pub is missing"):
        load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("root.pub", b"nonsense\n", "64 hex digits"),
        ("root.pub", b"00" * 32, "is not the secret of"),
        ("root.pub", b"00" * 31, "64 hex digits"),
        ("root.key", b"k" * 32, "is not the secret of"),
        ("static.key", b"short", "has 5 bytes"),
    ],
)
def test_damaged_files_are_refused(load, name, content, message):
    load()
    (load.directory / name).write_bytes(content)
    with pytest.raises(LocalError, match=message):
        load()


def test_a_secret_that_others_can_read_is_refused(load):
    load()
    (load.directory / "static.key").chmod(0o640)
    with pytest.raises(LocalError, match="chmod 600"):
        load()


def test_a_certificate_of_another_root_is_replaced(load):
    load()
    secret, _ = certificate.make_root()
    (load.directory / "certificate").write_bytes(certificate.make(secret, b"s" * 32, NOW, NOW + 9_999_999))
    load()
