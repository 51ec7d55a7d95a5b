"""The two ways of a code that this server has by itself."""

import io
import stat

import pytest

from wa.services.code_transport import ConsoleTransport, FileTransport


def test_console():
    stream = io.StringIO()
    ConsoleTransport(stream).send(15551230001, "012345")
    assert stream.getvalue() == "verification code for +15551230001: 012345\n"


def test_file_is_appended_to_and_private(tmp_path):
    path = tmp_path / "codes"
    for worker_transport in (FileTransport(path), FileTransport(path)):
        worker_transport.send(15551230001, "012345")
    assert path.read_text() == "+15551230001 012345\n" * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_raises(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        FileTransport(tmp_path / "missing" / "codes").send(15551230001, "012345")
