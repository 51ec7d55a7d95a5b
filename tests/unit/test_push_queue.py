"""The gateway's queue: one pending wake-up per device, nothing without an outcome."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import limits
from wa.runtime.push_channel import Outcome, Wake
from wa.runtime.push_queue import Entry, PushQueue

Told = list[tuple[int, bytes, Outcome]]


def make() -> tuple[PushQueue, Told]:
    told: Told = []
    return PushQueue(lambda worker, wake, outcome: told.append((worker, wake.id, outcome))), told


def wake(n: int, address: int = 1, token: str = "t") -> Wake:
    return Wake(n.to_bytes(16, "big"), address, "fcm", token)


def taken(queue: PushQueue) -> Entry:
    entry = queue.take()
    assert entry is not None
    return entry


def test_one_pending_per_device_with_the_newest_token() -> None:
    queue, told = make()
    assert queue.add(0, wake(1, token="old"))
    assert queue.add(0, wake(2, address=2))
    assert not queue.add(3, wake(3, token="new"))
    assert told == [(0, wake(1).id, Outcome.DONE)]
    first = taken(queue)
    assert (first.worker, first.wake.token, first.wake.id) == (3, "new", wake(3).id)
    assert taken(queue).wake.address == 2
    assert queue.take() is None
    assert len(queue) == 0


def test_the_same_wake_again_has_one_outcome() -> None:
    queue, told = make()
    queue.add(0, wake(1))
    assert not queue.add(0, wake(1))
    assert told == []


def test_a_wake_that_comes_while_one_is_sent_is_sent_too() -> None:
    queue, told = make()
    queue.add(0, wake(1))
    taken(queue)
    assert queue.add(0, wake(2))
    assert taken(queue).wake.id == wake(2).id
    assert told == []


def test_a_retry_is_pending_and_takes_others_along() -> None:
    queue, told = make()
    queue.add(0, wake(1))
    entry = taken(queue)
    assert queue.failed(entry)
    assert queue.take() is None
    assert not queue.add(0, wake(2))
    queue.again(entry)
    assert taken(queue).wake.id == wake(2).id
    assert told == [(0, wake(1).id, Outcome.DONE)]


def test_what_failed_while_a_newer_one_came_is_done() -> None:
    queue, told = make()
    queue.add(0, wake(1))
    entry = taken(queue)
    queue.add(0, wake(2))
    assert not queue.failed(entry)
    assert told == [(0, wake(1).id, Outcome.DONE)]
    assert len(queue) == 1


def test_it_is_given_up_after_so_many_tries() -> None:
    queue, told = make()
    queue.add(0, wake(1))
    for _ in range(limits.PUSH_TRIES_MAX - 1):
        entry = taken(queue)
        assert queue.failed(entry)
        queue.again(entry)
    assert told == []
    assert not queue.failed(taken(queue))
    assert told == [(0, wake(1).id, Outcome.LOST)]
    assert len(queue) == 0


def test_a_full_queue_drops_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PUSH_QUEUE_MAX", 2)
    queue, told = make()
    assert [queue.add(0, wake(n, address=n)) for n in (1, 2, 3)] == [True, True, False]
    assert told == [(0, wake(3).id, Outcome.LOST)]
    assert not queue.add(0, wake(4, address=1)), "joining needs no room"
    assert told[1:] == [(0, wake(1).id, Outcome.DONE)]


@given(st.lists(st.tuples(st.sampled_from(["add", "send", "fail", "retry"]), st.integers(1, 3)), max_size=60))
def test_every_wake_ends_once(steps: list[tuple[str, int]]) -> None:
    """Whatever comes in which order, each id has exactly one outcome or is still there."""
    queue, told = make()
    retrying: list[Entry] = []
    ids = iter(range(1, 1_000))
    added, sent = set(), []

    def sending(then: Callable[[Entry], None]) -> None:
        if (entry := queue.take()) is not None:
            then(entry)

    def fail(entry: Entry) -> None:
        if queue.failed(entry):
            retrying.append(entry)

    for what, address in steps:
        if what == "add":
            fresh = wake(next(ids), address)
            added.add(fresh.id)
            queue.add(0, fresh)
        elif what == "retry" and retrying:
            queue.again(retrying.pop(0))
        elif what in ("send", "fail"):
            sending(fail if what == "fail" else lambda entry: sent.append(entry.wake.id))
    assert len(queue) <= 3
    for entry in retrying:
        queue.again(entry)
    left = []
    while (waiting := queue.take()) is not None:
        left.append(waiting.wake.id)
    assert sorted([*sent, *left, *(id_ for _, id_, _ in told)]) == sorted(added)
