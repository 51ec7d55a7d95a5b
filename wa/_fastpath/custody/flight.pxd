# cython: language_level=3
"""Contract of what is in flight: deliveries sent and not acknowledged, a window per connection (rules 6 and 7).

A delivery has a number on its connection, ascending from 1; slot = number % DELIVERY_WINDOW_MAX of the connection's
ring.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from wa._fastpath.state.core cimport Conn, Core, Entry

cdef Entry** flight_ring(Core* w, Conn* c) noexcept nogil                 # made when needed; NULL = memory
cdef bint flight_room(const Core* w, const Conn* c, uint32_t body_n) noexcept nogil
cdef int flight_left(const Core* w, const Conn* c) noexcept nogil         # delivery numbers; may be negative
cdef void flight_put(Core* w, Conn* c, Entry* e) noexcept nogil           # gives it the next number
cdef Entry* flight_take(Conn* c, uint64_t number) noexcept nogil          # off the ring; NULL: not in flight
cdef bint flight_release(Core* w, Conn* c) noexcept nogil                 # the connection ends; True: mail waits
cdef void flight_resend(Core* w, Conn* c) noexcept nogil  # what is due; too often: the connection is doomed
cdef uint64_t flight_due_ms(const Core* w, const Conn* c, uint64_t until_ms) noexcept nogil
# the next resend, if before
cdef int send_delivery(Core* w, Conn* c, const Entry* e, uint8_t type, const uint8_t* body) noexcept nogil
cdef int send_receipt(Core* w, Conn* c, const Entry* e) noexcept nogil
# 0, or -1 and the connection is doomed.
