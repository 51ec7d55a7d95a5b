"""Reads the trace rings: the stages of an envelope, over all workers.

Each worker writes `run/trace-<worker>.ring` (layout: wa/_fastpath/state/trace.pxd); a restarted worker begins a new
one.  The file stays in the page cache and is never synced: a trace need not survive the machine.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wa._fastpath.state.trace import HEADER_BYTES, RECORD_BYTES, STAGES
from wa.errors import Code, LocalError
from wa.wire.frames import Level

RECORDS_DEFAULT = 1 << 16
_HEADER = struct.Struct("=IHHIIQQ")
_RECORD = struct.Struct("=QQQQQIHHQ")
_MAGIC, _VERSION = 0x77617472, 1
_TOLD = {"sender told", "receipt waits for its offline sender"}
assert _HEADER.size == HEADER_BYTES and _RECORD.size == RECORD_BYTES


@dataclass(frozen=True, order=True)
class Step:
    """One stage of one envelope.  time_us: Unix microseconds of the worker that wrote it."""

    time_us: int
    worker: int
    serial: int
    stage: str
    detail: str  # an error name, a receipt level, a worker; or empty
    sender: int
    recipient: int
    id: int


def ring_path(run_dir: Path, worker: int) -> Path:
    return run_dir / f"trace-{worker}.ring"


def create_ring(run_dir: Path, worker: int, records: int = RECORDS_DEFAULT) -> mmap.mmap:
    """An empty ring of `records` records, for `Loop(trace=...)`.

    It is written out here to take its space: a page without room on a full disk would kill the worker that touches it
    (SIGBUS).  Raises OSError, and then there is no ring.
    """
    path = ring_path(run_dir, worker)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b") as file:
        try:
            file.write(bytes(HEADER_BYTES + records * RECORD_BYTES))
            file.flush()
            return mmap.mmap(file.fileno(), 0)
        except OSError:
            path.unlink()
            raise


def steps(run_dir: Path, envelope_id: int | None = None) -> list[Step]:
    """The recorded stages in order of time, of one envelope id or of all.

    Raises LocalError when tracing is off (there is no ring) or a ring is of another version.
    """
    paths = sorted(run_dir.glob("trace-*.ring"))
    if not paths:
        raise LocalError(f"no traces in {run_dir}: start the server with --trace, or give its --data-dir")
    rings = [data for path in paths if (data := _checked(path))]
    # One offset for all, so that stages of different workers keep their order.
    offset_us = max((_HEADER.unpack_from(data)[6] for data in rings), default=0)
    found = [step for data in rings for step in _read(data, offset_us)]
    return sorted(step for step in found if envelope_id is None or step.id == envelope_id)


def _checked(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) < HEADER_BYTES:
        return b""  # being made right now
    magic, version, record_bytes, _, _, _, _ = _HEADER.unpack_from(data)
    if magic == 0:
        return b""
    if (magic, version, record_bytes) != (_MAGIC, _VERSION, RECORD_BYTES):
        raise LocalError(f"{path} was written by another version of wa: use that version's wa trace")
    return data


def _read(data: bytes, offset_us: int) -> Iterator[Step]:
    capacity = _HEADER.unpack_from(data)[3]
    for i in range(min(capacity, (len(data) - HEADER_BYTES) // RECORD_BYTES)):
        serial, time_us, sender, recipient, id_, worker, stage, code, _ = _RECORD.unpack_from(
            data, HEADER_BYTES + i * RECORD_BYTES
        )
        if serial:
            name = STAGES.get(stage, f"stage {stage}")
            yield Step(time_us + offset_us, worker, serial, name, _detail(name, code), sender, recipient, id_)


def _detail(stage: str, code: int) -> str:
    if stage in _TOLD:
        return Level(code).name.lower()
    if stage in ("refused", "out of the mailbox, undelivered"):
        return Code(code).name.lower()
    if stage in ("to the recipient's worker", "from another worker"):
        return f"worker {code}"
    return ""
