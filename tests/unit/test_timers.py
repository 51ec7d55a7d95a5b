"""The timer wheel against its twin: never early, at most 4 ms late, and asleep no longer than allowed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from wa._fastpath.base.timers import WheelFace
from wa._fastpath.base.timers_twin import RESOLUTION_MS, WAIT_MS_MAX, TimerTwin
from wa.errors import LocalError

TIMERS = 16
U64_MAX = 2**64 - 1
NAME = st.integers(0, TIMERS - 1)
# around the span of every level of the wheel: 4 ms * 64**level
DELAY_MS = st.one_of(
    st.integers(0, 300),
    st.builds(lambda level, off: RESOLUTION_MS * 64**level + off, st.integers(1, 9), st.integers(-5, 5)),
    st.integers(0, 400_000),
)


def drain(wheel: WheelFace, now_ms: int) -> set[int]:
    popped = set()
    while (name := wheel.pop(now_ms)) is not None:
        assert name not in popped
        popped.add(name)
    return popped


class WheelMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.twin = TimerTwin()
        self.now_ms = 0

    @initialize(now_ms=st.one_of(st.just(0), st.integers(0, 2**50)))
    def start(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.wheel = WheelFace(TIMERS, now_ms)

    @rule(name=NAME, delay_ms=DELAY_MS)
    def set_ahead(self, name: int, delay_ms: int) -> None:
        self.wheel.set(name, self.now_ms + delay_ms)
        self.twin.set(name, self.now_ms + delay_ms)

    @rule(name=NAME, ago_ms=st.integers(0, 100))
    def set_in_the_past(self, name: int, ago_ms: int) -> None:
        self.wheel.set(name, max(0, self.now_ms - ago_ms))
        self.twin.set(name, max(0, self.now_ms - ago_ms))

    @rule(name=NAME)
    def cancel(self, name: int) -> None:
        self.wheel.cancel(name)
        self.twin.cancel(name)

    @rule(by_ms=DELAY_MS)
    def time_passes(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule()
    def sleep_as_told_then_drain(self) -> None:
        wait_ms = self.wheel.wait_ms(self.now_ms)
        self.now_ms += max(wait_ms, 0)
        self.drain()

    @rule()
    def pop_one(self) -> None:
        due = self.twin.due(self.now_ms)
        name = self.wheel.pop(self.now_ms)
        if name is None:
            assert not due
        else:
            assert name in due
            self.twin.cancel(name)

    @rule()
    def drain(self) -> None:
        popped = drain(self.wheel, self.now_ms)
        assert popped == self.twin.due(self.now_ms)
        for name in popped:
            self.twin.cancel(name)
        assert self.wheel.wait_ms(self.now_ms) != 0  # nothing is due: the loop must not spin

    @invariant()
    def same_timers_are_set(self) -> None:
        assert self.wheel.set_n == len(self.twin.deadlines)
        assert {name for name in range(TIMERS) if self.wheel.is_set(name)} == set(self.twin.deadlines)

    @invariant()
    def poll_is_never_told_to_sleep_past_a_timer(self) -> None:
        told, allowed = self.wheel.wait_ms(self.now_ms), self.twin.wait_ms_max(self.now_ms)
        assert (told == -1) == (allowed == -1)
        assert told <= allowed


TestWheelMachine = WheelMachine.TestCase
TestWheelMachine.settings = settings(stateful_step_count=60)


@given(st.integers(0, 2**60), DELAY_MS)
def test_fires_at_its_deadline_rounded_up_to_4_ms(now_ms: int, delay_ms: int) -> None:
    wheel = WheelFace(1, now_ms)
    deadline_ms = now_ms + delay_ms
    wheel.set(0, deadline_ms)
    fires_ms = -(-deadline_ms // RESOLUTION_MS) * RESOLUTION_MS
    if fires_ms > now_ms:
        assert wheel.pop(fires_ms - 1) is None
    assert wheel.pop(max(fires_ms, now_ms)) == 0
    assert fires_ms - deadline_ms < RESOLUTION_MS


@given(st.integers(0, 2**40), st.integers(0, 2**34))
def test_an_idle_loop_wakes_at_most_once_per_level(now_ms: int, delay_ms: int) -> None:
    """Sleeping exactly as told reaches the deadline in few wakes, also for one that is months away."""
    wheel = WheelFace(1, now_ms)
    wheel.set(0, now_ms + delay_ms)
    wakes = 0
    while wheel.pop(now_ms) is None:
        wait_ms = wheel.wait_ms(now_ms)
        assert wait_ms > 0
        now_ms += wait_ms
        wakes += wait_ms < WAIT_MS_MAX
    assert wakes <= 11


def test_timers_of_different_ticks_come_in_order() -> None:
    wheel = WheelFace(TIMERS, 0)
    for name in range(TIMERS):
        wheel.set(name, (TIMERS - name) * 1_000)
    popped = []
    while (name_or_none := wheel.pop(1_000_000)) is not None:
        popped.append(name_or_none)
    assert popped == list(reversed(range(TIMERS)))


def test_a_due_timer_can_still_be_cancelled_or_moved() -> None:
    wheel = WheelFace(3, 0)
    for name in range(3):
        wheel.set(name, 8)
    assert wheel.pop(8) == 0
    wheel.cancel(1)
    wheel.set(2, 100)
    assert wheel.pop(8) is None
    assert wheel.pop(100) == 2
    assert wheel.set_n == 0


def test_cancel_of_what_is_not_set_does_nothing() -> None:
    wheel = WheelFace(1, 0)
    wheel.cancel(0)
    wheel.set(0, 5)
    wheel.cancel(0)
    wheel.cancel(0)
    assert wheel.pop(1_000) is None
    assert wheel.wait_ms(1_000) == -1


@pytest.mark.parametrize("deadline_ms", [U64_MAX, U64_MAX - 3, 2**63])
def test_a_deadline_at_the_end_of_time_is_kept(deadline_ms: int) -> None:
    wheel = WheelFace(1, 0)
    wheel.set(0, deadline_ms)
    assert wheel.wait_ms(0) == WAIT_MS_MAX
    assert wheel.pop(deadline_ms - RESOLUTION_MS) is None
    assert wheel.is_set(0)


def test_the_face_refuses_a_timer_that_is_not_there() -> None:
    with pytest.raises(LocalError):
        WheelFace(1, 0).set(1, 5)
