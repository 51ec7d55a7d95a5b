RawFrame = tuple[int, int, int, int, int, int, int, bytes]
"""(type, kind, code, address, id, number, extra, body); the meaning of each by type is in wire/frames.pxd."""

Row = tuple[int, str, list[str], int, int]
"""(kind bits, rule, fields in wire order, least and greatest length of the body)"""

def layout() -> dict[int, Row]:
    """F_LAYOUT by type byte, unknown types left out, for tests."""

def parse(data: bytes) -> list[RawFrame]:
    """All frames of one record's plaintext.  Raises RemoteError(FRAME_MALFORMED or UNKNOWN_FRAME)."""

def encode(
    type: int,
    kind: int = 0,
    code: int = 0,
    address: int = 0,
    id: int = 0,
    number: int = 0,
    extra: int = 0,
    body: bytes = b"",
    capacity: int | None = None,
) -> bytes:
    """One frame.  Raises LocalError when a field is outside its range or the frame is over `capacity` bytes.

    OverflowError when a number does not fit its C field at all.
    """
