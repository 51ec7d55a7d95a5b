# cython: language_level=3
"""Contract of the way to an authenticated connection: hello, Noise handshake or ticket, hand-over, the registry's word.

No record of it has an effect on a device: that begins with the first transport record (`go_live`).
"""
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.state.core cimport Conn, Core

cdef enum:
    # What a turn's `handshake_slots` are taken by, HANDSHAKES_PER_TURN_MAX × STEP_SLOTS of them:
    STEP_SLOTS = 8                # half an IK handshake, a message of XX: two or three multiplications
    TICKET_SLOTS = 4              # two, one of them of the base point
    PASSED_ON_SLOTS = 1           # a ticket of another worker's device: none

cdef void on_hello(Core* w, Conn* c, const uint8_t* hello) noexcept nogil

cdef bint on_handshake(Core* w, Conn* c, const uint8_t* record, uint32_t n, const uint8_t* rest,
                       uint32_t rest_n) noexcept nogil
# One record, without its length.  True when the connection, with `rest`, has gone to its owner or waits for the
# registry.

cdef bint handshake_answer(Core* w, Conn* c, const uint8_t* rest, uint32_t rest_n) noexcept nogil
# The second half of IK, when `answer_due`: with the first it is five curve multiplications, too long for one turn.  As
# above.

cdef void handshake_adopted(Core* w, const uint8_t* p, uint32_t n, int32_t fd) noexcept nogil
# From another worker, which is not the owner of its device; we are.

cdef int handshake_admit(Core* w, Conn* c, uint64_t address) noexcept nogil
# The registry's good word.  -1: not waiting for that.
