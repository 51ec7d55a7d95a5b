"""A strict reader for stored records and message bodies: a missing or surplus byte raises the given error."""

from wa.e2e.errors import E2EError


class Reader:
    """Reads big-endian fields off `data`; a short or overlong input raises `error`."""

    __slots__ = ("_at", "_data", "_error")

    def __init__(self, data: bytes, error: type[E2EError]) -> None:
        self._data = data
        self._at = 0
        self._error = error

    def fail(self, why: str) -> E2EError:
        return self._error(why)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise self._error("cut short")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def uint(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def flag(self) -> bool:
        value = self.uint(1)
        if value > 1:
            raise self._error("a flag is neither 0 nor 1")
        return value == 1

    def consumed(self) -> bytes:
        """Everything read so far."""
        return self._data[: self._at]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self._at != len(self._data):
            raise self._error("bytes are left over")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")
