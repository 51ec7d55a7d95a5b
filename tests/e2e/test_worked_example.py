"""docs/e2e.md says what the code does: its example, its constants and its layout."""

from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .worked_example import example

DOCUMENT = Path(__file__).parents[2] / "docs" / "e2e.md"


def documented() -> str:
    text = DOCUMENT.read_text()
    start = text.index("```text\nAlice identity seed") + len("```text\n")
    return text[start : text.index("```", start)]


def test_the_worked_example_is_what_the_code_makes() -> None:
    assert documented() == example()


def test_the_documented_layout_opens_the_documented_message() -> None:
    """Only the document's numbers and an AEAD: offsets, associated data and nonce are as written there."""
    values = {line[:28].strip(): bytes.fromhex(line[28:]) for line in documented().splitlines()}
    body = values["initial message"]
    assert body[:2] == b"\x01\x01"
    assert body[2:34] == values["Alice identity key"]
    assert body[34:66] == values["Alice base key"]
    assert body[66:74] == bytes.fromhex("00000001 00000001")
    assert body[74:106] == values["Alice ratchet key"]
    assert body[106:114] == bytes(8)
    authenticated = values["X3DH associated data"] + body[:114]
    payload = AESGCM(values["message key 0"]).decrypt(bytes(12), body[114:], authenticated)
    assert payload == bytes(4) + b"hello Bob"
    reply = values["reply"]
    assert reply[:2] == b"\x01\x02"
    assert len(reply) == 2 + 40 + 4 + len(b"hello Alice") + 16
