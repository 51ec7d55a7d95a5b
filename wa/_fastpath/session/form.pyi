"""The serialised form of a connection, for tests; docs/upgrade.md has the bytes."""

from typing import Any

def write(values: dict[str, Any]) -> bytes:
    """The bytes of a connection with these values, as `read` gives them; the rest is zero."""

def read(data: bytes) -> dict[str, Any]:
    """What the bytes say.  Raises ValueError: "magic", "version", "length", "section" or "value"."""

def written_again(data: bytes) -> bytes:
    """The form of a connection to which this one was applied, without its input.  Ages over 60 years are cut."""
