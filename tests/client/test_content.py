"""The inner content: round trips, padding, and "parse it or raise the remote error"."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import limits
from wa.client import content
from wa.client.content import Again, Sync, Text, Unsupported
from wa.errors import LocalError, RemoteError

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
CONTENT = st.one_of(
    st.builds(Text, TEXT, U64, st.none() | U64),
    st.builds(Sync, U64, U64, TEXT, U64),
    st.builds(Again, U64, U64),
)


@given(CONTENT)
def test_round_trip(value: Text | Sync | Again) -> None:
    assert content.decode(content.encode(value)) == value


@given(st.binary(max_size=3_000))
def test_padding_is_removed_and_tells_little(data: bytes) -> None:
    padded = content.pad(data)
    assert content.unpad(padded) == data
    assert len(padded) == content.padded_length(len(data)) > len(data)
    assert len(padded) % content.PAD_UNIT_BYTES == 0
    assert len(padded) - len(data) <= max(content.PAD_UNIT_BYTES, len(data) // 8)


def test_lengths_share_few_buckets() -> None:
    assert len({content.padded_length(n) for n in range(limits.TEXT_BYTES_MAX)}) < 120


@given(st.binary(max_size=400))
def test_any_bytes_parse_or_raise_the_remote_error(data: bytes) -> None:
    for candidate in (data, content.pad(data)):
        with contextlib.suppress(RemoteError):
            content.decode(candidate)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(
    st.fixed_dictionaries({"v": JUNK | st.just(1), "t": JUNK | st.sampled_from(["text", "sync", "again"])}),
    st.dictionaries(st.sampled_from(["text", "ts", "to", "id", "x"]), JUNK),
)
def test_any_map_parses_or_raises_the_remote_error(head: dict[str, object], rest: dict[str, object]) -> None:
    try:
        found = content.decode(content.pad(msgpack.packb({**rest, **head})))
    except RemoteError:
        return
    assert isinstance(found, Text | Sync | Again | Unsupported)


def test_newer_content_is_named_and_unknown_keys_are_ignored() -> None:
    newer = {"v": 2, "t": "text", "text": "?", "ts": 1}
    assert content.decode(content.pad(msgpack.packb(newer))) == Unsupported("text (version 2)")
    unknown = {"v": 1, "t": "poll", "ts": 1}
    assert content.decode(content.pad(msgpack.packb(unknown))) == Unsupported("poll")
    more = {"v": 1, "t": "text", "text": "hi", "ts": 1, "mood": "fine"}
    assert content.decode(content.pad(msgpack.packb(more))) == Text("hi", 1)


def test_the_longest_text_fits_an_envelope() -> None:
    longest = content.encode(Sync(10**15 - 1, 2**64 - 1, "x" * limits.TEXT_BYTES_MAX, 2**64 - 1))
    assert len(longest) + 300 <= limits.ENVELOPE_BODY_BYTES_MAX
    for bad in ("é" * (limits.TEXT_BYTES_MAX // 2 + 1), "\ud800"):
        with pytest.raises(LocalError):
            content.check_text(bad)
