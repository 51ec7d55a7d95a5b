"""The log: form, threshold, and what cannot get into it."""

import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import ids
from wa.errors import LocalError
from wa.log import LONG_DIGITS, Log


def make(level="debug", form="text"):
    stream = io.StringIO()
    return Log("worker-0", level, form, stream, lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)), stream


def test_one_text_line_per_event():
    log, stream = make()
    log.info("listening", endpoint="127.0.0.1:7340", note='a "b"\nc', empty="")
    assert stream.getvalue() == (
        "2026-01-02T03:04:05.000+00:00 info worker-0 listening"
        ' endpoint=127.0.0.1:7340 note="a \\"b\\"\\nc" empty=""\n'
    )


def test_json_form():
    log, stream = make(form="json")
    log.error("crash", worker=3)
    assert json.loads(stream.getvalue()) == {
        "time": "2026-01-02T03:04:05.000+00:00",
        "level": "error",
        "process": "worker-0",
        "event": "crash",
        "worker": 3,
    }


def test_threshold():
    log, stream = make(level="warning")
    log.info("no")
    log.warning("yes")
    assert "no" not in stream.getvalue()
    assert "yes" in stream.getvalue()


@given(st.integers(10**6, 10**15 - 1), st.integers(1, 255), st.sampled_from(["text", "json"]))
def test_no_full_number_gets_through(number, device, form):
    log, stream = make(form=form)
    address = ids.address_of(number, device)
    log.info("a", address=address, number=number, detail=f"+{number} is {address}, {number}!")
    line = stream.getvalue().split("a ", 1)[-1]
    assert str(number) not in line
    assert not LONG_DIGITS.search(line.replace("2026-01-02", ""))


def test_bytes_are_refused():
    log, _ = make()
    with pytest.raises(LocalError, match="log field body: bytes"):
        log.info("sent", body=b"hello")


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(28, "no space left")


def test_a_log_that_cannot_be_written_is_counted():
    log = Log("w", stream=FullDisk())
    log.info("lost")
    assert log.dropped_total == 1


def test_named_keeps_everything_else():
    log, stream = make(form="json")
    log.named("worker-7").info("up")
    assert json.loads(stream.getvalue())["process"] == "worker-7"
