# cython: language_level=3
# HOT: every frame that arrives moves its connection's timer.
"""Hierarchical timer wheel.

Time is counted in ticks of 4 ms; a deadline is rounded up to a tick, so a timer is never early and less than one tick
late.  A timer whose tick T lies ahead of the wheel's tick N sits at the level of the highest 6-bit digit in which T
and N differ, in the slot named by that digit of T.  Three things follow, and the code rests on them:

  1. At every level the occupied slots are ahead of N's digit, so the lowest set bit of `occupied` is the next one.
  2. The lowest occupied level holds the soonest timers, as its timers share all higher digits with N.
  3. N may jump anywhere before the start of that slot without a timer having to move.

When N reaches the start of a slot its timers are due (level 0) or move to lower levels, at most once per level.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from wa.errors import LocalError

cdef extern from *:
    int ctz64 "__builtin_ctzll"(unsigned long long) nogil
    int clz64 "__builtin_clzll"(unsigned long long) nogil

cdef enum:
    TICK_BITS = 2                 # 4 ms
    DIGIT_BITS = 6
    DIGIT_MASK = 63
    WAIT_MS_MAX = 1 << 30         # 12 days; a whole number of ticks

assert WHEEL_RESOLUTION_MS == 1 << TICK_BITS and WHEEL_SLOTS == WHEEL_LEVELS << DIGIT_BITS
assert WHEEL_LEVELS * DIGIT_BITS >= 64 - TICK_BITS


cdef inline uint64_t tick_of(uint64_t deadline_ms) noexcept nogil:
    """The first tick at which a timer may fire."""
    return (deadline_ms >> TICK_BITS) + ((deadline_ms & (WHEEL_RESOLUTION_MS - 1)) != 0)


cdef inline void list_init(Timer* head) noexcept nogil:
    head.next = head
    head.prev = head


cdef inline void list_append(Timer* head, Timer* t) noexcept nogil:
    t.next = head
    t.prev = head.prev
    head.prev.next = t
    head.prev = t


cdef inline void list_splice(Timer* head, Timer* other) noexcept nogil:
    """Moves all of the non-empty list `other` to the end of `head`."""
    other.next.prev = head.prev
    head.prev.next = other.next
    other.prev.next = head
    head.prev = other.prev
    list_init(other)


cdef inline void place(TimerWheel* w, Timer* t) noexcept nogil:
    cdef uint64_t tick = tick_of(t.deadline_ms)
    cdef int level, slot
    if tick <= w.tick:
        list_append(&w.due, t)
        return
    level = (63 - clz64(tick ^ w.tick)) // DIGIT_BITS
    slot = (tick >> (level * DIGIT_BITS)) & DIGIT_MASK
    w.occupied[level] |= <uint64_t>1 << slot
    list_append(&w.slots[(level << DIGIT_BITS) | slot], t)


cdef inline void remove(TimerWheel* w, Timer* t) noexcept nogil:
    cdef Timer* head = t.next
    cdef size_t at
    t.prev.next = t.next
    t.next.prev = t.prev
    t.next = NULL
    t.prev = NULL
    if head.next == head and head != &w.due:  # it was the last of its slot
        at = head - &w.slots[0]
        w.occupied[at >> DIGIT_BITS] &= ~(<uint64_t>1 << (at & DIGIT_MASK))


cdef inline int lowest_level(TimerWheel* w) noexcept nogil:
    cdef int level
    for level in range(WHEEL_LEVELS):
        if w.occupied[level] != 0:
            return level
    return -1


cdef inline uint64_t slot_start(TimerWheel* w, int level) noexcept nogil:
    """The tick at which the next occupied slot of `level` begins."""
    cdef int shift = level * DIGIT_BITS
    cdef uint64_t digits = (w.tick >> shift) & ~<uint64_t>DIGIT_MASK
    return (digits | <uint64_t>ctz64(w.occupied[level])) << shift


cdef void open_slot(TimerWheel* w, int level) noexcept nogil:
    """Empties the next occupied slot of `level`, whose start the wheel's tick has just reached."""
    cdef int slot = ctz64(w.occupied[level])
    cdef Timer* head = &w.slots[(level << DIGIT_BITS) | slot]
    cdef Timer* t
    w.occupied[level] &= w.occupied[level] - 1
    if level == 0:
        list_splice(&w.due, head)
        return
    while head.next != head:
        t = head.next
        head.next = t.next
        t.next.prev = head
        place(w, t)


cdef void advance(TimerWheel* w, uint64_t tick) noexcept nogil:
    cdef int level
    cdef uint64_t start
    while True:
        level = lowest_level(w)
        if level < 0:
            break
        start = slot_start(w, level)
        if start > tick:
            break
        w.tick = start
        open_slot(w, level)
    w.tick = tick


cdef void wheel_init(TimerWheel* w, uint64_t now_ms) noexcept nogil:
    cdef int i
    memset(w, 0, sizeof(TimerWheel))
    w.tick = now_ms >> TICK_BITS
    list_init(&w.due)
    for i in range(WHEEL_SLOTS):
        list_init(&w.slots[i])


cdef void timer_set(TimerWheel* w, Timer* t, uint64_t deadline_ms) noexcept nogil:
    if t.next != NULL:
        remove(w, t)
    else:
        w.set_n += 1
    t.deadline_ms = deadline_ms
    place(w, t)


cdef void timer_cancel(TimerWheel* w, Timer* t) noexcept nogil:
    if t.next == NULL:
        return
    remove(w, t)
    w.set_n -= 1


cdef Timer* wheel_pop(TimerWheel* w, uint64_t now_ms) noexcept nogil:
    cdef uint64_t tick = now_ms >> TICK_BITS
    cdef Timer* t
    if tick > w.tick:
        advance(w, tick)
    t = w.due.next
    if t == &w.due:
        return NULL
    timer_cancel(w, t)
    return t


cdef int wheel_wait_ms(TimerWheel* w, uint64_t now_ms) noexcept nogil:
    """0 when a timer is due.  Else never past the next deadline by a tick; it may be sooner, when slots must be opened.
    """
    cdef int level
    cdef uint64_t start, tick = now_ms >> TICK_BITS
    if w.due.next != &w.due:
        return 0
    level = lowest_level(w)
    if level < 0:
        return -1
    start = slot_start(w, level)
    if start <= tick:
        return 0
    if start - tick > WAIT_MS_MAX >> TICK_BITS:
        return WAIT_MS_MAX
    return <int>(((start - tick) << TICK_BITS) - (now_ms & (WHEEL_RESOLUTION_MS - 1)))


cdef class WheelFace:
    """The wheel for tests: timers are named 0..n-1.  Raises LocalError for another name."""

    cdef TimerWheel wheel
    cdef Timer* timers
    cdef int n

    def __cinit__(self, n: int, now_ms: int):
        self.timers = <Timer*>calloc(n, sizeof(Timer))
        if self.timers == NULL:
            raise MemoryError
        self.n = n
        wheel_init(&self.wheel, now_ms)

    def __dealloc__(self):
        free(self.timers)

    cdef Timer* at(self, int name) except NULL:
        if not 0 <= name < self.n:
            raise LocalError(f"there is no timer {name}: they are 0..{self.n - 1}")
        return &self.timers[name]

    def set(self, name: int, deadline_ms: int) -> None:
        timer_set(&self.wheel, self.at(name), deadline_ms)

    def cancel(self, name: int) -> None:
        timer_cancel(&self.wheel, self.at(name))

    def is_set(self, name: int) -> bool:
        return self.at(name).next != NULL

    def pop(self, now_ms: int) -> int | None:
        cdef Timer* t = wheel_pop(&self.wheel, now_ms)
        return None if t == NULL else t - self.timers

    def wait_ms(self, now_ms: int) -> int:
        return wheel_wait_ms(&self.wheel, now_ms)

    @property
    def set_n(self) -> int:
        return self.wheel.set_n
